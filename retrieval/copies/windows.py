"""First look for copies: the whole of one picture against windows of the other, at a coarse scale, by one product."""

from itertools import pairwise

import numpy as np

from .sketch import SIDE

_CELLS = 12  # a window is looked at as 12 x 12 cells
_SHARES = (1.0, 0.9, 0.8, 0.7)
_STEP = 0.05

SPANS = [(place * _STEP, share) for share in _SHARES for place in range(round((1 - share) / _STEP) + 1)]
"""Where the windows begin and how long they are, along either side, in shares of it."""


def _averaging() -> np.ndarray:
    """float32 [spans x cells, 64]: means over the cells of each span."""
    rows = np.zeros((len(SPANS), _CELLS, SIDE), np.float32)
    pixels = np.arange(SIDE)
    for number, (begin, share) in enumerate(SPANS):
        edges = SIDE * (begin + share * np.arange(_CELLS + 1) / _CELLS)
        for cell, (low, high) in enumerate(pairwise(edges)):
            covered = np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, None)
            rows[number, cell] = covered / covered.sum()
    return rows.reshape(-1, SIDE)


_AVERAGING = _averaging()


def windows(grey: np.ndarray) -> np.ndarray:
    """The windows of a picture, uint8 [64, 64], as vectors of zero mean and unit norm, or nearly zero where all is one
    brightness: float32 [spans x spans, 144], the span from the top outside. The first window is the whole."""
    cells = (_AVERAGING @ grey.astype(np.float32) @ _AVERAGING.T).reshape(len(SPANS), _CELLS, len(SPANS), _CELLS)
    vectors = cells.transpose(0, 2, 1, 3).reshape(len(SPANS) ** 2, _CELLS * _CELLS)
    vectors -= vectors.mean(1, keepdims=True)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(norms, _CELLS)
    return unit


def mirrored(vectors: np.ndarray) -> np.ndarray:
    """Windows' vectors [..., 144] with left and right exchanged."""
    return vectors.reshape(*vectors.shape[:-1], _CELLS, _CELLS)[..., ::-1].reshape(vectors.shape)


def window_map(number: int, mirror: bool) -> np.ndarray:
    """The map that takes the whole of a picture, with coordinates in [-1, 1], to a window: float32 [2, 3]."""
    (top, high), (left, wide) = SPANS[number // len(SPANS)], SPANS[number % len(SPANS)]
    across = [-wide if mirror else wide, 0.0, 2 * left + wide - 1]
    return np.array([across, [0.0, high, 2 * top + high - 1]], np.float32)
