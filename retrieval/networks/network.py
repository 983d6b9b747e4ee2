"""The interface of every kind of network. Code outside this folder does not depend on the kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import RetrievalError
from ..projection import Projection
from ..settings import InvalidSpace, SpaceSettings, Tap


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16` or `float16`."""
    return str(dtype).removeprefix("torch.")


class BadSize(RetrievalError, ValueError):
    """The network does not accept pictures of this size."""


def refuse_timestep(folder: Path, tap: Tap) -> None:
    """For networks trained without noise. Raises InvalidSpace for a tap with a timestep."""
    if tap.timestep:
        raise InvalidSpace(
            f"The network in {folder} was trained without noise, so there is no timestep {tap.timestep}; leave it out."
        )


def refuse_conditions(folder: Path, settings: SpaceSettings) -> None:
    """For networks that take only a picture. Raises InvalidSpace for a prompt or noises."""
    if settings.prompt or settings.noises:
        raise InvalidSpace(
            f"The network in {folder} takes only a picture; leave out the prompt, and give 0 noise tensors."
        )


class TapPlace(NamedTuple):
    """A tap without its weight."""

    module: str
    timestep: int


Read = dict[TapPlace, tuple[Tensor, ...]]
"""For each tap the matrices that its projection reads, each [pictures, tokens, channels], float32."""


class Network(Protocol):
    """A loaded network in evaluation mode: pictures in, the tokens that enter its attention layers out.

    weights: hash of everything loaded that changes a number; for a family from another package, as Family.stamped gives
    it. dtype, device: of its computations.
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
        """The variants that this network offers: `S`, `C`, `global`, ... (see SpaceSettings)."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the attentions that can be tapped, shortened as far as they stay unique, in forward order."""
        ...

    def resolve(self, tap: Tap) -> Tap:
        """The tap with the full name of its module. Raises UnknownModule."""
        ...

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        """The inputs shared by all pictures of a space: the noise (drawn on the CPU), the prompt's embedding, ...

        Raises BadSize, BadNetwork.
        """
        ...

    def projection(self, module: str) -> Projection:
        """Copies of the layer's own weights for queries, keys and values."""
        ...

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pictures uint8 [pictures, size, size, 3] encoded as the network's input, once for all its spaces."""
        ...

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        """What enters the taps: one pass per timestep collects all of them, and stops at the last."""
        ...

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        """One vector per picture, [pictures, dimensions], float32: the network's own global embedding. Only for
        the variant `global`."""
        ...


class EmbeddedText(NamedTuple):
    """vector: [1, dimensions], float32, in the space of `Network.embed`. read: where only the beginning of the text
    was read, that beginning; else None."""

    vector: Tensor
    read: str | None


@runtime_checkable
class TextNetwork(Protocol):
    """What a network offers beside `Network` whose variant `global` can be compared with texts.

    text: hash of what turns a text into tokens, its tokenizer (the weights are in `weights`); empty where this network
    has none and takes no text.
    """

    @property
    def text(self) -> str: ...

    def embed_text(self, text: str) -> EmbeddedText:
        """Raises BadNetwork."""
        ...
