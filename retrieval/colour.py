"""Colours of pictures: shares of colours in a perceptual space, their comparison, and the share of a wanted colour.

Colours are in OKLab (Ottosson 2020): lightness from 0 to 1, a from green to red, b from blue to yellow; distances are
about as large as they look. No torch.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 128
"""Pictures are compared at SIDE x SIDE pixels."""

NEAR = 0.1
"""Colours up to this distance in OKLab count as one, differences of lightness by half: as far as a plain red is from an
orange one, or white from a light grey. More than any colour is from the points of the grid that share it."""

_DROPPED = 3
_VALUES = 256 >> _DROPPED
"""Levels of each channel that are told apart: finer than the grid."""

_STEPS = np.array([9, 13, 13])
_LOWEST = np.array([0.0, -0.24, -0.32])
_HIGHEST = np.array([1.0, 0.28, 0.20])
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

Floats = NDArray[np.float64]


def oklab(rgb: NDArray[np.uint8]) -> Floats:
    """sRGB uint8 [..., 3] as OKLab [..., 3]."""
    cones = _linear()[rgb] @ _TO_CONES.T
    lab: Floats = np.cbrt(cones) @ _TO_LAB.T
    return lab


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The square roots of the shares of all colours, a float32 vector of unit length: the cosine of two is their
    Bhattacharyya coefficient, in [0, 1].

    pixels: sRGB uint8 [height, width, 3]. Every pixel is shared among the eight nearest points of a grid, so that a
    slightly other colour gives a slightly other histogram.
    """
    coarse = (pixels.reshape(-1, 3) >> _DROPPED).astype(np.intp) @ (_VALUES**2, _VALUES, 1)
    counts = np.bincount(coarse, minlength=_VALUES**3)
    there = np.flatnonzero(counts)
    points, weights = _shared()
    shares = np.bincount(points[there].ravel(), (weights[there] * counts[there, None]).ravel(), _STEPS.prod())
    found: NDArray[np.float32] = np.sqrt(shares[_possible()] / counts.sum()).astype(np.float32)
    return found


def shares_of(descriptors: NDArray[np.float16], rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    """How much of each picture has this colour or one near it: float32 [pictures], in [0, 1].

    descriptors: histograms [pictures, dimensions].
    """
    distances = np.linalg.norm((_centres() - oklab(np.array(rgb, np.uint8))) * (0.5, 1, 1), axis=1)
    near = distances <= NEAR
    shares: NDArray[np.float32] = np.square(descriptors[:, near].astype(np.float32)).sum(1)
    return shares.clip(0, 1)


@cache
def _linear() -> Floats:
    """Linear light of each sRGB value: [256]."""
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _grid() -> Floats:
    """All points of the grid, [points, 3]."""
    axes = (np.linspace(*ends) for ends in zip(_LOWEST, _HIGHEST, _STEPS, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


@cache
def _shared() -> tuple[NDArray[np.intp], Floats]:
    """For every colour of _VALUES levels a channel, the eight nearest points of the grid and its shares of them: both
    [colours, 8]."""
    levels = np.linspace(0, 255, _VALUES).round().astype(np.uint8)  # black is black, and white is white
    colours = oklab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3))
    places = ((colours - _LOWEST) / (_HIGHEST - _LOWEST) * (_STEPS - 1)).clip(0, _STEPS - 1 - 1e-6)
    below = places.astype(np.intp)
    points, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        points.append(np.ravel_multi_index(tuple((below + corner).T), tuple(_STEPS)))
        weights.append(np.where(corner, places - below, 1 - (places - below)).prod(1))
    return np.stack(points, 1), np.stack(weights, 1)


@cache
def _possible() -> NDArray[np.intp]:
    """The points of the grid of which a colour has a share; the others would always be 0."""
    points, weights = _shared()
    return np.unique(points[weights > 0])


@cache
def _centres() -> Floats:
    """OKLab of each number of a histogram: [dimensions, 3]."""
    return _grid()[_possible()]
