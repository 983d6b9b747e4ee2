"""Simple descriptors as baselines: methods without a network set the floor.

Each takes a picture as RGB pixels, uint8 [SIDE, SIDE, 3], and gives a float32 vector of unit length (or zeros); the
score of two pictures is the cosine, in [-1, 1].
"""

from collections.abc import Callable

import numpy as np

SIDE = 256
_BINS = 8


def colour_histogram(pixels: np.ndarray) -> np.ndarray:
    """Shares of 8 x 8 x 8 colours, square-rooted, so that the cosine is the Bhattacharyya coefficient, one minus the
    squared Hellinger distance."""
    red, green, blue = (pixels >> 5).reshape(-1, 3).astype(np.intp).T
    counts = np.bincount((red * _BINS + green) * _BINS + blue, minlength=_BINS**3)
    return _unit(np.sqrt(counts))


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """The picture at 16 x 16 pixels in colour, less its mean over pixels and channels."""
    small = _reduced(pixels.astype(np.float64), 16)
    return _unit(small - small.mean())


def gradient_histogram(pixels: np.ndarray) -> np.ndarray:
    """Orientations of the brightness gradient at 64 x 64 pixels: 8 unsigned directions, weighted by strength, in each
    of 8 x 8 cells; square-rooted, so that a few strong edges do not outweigh the rest."""
    grey = _reduced(pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114]), 64)
    down, across = np.gradient(grey)
    direction = np.floor(np.arctan2(down, across) % np.pi / np.pi * 8).astype(np.intp) % 8
    cell = np.arange(64) // 8
    place = (cell[:, None] * 8 + cell[None, :]) * 8 + direction
    counts = np.bincount(place.ravel(), np.hypot(down, across).ravel(), minlength=8 * 8 * 8)
    return _unit(np.sqrt(counts))


BASELINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "colour-histogram": colour_histogram,
    "thumbnail": thumbnail,
    "gradient-histogram": gradient_histogram,
}


def _reduced(values: np.ndarray, side: int) -> np.ndarray:
    """Block means: [SIDE, SIDE, ...] -> [side, side, ...]."""
    step = len(values) // side
    blocks = values.reshape(side, step, side, step, *values.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)))


def _unit(vector: np.ndarray) -> np.ndarray:
    flat = np.ravel(vector).astype(np.float32)
    length = float(np.linalg.norm(flat))
    return flat / np.float32(length) if length else flat
