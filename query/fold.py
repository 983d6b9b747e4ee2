"""Near copies of a hit, folded into its tile: re-encoded, resized, slightly cropped pictures, shots of one burst."""

import numpy as np

from retrieval.chance import NULL_SAMPLE

from .gallery import Gallery

NEAR = 0.1
"""A near copy is this much nearer, by descriptor, than the middle one of the chance sample: docs/querying.md."""


class Tiles:
    """The tiles of one answer so far. A distance is 1 - cosine of descriptors of the question's first space."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._sample = _unit(gallery.descriptors(gallery.sample(NULL_SAMPLE, np.empty(0, np.int64)))[1])
        self._leaders: list[np.ndarray] = []
        self._least: list[float] = []  # cosine from which on a picture is a near copy of each leader

    def place(self, content_id: int) -> int | None:
        """Of the tiles of which it is a near copy, the most alike; None where there is none."""
        found = self._descriptor(content_id)
        if found is None or not self._leaders:
            return None
        cosines = np.stack(self._leaders) @ found
        near = np.where(cosines >= np.array(self._least), cosines, -np.inf)
        return int(near.argmax()) if np.isfinite(near).any() else None

    def add(self, content_id: int) -> None:
        """The next tile."""
        found = self._descriptor(content_id)
        if found is None or not len(self._sample):  # nothing is a near copy of a picture without a descriptor
            self._leaders.append(np.zeros_like(self._leaders[0]) if self._leaders else np.zeros(1, np.float32))
            self._least.append(np.inf)
            return
        usual = 1 - float(np.median(self._sample @ found))
        self._leaders.append(found)
        self._least.append(1 - NEAR * usual)

    def _descriptor(self, content_id: int) -> np.ndarray | None:
        _, descriptors = self._gallery.descriptors(np.array([content_id]))
        return _unit(descriptors)[0] if len(descriptors) else None


def _unit(descriptors: np.ndarray) -> np.ndarray:
    vectors = descriptors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return unit
