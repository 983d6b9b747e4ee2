"""What every kind of network can do here. Nothing outside this folder knows which network it was."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import RetrievalError
from ..projection import Projection
from ..settings import SpaceSettings, Tap


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16` or `float16`."""
    return str(dtype).removeprefix("torch.")


class BadSize(RetrievalError, ValueError):
    """The network cannot take pictures of this size."""


class TapPlace(NamedTuple):
    """A tap without its weight."""

    module: str
    timestep: int


Read = dict[TapPlace, tuple[Tensor, ...]]
"""For each tap the matrices that its projection takes, each [pictures, tokens, channels], float32."""


class Network(Protocol):
    """A loaded network in evaluation mode: pictures in, the tokens that enter its attention layers out.

    weights: hash of everything loaded that changes a number; of a family from another package, as Family.stamped gives
    it. dtype, device: what and where it computes.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def weights(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...

    @property
    def variants(self) -> tuple[str, ...]:
        """What this network offers: `S`, `C`, `global`, ... (see SpaceSettings)."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the attentions that can be tapped, as short as tells them apart, in the order in which a picture
        meets them."""
        ...

    def resolve(self, tap: Tap) -> Tap:
        """The tap with the full name of its module. Raises UnknownModule."""
        ...

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        """What every picture of a space is given: the noise (drawn on the CPU), the prompt's embedding, ...

        Raises BadSize, BadNetwork.
        """
        ...

    def projection(self, module: str) -> Projection:
        """Copies of the layer's own weights that make queries, keys and values of what enters it."""
        ...

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pictures uint8 [pictures, size, size, 3] as the network takes them, once for all its spaces."""
        ...

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        """What enters the taps: one pass per timestep collects all of them, and stops at the last."""
        ...

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        """One vector a picture, [pictures, dimensions], float32: the network's own global embedding. Only for
        the variant `global`."""
        ...
