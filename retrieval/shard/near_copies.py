"""Near copies of a hit: re-encoded, resized, mirrored, brightened, slightly cropped or turned pictures.

The score cannot detect them: attention finds the same things wherever they are, so two heaps of tomatoes are similar
to it. Here the values V of the stored tokens are compared place by place, also with left and right exchanged. How far
apart pictures usually are depends on the space, so a distance, 1 - cosine, is measured in units of a picture's usual
distance. Figures: docs/querying.md.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..agreement import square_places
from ..kit import SpaceKit

NEAR = 0.2
"""A near copy is at most this far from the leader of its group, where 1 is the median distance of the sample."""

SAMPLE = 32
"""Pictures used to estimate the usual distance."""

ALIKE = 0.1
"""Descriptors at most this far apart, where 1 is the 95th percentile, do not both go into a sample of unlike pictures:
the middle of copies that are cropped to 80 %, or of the next photographs of a series (docs/querying.md)."""


def unlike(descriptors: np.ndarray) -> np.ndarray:
    """Which of the pictures, in turn, are not much like one before them: bool [n]. descriptors: unit norm [n,
    dimensions]. Any share of the pictures may be frames of one burst: the usual distance is that of the others."""
    vectors = descriptors.astype(np.float32)
    chosen = np.zeros(len(vectors), np.bool_)
    if len(vectors):
        distances = 1 - vectors @ vectors.T
        alike = distances <= ALIKE * np.quantile(distances, 0.95, axis=1, keepdims=True)
        for number, row in enumerate(alike):
            chosen[number] = not (row & chosen).any()
    return chosen


def place_values(kit: SpaceKit, records: Sequence[bytes | memoryview]) -> Tensor:
    """The values as unit vectors [pictures, 2, taps x heads x tokens x head_dim], as they are and with left and right
    exchanged; float32, on the CPU."""
    values = [(tap.value, tap.value.shape[2] == tap.query.shape[2]) for tap in kit.read(records)]
    both = [[value for value, _ in values], [_mirrored(value) if places else value for value, places in values]]
    rows = [torch.cat([value.flatten(1) for value in each], dim=1) for each in both]
    return F.normalize(torch.stack(rows, dim=1), dim=2).cpu()


def _mirrored(value: Tensor) -> Tensor:
    """[pictures, heads, tokens, head_dim] with the columns of the grid of tokens in reverse order."""
    (rows, columns), prefix = square_places(value.shape[2])
    places = value[:, :, prefix:].reshape(*value.shape[:2], rows, columns, -1).flip(3).flatten(2, 3)
    return torch.cat([value[:, :, :prefix], places], dim=2)


def usual_distance(values: Tensor, sample: Tensor) -> float:
    """The median distance of a picture [2, n] from those of a sample [pictures, 2, n]."""
    return float((1 - sample[:, 0] @ values[0]).median())


class NearCopies:
    """Groups pictures in turn; the first of each group leads it. sample: place values of the null sample."""

    def __init__(self, sample: Tensor) -> None:
        self._sample = sample
        self._leaders: list[Tensor] = []
        self._limits: list[float] = []  # the least cosine of a near copy with the leader

    def group(self, values: Tensor | None) -> int | None:
        """The group whose leader a picture, by its place values [2, n], is a near copy of, the nearest one; None if it
        becomes the leader of a new group. values None: a picture without readable tokens, which matches nothing."""
        if values is None:
            self._lead(torch.zeros_like(self._sample[0]), 2.0)
            return None
        if self._leaders:
            above = (torch.stack(self._leaders) @ values[0]).amax(1) - torch.tensor(self._limits)
            nearest = int(above.argmax())
            if above[nearest] >= 0:
                return nearest
        self._lead(values, 1 - NEAR * usual_distance(values, self._sample))
        return None

    def _lead(self, values: Tensor, limit: float) -> None:
        self._leaders.append(values)
        self._limits.append(limit)
