"""Scores of given pairs under the paper protocol, in which a picture's features depend on its role."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..paper import PaperProtocol, Role
from ..pictures.decode_pool import Job, decode_whole
from ..pictures.images import UnreadableImage
from ..score import AttentionFeatures, score_pair
from .scorers import OnProgress

MEMORY = 2**30
"""Bytes of features that are kept in memory."""


class PaperScorer:
    """Scores of pictures A (left) and B (right), float32, from the files themselves. NaN for one that cannot be read.

    Each picture goes through the network once per role as long as its features are among the last `memory` bytes that
    were used; beyond that, the least recently used are dropped and recomputed when a pair needs them. Pairs are grouped
    by their left picture, so that only right ones can be needed again.
    """

    def __init__(self, protocol: PaperProtocol, pictures: Sequence[Path], memory: int = MEMORY) -> None:
        self._protocol = protocol
        self._pictures = pictures
        self._memory = memory
        self._kept: OrderedDict[tuple[int, Role], AttentionFeatures | None] = OrderedDict()
        self._bytes = 0

    def pairs(self, left: np.ndarray, right: np.ndarray, on_progress: OnProgress) -> np.ndarray:
        scores = np.full(len(left), np.nan, np.float32)
        for done, row in enumerate(np.lexsort((right, left)).tolist(), 1):
            a, b = self._features(int(left[row]), "A"), self._features(int(right[row]), "B")
            if a is not None and b is not None:
                scores[row] = score_pair((a,), (b,), (1.0,)).score
            on_progress(done, len(left))
        return scores

    def _features(self, picture: int, role: Role) -> AttentionFeatures | None:
        key = (picture, role)
        if key not in self._kept:
            features = self._read(self._pictures[picture], role)
            self._bytes += _bytes(features)
            self._kept[key] = features
            while self._bytes > self._memory and len(self._kept) > 1:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read(self, picture: Path, role: Role) -> AttentionFeatures | None:
        try:
            upright = decode_whole(Job(0, os.fsencode(os.path.realpath(picture)), b""), os.fsdecode(picture))
        except UnreadableImage:
            return None
        return self._protocol.features(upright, role)


def _bytes(features: AttentionFeatures | None) -> int:
    if features is None:
        return 0
    return sum(part.nbytes for part in (features.query, features.key, features.value, features.map))
