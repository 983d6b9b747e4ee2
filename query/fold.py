"""Near copies of a hit, folded into its tile: re-encoded, resized, brightened, slightly cropped or turned pictures.

The score does not tell them apart: attention finds the same things wherever they lie, so two heaps of tomatoes are
alike to it. Here the values V of the stored tokens are compared place by place. How far pictures usually are from each
other depends on the space, so a distance, 1 - cosine, counts in units of the tile's usual one. Measured in
docs/querying.md.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffsim.retrieval.kit import SpaceKit

from .gallery import Gallery

NEAR = 0.05
"""A near copy is at most this far from a tile, where 1 is the median distance of the sample."""

_SAMPLE = 32
"""Pictures that tell what distance is usual."""


def place_values(kit: SpaceKit, records: Sequence[bytes | memoryview]) -> Tensor:
    """Unit vectors [pictures, taps x heads x tokens x head_dim] of the values, float32, on the CPU."""
    features = kit.read(records)
    return F.normalize(torch.cat([tap.value.flatten(1) for tap in features], dim=1).cpu(), dim=1)


def usual_distance(values: Tensor, sample: Tensor) -> float:
    """The median distance of a picture [1, n] from those of a sample [pictures, n]."""
    return float((1 - sample @ values[0]).median())


class Tiles:
    """The tiles of one answer so far, in one feature space, which has tokens."""

    def __init__(self, gallery: Gallery, kit: SpaceKit) -> None:
        self._gallery = gallery
        self._kit = kit
        sample = gallery.sample(_SAMPLE, np.empty(0, np.int64))
        self._sample = place_values(kit, [record for _, record in gallery.tokens(sample)])
        self._leaders: list[Tensor] = []
        self._limits: list[float] = []  # the cosine from which on a picture is a near copy of the tile

    def fold(self, content_id: int) -> int | None:
        """Which tile a hit is a near copy of, the nearest first; None makes it the next tile."""
        records = [record for _, record in self._gallery.tokens(np.array([content_id]))]
        if not records:  # its record is gone since it was ranked: a tile that nothing is like
            self._leaders.append(torch.zeros_like(self._sample[0]))
            self._limits.append(2.0)
            return None
        values = place_values(self._kit, records)
        if self._leaders:
            above = torch.stack(self._leaders) @ values[0] - torch.tensor(self._limits)
            nearest = int(above.argmax())
            if above[nearest] >= 0:
                return nearest
        self._leaders.append(values[0])
        self._limits.append(1 - NEAR * usual_distance(values, self._sample))
        return None
