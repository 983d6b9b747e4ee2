"""Near copies of a hit: re-encoded, resized, brightened, slightly cropped or turned pictures.

The score cannot detect them: attention finds the same things wherever they are, so two heaps of tomatoes are similar
to it. Here the values V of the stored tokens are compared place by place. How far apart pictures usually are depends
on the space, so a distance, 1 - cosine, is measured in units of a picture's usual distance. Figures: docs/querying.md.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kit import SpaceKit

NEAR = 0.05
"""A near copy is at most this far from the leader of its group, where 1 is the median distance of the sample."""

SAMPLE = 32
"""Pictures used to estimate the usual distance."""


def place_values(kit: SpaceKit, records: Sequence[bytes | memoryview]) -> Tensor:
    """Unit vectors [pictures, taps x heads x tokens x head_dim] of the values, float32, on the CPU."""
    features = kit.read(records)
    return F.normalize(torch.cat([tap.value.flatten(1) for tap in features], dim=1), dim=1).cpu()


def usual_distance(values: Tensor, sample: Tensor) -> float:
    """The median distance of a picture [n] from those of a sample [pictures, n]."""
    return float((1 - sample @ values).median())


class NearCopies:
    """Groups pictures in turn; the first of each group leads it. sample: place values of the null sample."""

    def __init__(self, sample: Tensor) -> None:
        self._sample = sample
        self._leaders: list[Tensor] = []
        self._limits: list[float] = []  # the least cosine of a near copy with the leader

    def group(self, values: Tensor | None) -> int | None:
        """The group whose leader a picture, by its place values [n], is a near copy of, the nearest one; None if it
        becomes the leader of a new group. values None: a picture without readable tokens, which matches nothing."""
        if values is None:
            self._lead(torch.zeros_like(self._sample[0]) if len(self._sample) else torch.zeros(1), 2.0)
            return None
        if self._leaders:
            above = torch.stack(self._leaders) @ values - torch.tensor(self._limits)
            nearest = int(above.argmax())
            if above[nearest] >= 0:
                return nearest
        self._lead(values, 1 - NEAR * usual_distance(values, self._sample))
        return None

    def _lead(self, values: Tensor, limit: float) -> None:
        self._leaders.append(values)
        self._limits.append(limit)
