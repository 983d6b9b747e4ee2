"""The two stages of a query over a collection: recall by descriptors, then the full score, judged against chance.

Each query here is one example in one space, a `SpaceQuery`; what is asked is a list of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffsim.retrieval.chance import NULL_SAMPLE, Tail, fit_tail
from diffsim.retrieval.shard.question import SpaceQuery
from diffsim.retrieval.shard.recall import Found

from .collection import Collection

REGION_FACTOR = 5
"""So many times as many candidates are recalled for a region: the descriptor is the whole picture's, because that
brings in more of the true nearest than one of the region's own map (docs/querying.md)."""

EXHAUSTIVE_NUMBERS = 32_000_000
"""Up to this many token numbers, pictures x tokens x channels, a region is scored against every picture."""


@dataclass(frozen=True, eq=False)
class Scored:
    """ids: int64 [n], those of the candidates that could be read in every space. scores: float32 [n]. tail: what chance
    looks like, None where the sample is too small."""

    ids: np.ndarray
    scores: np.ndarray
    tail: Tail | None


def recall(
    collection: Collection,
    queries: Sequence[SpaceQuery],
    count: int | None,
    *,
    allowed: np.ndarray | None = None,
    include_self: bool = False,
    scores_all: Sequence[str] = (),
) -> Found:
    """The first stage: the `count` nearest of each query of positive weight (None: every picture), best place first.

    allowed: ids, only among these. scores_all: spaces whose region queries are scored against every picture, see
    `spaces_scored_whole`; elsewhere a region recalls REGION_FACTOR times as many.
    Returns ids int64 and cosines float32 in the query that ranks a picture highest.
    """
    first: dict[int, tuple[int, float]] = {}
    left_out = np.empty(0, np.int64) if include_self else examples_of(queries)
    for query in queries:
        if query.weight < 0:
            continue
        every = count is None or (query.region is not None and query.space in scores_all)
        wanted = None if every or count is None else count * (REGION_FACTOR if query.region else 1)
        ids, cosines = collection.recall(query, None if wanted is None else wanted + len(left_out), allowed)
        kept = ~np.isin(ids, left_out)
        for place, (row, cosine) in enumerate(
            zip(ids[kept][:wanted].tolist(), cosines[kept][:wanted].tolist(), strict=True)
        ):
            if row not in first or place < first[row][0]:
                first[row] = place, cosine
    ordered = sorted(first, key=lambda row: first[row][0])
    return np.array(ordered, np.int64), np.array([first[row][1] for row in ordered], np.float32)


def spaces_scored_whole(
    collection: Collection, queries: Sequence[SpaceQuery], numbers: dict[str, int], allowed: np.ndarray | None
) -> list[str]:
    """Spaces in which a region is scored against every picture, because that is quick: few pictures, or few tokens.

    numbers: tokens x channels of a picture's record, by space.
    """
    asked = dict.fromkeys(query.space for query in queries if query.region is not None)
    return [space for space in asked if collection.count([space], allowed) * numbers[space] <= EXHAUSTIVE_NUMBERS]


def examples_of(queries: Sequence[SpaceQuery]) -> np.ndarray:
    """The ids of the examples that are in the index, int64, ascending."""
    return np.unique(np.array([query.content_id for query in queries if query.content_id is not None], np.int64))


def spaces_of(queries: Sequence[SpaceQuery]) -> list[str]:
    """The spaces that are asked, each once."""
    return list(dict.fromkeys(query.space for query in queries))


def score(collection: Collection, queries: Sequence[SpaceQuery], candidates: np.ndarray) -> Scored:
    """The second stage: full scores of the candidates, ids int64 that every space has, and what chance looks like.

    With several queries a score is the sum over them of weight x score in units of the query's null spread: (score -
    mean) / standard deviation of its scores against the null sample. The sample is of the whole collection, whatever
    the filters: what is alike by chance does not depend on where one looks.
    """
    sample = collection.null_sample(spaces_of(queries), NULL_SAMPLE, examples_of(queries))
    ids, rows = collection.score(queries, np.concatenate([candidates, np.setdiff1d(sample, candidates)]))
    null, wanted = np.isin(ids, sample), np.isin(ids, candidates)
    alone = len(queries) == 1
    if alone:
        scores = rows[0]
    else:
        total = np.zeros(len(ids), np.float64)
        for query, row in zip(queries, rows, strict=True):
            total += query.weight * _in_null_spreads(row.astype(np.float64), null)
        scores = total.astype(np.float32)
    return Scored(ids[wanted], scores[wanted], fit_tail(scores[null], cosines=alone))


def _in_null_spreads(scores: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Scores as distances from the mean of chance, in its standard deviations."""
    if not null.any():
        return scores
    standardised: np.ndarray = (scores - scores[null].mean()) / max(float(scores[null].std()), 1e-6)
    return standardised
