"""Second stage: the full token-level score of a query against stored token records, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from torch import Tensor

from ..kit import SpaceKit
from ..score import AttentionFeatures

_CPU_BATCH_FLOATS = 700_000
_GPU_BATCH_FLOATS = 8_000_000
"""Token numbers per batch. On a GPU some 32 MB of float32, times about ten while the maps are computed. On a CPU what
fits its caches, which halves the time for small pictures (docs/speed.md)."""

TokenRecord = tuple[int, bytes | memoryview]
"""Content id and token record."""

Scorer = Callable[[Sequence[AttentionFeatures], Sequence[AttentionFeatures], Sequence[float]], Tensor]
"""Scores one picture against several, with the weights of the taps: `score`, or `score_one_way` for a region."""


def score_queries(
    kit: SpaceKit, queries: Sequence[tuple[Sequence[AttentionFeatures], Scorer]], records: Iterable[TokenRecord]
) -> tuple[np.ndarray, np.ndarray]:
    """Score queries (the features per tap of one picture, and a scorer) against token records, in their order, on the
    device of the kit. Every record is read and projected once for all queries.

    Returns content ids int64 [n] and scores float32 [queries, n].
    """
    floats = _CPU_BATCH_FLOATS if kit.device.type == "cpu" else _GPU_BATCH_FLOATS
    size = max(1, floats // sum(tokens * channels for tokens, channels in kit.shapes))
    ids: list[int] = []
    scores = [np.empty((len(queries), 0), np.float32)]
    for batch in _batches(records, size):
        features = kit.read([record for _, record in batch])
        scores.append(np.stack([scorer(query, features, kit.weights).cpu().numpy() for query, scorer in queries]))
        ids.extend(content_id for content_id, _ in batch)
    return np.array(ids, np.int64), np.concatenate(scores, axis=1)


def _batches(records: Iterable[TokenRecord], size: int) -> Iterator[list[TokenRecord]]:
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch


def rank(ids: np.ndarray, scores: np.ndarray, first: int | None = None) -> np.ndarray:
    """Positions by descending score; scores that agree to six decimals (the precision of the score) are ties, ordered
    with the content `first` (the query itself) before all others, then by ascending id."""
    return np.lexsort((ids, ids != first, -np.round(scores.astype(np.float64), 6)))
