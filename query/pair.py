"""Two pictures in one feature space: why they score as they do, from their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsim.retrieval.agreement import Agreement, agreement, attention_map, square_places
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.score import AttentionFeatures

from .query import BadQuery

_REGIONS = 4
"""Number of parts of A, those found best in B, that are shown."""


@dataclass(frozen=True)
class Pair:
    """a, b: attention features per tap, one picture each. weights: of the taps. prefix: tokens before the grid.

    places: whether keys correspond to places in a picture; those of DiffSim-C do not.
    """

    a: Sequence[AttentionFeatures]
    b: Sequence[AttentionFeatures]
    weights: Sequence[float]
    prefix: int
    places: bool

    @classmethod
    def of(
        cls, a: Sequence[AttentionFeatures], b: Sequence[AttentionFeatures], weights: Sequence[float], variant: str
    ) -> "Pair":
        """variant: of the feature space, `S` or `C`."""
        _, prefix = square_places(a[0].query.shape[2])
        return cls(a, b, weights, prefix, variant != "C")

    @classmethod
    def of_records(cls, kit: SpaceKit, name: str, a: bytes, b: bytes) -> "Pair":
        """From the token records of two pictures. name: of the space. Raises BadQuery for a space without tokens."""
        if not kit.has_tokens:
            raise BadQuery(f"The feature space {name} has one embedding per picture and no parts to show.")
        return cls.of(kit.read([a]), kit.read([b]), kit.weights, kit.settings.variant)

    def agreement(self) -> Agreement:
        """How well every part of each is rebuilt from the other. The grids cover the part of a picture that the network
        sees, see diffsim.retrieval.region.seen_part."""
        regions = _REGIONS if self.places else 0
        return agreement(self.a, self.b, self.weights, prefix=self.prefix, regions=regions)

    def attention(self, place: tuple[int, int]) -> Tensor:
        """Where in B the attention of A's token at (row, column) falls: float32 [rows, columns], sums to at most 1, on
        the grid of the agreement. Raises NoGrid for a place outside it, BadQuery for DiffSim-C."""
        if not self.places:
            raise BadQuery("The keys of DiffSim-C are not places in a picture, so its attention cannot be shown there.")
        return attention_map(self.a, self.b, self.weights, place, prefix=self.prefix)
