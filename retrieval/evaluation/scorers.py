"""Scores of given pairs of pictures, from descriptors or from stored tokens.

Pictures are rows 0..n-1 of a list. A picture without features has no score: NaN.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch

from ..kit import SpaceKit
from ..score import AttentionFeatures, score

_BATCH_FLOATS = 2_000_000
"""Token numbers of one side of a batch of pairs: some 8 MB of float32, times about twelve while it is scored."""

_PICTURES_AT_ONCE = 64
"""References whose pairs are scored together."""

OnProgress = Callable[[int, int], None]
"""(done, in all)."""

Records = Callable[[np.ndarray], Iterable[tuple[int, memoryview]]]
"""Content ids int64 [n] -> (content id, token record) of those that can be read."""


class PairScorer(Protocol):
    """Scores pairs of pictures of one list, in [-1, 1], larger is more similar."""

    def pairs(self, left: np.ndarray, right: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        """Scores float32 [n] of pictures left[i] and right[i], int64 [n]."""


class Scorer(PairScorer, Protocol):
    """Also scores whole collections."""

    def matrix(self, queries: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        """Scores float32 [queries, pictures] of queries int64 [n] with every picture."""


class DescriptorScorer:
    """The cosine of unit descriptors, float32 [pictures, dimensions]; a row of NaN has no features."""

    def __init__(self, descriptors: np.ndarray) -> None:
        self._descriptors = descriptors

    def pairs(self, left: np.ndarray, right: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        scores = np.empty(len(left), np.float32)
        for start in range(0, len(left), 4096):
            some = slice(start, start + 4096)
            scores[some] = np.einsum("ij,ij->i", self._descriptors[left[some]], self._descriptors[right[some]])
            on_progress(min(start + 4096, len(left)), len(left))
        return scores

    def matrix(self, queries: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        on_progress(len(queries), len(queries))
        return np.asarray(self._descriptors[queries] @ self._descriptors.T, np.float32)


class TokenScorer:
    """The full token-level score, from stored token records, on the device of the kit.

    pictures: how many there are. contents: content id of each picture that has features. records: takes ids, int64 [n],
    and gives (content id, token record) of those that can be read.
    """

    def __init__(self, kit: SpaceKit, pictures: int, contents: dict[int, int], records: Records) -> None:
        self._kit = kit
        self._pictures = pictures
        self._contents = contents
        self._records = records
        self._batch = max(1, _BATCH_FLOATS // sum(tokens * channels for tokens, channels in kit.shapes))

    def pairs(self, left: np.ndarray, right: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        """Every picture of a batch is read and projected once, regardless of how many pairs of the batch it is in."""
        scores = np.full(len(left), np.nan, np.float32)
        order = np.lexsort((right, left))  # pairs of one picture side by side
        for start in range(0, len(order), self._batch):
            some = order[start : start + self._batch]
            ids, features = self._features(np.unique(np.concatenate([left[some], right[some]])))
            some = some[np.isin(left[some], ids) & np.isin(right[some], ids)]
            if len(some):
                a = [_rows(tap, np.searchsorted(ids, left[some])) for tap in features]
                b = [_rows(tap, np.searchsorted(ids, right[some])) for tap in features]
                scores[some] = score(a, b, self._kit.weights).cpu().numpy()
            on_progress(min(start + self._batch, len(order)), len(order))
        return scores

    def matrix(self, queries: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        """Blocks of queries against blocks of pictures, so that each is projected a few times only."""
        scores = np.full((len(queries), self._pictures), np.nan, np.float32)
        everything = np.arange(self._pictures)
        for first in range(0, len(queries), _PICTURES_AT_ONCE):
            asking = queries[first : first + _PICTURES_AT_ONCE]
            ids, features = self._features(np.unique(asking))
            if not len(ids):
                continue
            for start in range(0, len(everything), self._batch):
                others, theirs = self._features(everything[start : start + self._batch])
                if not len(others):
                    continue
                for row, query in enumerate(asking, first):
                    place = int(np.searchsorted(ids, query))
                    if place < len(ids) and ids[place] == query:
                        ours = [tap[place : place + 1] for tap in features]
                        scores[row, others] = score(ours, theirs, self._kit.weights).cpu().numpy()
            on_progress(min(first + _PICTURES_AT_ONCE, len(queries)), len(queries))
        return scores

    def _features(self, pictures: np.ndarray) -> tuple[np.ndarray, tuple[AttentionFeatures, ...]]:
        """Those of `pictures` (ascending) that have a record, and their attention features per tap."""
        wanted = {row: self._contents[row] for row in pictures.tolist() if row in self._contents}
        records = dict(self._records(np.array(list(wanted.values()), np.int64)))
        rows = [row for row, content_id in wanted.items() if content_id in records]
        features = self._kit.read([records[wanted[row]] for row in rows]) if rows else ()
        return np.array(rows, np.int64), features


def _rows(features: AttentionFeatures, rows: np.ndarray) -> AttentionFeatures:
    picked = torch.from_numpy(rows).to(features.query.device)
    return AttentionFeatures(features.query[picked], features.key[picked], features.value[picked], features.map[picked])
