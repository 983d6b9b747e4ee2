"""Two pictures in one feature space: why they score as they do, from their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsim.retrieval.agreement import Agreement, agreement, attention_map, square_places
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.region import Box, region_features, touched_tokens
from diffsim.retrieval.score import AttentionFeatures, score, score_one_way

from .query import BadQuery

_REGIONS = 4
"""Number of parts of A, those found best in B, that are shown."""


@dataclass(frozen=True)
class Pair:
    """a, b: attention features per tap, one picture each. weights: of the taps. prefix: tokens before the grid.

    places: whether keys correspond to places in a picture; those of DiffSim-C do not.
    region: the box of A that is compared, in fractions of the part that the network sees; None is all of it, and only
    then do both directions count.
    """

    a: Sequence[AttentionFeatures]
    b: Sequence[AttentionFeatures]
    weights: Sequence[float]
    prefix: int
    places: bool
    region: Box | None = None

    @classmethod
    def of(
        cls,
        a: Sequence[AttentionFeatures],
        b: Sequence[AttentionFeatures],
        weights: Sequence[float],
        variant: str,
        region: Box | None = None,
    ) -> "Pair":
        """variant: of the feature space, `S` or `C`."""
        _, prefix = square_places(a[0].query.shape[2])
        return cls(a, b, weights, prefix, variant != "C", region)

    @classmethod
    def of_records(cls, kit: SpaceKit, name: str, a: bytes, b: bytes, region: Box | None = None) -> "Pair":
        """From the token records of two pictures. name: of the space. Raises BadQuery for a space without tokens."""
        if not kit.has_tokens:
            raise BadQuery(f"The feature space {name} has one embedding per picture and no parts to show.")
        return cls.of(kit.read([a]), kit.read([b]), kit.weights, kit.settings.variant, region)

    def score(self) -> float:
        """As a search scores B for the query A."""
        if self.region is None:
            return score(self.a, self.b, self.weights).item()
        return score_one_way(region_features(self.a, self.region), self.b, self.weights).item()

    def agreement(self) -> Agreement:
        """How well every part of each is rebuilt from the other. The grids cover the part of a picture that the network
        sees, see diffsim.retrieval.region.seen_part. With a region, the score is that of the region, and the parts that
        are found best are chosen from it."""
        found = agreement(
            self.a,
            self.b,
            self.weights,
            prefix=self.prefix,
            regions=_REGIONS if self.places else 0,
            within=self._within(),
        )
        return found if self.region is None else replace(found, score=self.score())

    def _within(self) -> Tensor | None:
        """The places of A that the region touches, on the finest grid."""
        if self.region is None:
            return None
        rows, columns = max(
            (square_places(tap.query.shape[2])[0] for tap in self.a), key=lambda grid: grid[0] * grid[1]
        )
        touched = torch.zeros(rows * columns, dtype=torch.bool)
        touched[touched_tokens(self.region, (rows, columns))] = True
        return touched.view(rows, columns)

    def attention(self, place: tuple[int, int]) -> Tensor:
        """Where in B the attention of A's token at (row, column) falls: float32 [rows, columns], sums to at most 1, on
        the grid of the agreement. Raises NoGrid for a place outside it, BadQuery for DiffSim-C."""
        if not self.places:
            raise BadQuery("The keys of DiffSim-C are not places in a picture, so its attention cannot be shown there.")
        return attention_map(self.a, self.b, self.weights, place, prefix=self.prefix)
