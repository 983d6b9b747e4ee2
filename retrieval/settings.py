"""The settings of a feature space: everything a user can choose about it, except the network, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import RetrievalError
from .names import DEFAULT_DTYPE, DEFAULT_SEED, DEFAULT_TIER, DTYPES, TIERS
from .pictures.images import crop_side

TIMESTEPS = 1000

LARGEST = 8192
"""Pixels a side: a network's memory grows with the fourth power."""

_SEEDS = range(-(2**63), 2**64)
"""The range of seeds that torch.Generator accepts."""


class InvalidSpace(RetrievalError, ValueError):
    """A setting of a feature space is outside what is allowed."""


@dataclass(frozen=True)
class Tap:
    """Where attention is read: an attention module of the network, at a noise level.

    module: dotted name of the attention in the network, for example
        `up_blocks.1.attentions.2.transformer_blocks.0.attn1`.
    timestep: DDPM timestep, 0..999; larger is noisier. (The released scripts' `--target_step i` is t = 1001 - i.)
        Always 0 for networks trained without noise (CLIP, DINOv2).
    weight: share of this tap in the score, > 0; the score is the weighted mean over the taps.
    """

    module: str
    timestep: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.module, str) or not isinstance(self.timestep, int):
            raise InvalidSpace(f"The tap {self.module!r} at {self.timestep!r} is no module's name and timestep.")
        if not 0 <= self.timestep < TIMESTEPS:
            raise InvalidSpace(f"The timestep {self.timestep} is not a DDPM timestep; choose one from 0 to 999.")
        if not 0 < self.weight < float("inf"):
            raise InvalidSpace(f"The tap weight {self.weight} is not a positive number.")
        object.__setattr__(self, "weight", float(self.weight))  # 1 and 1.0 are equal and must give one fingerprint

    def __str__(self) -> str:
        place = self.module.removesuffix(".attn1").removesuffix(".attn2").removesuffix(".transformer_blocks.0")
        return f"{place}@t{self.timestep}"


@dataclass(frozen=True)
class SpaceSettings:
    """How a network is read. Raises InvalidSpace.

    size: side of the square that a picture is resized to, pixels. fit: how; `squash`, or `crop N`: the short side to
    N pixels, at least the size, then the middle. noises: number of noise tensors that tokens are averaged over; 0 means
    a clean picture. seed: of the noise.
    variant: `S`, self-attention; `C`, cross-attention to the picture as its own prompt (IP-Adapter); `global`, the
    network's one embedding per picture, without taps and without a token stage; or another that its family offers.
    dtype: what the network computes in. tier: how tokens are stored, `fp32`, `fp16` or `int8`.

    A setting without effect does not make a second space: without noise the seed is 0, and the tier of a global space
    is `fp16`.
    """

    taps: tuple[Tap, ...]
    size: int
    fit: str = "squash"
    prompt: str = ""
    seed: int = DEFAULT_SEED
    noises: int = 1
    variant: str = "S"
    dtype: str = DEFAULT_DTYPE
    tier: str = DEFAULT_TIER

    def __post_init__(self) -> None:
        if bool(self.taps) == (self.variant == "global"):
            raise InvalidSpace("A feature space needs at least one tap (a module and a timestep), a global one none.")
        if self.seed not in _SEEDS:
            raise InvalidSpace(f"The seed {self.seed} is out of range; choose one from -2**63 to 2**64 - 1.")
        if not isinstance(self.size, int) or not 0 < self.size <= LARGEST:
            raise InvalidSpace(f"Pictures of {self.size} x {self.size} pixels cannot be read; choose 1 to {LARGEST}.")
        if self.noises < 0:
            raise InvalidSpace(f"The number of noise tensors {self.noises} is negative; choose 0 or more.")
        if self.dtype not in DTYPES:
            raise InvalidSpace(f"The precision {self.dtype} is unknown; choose one of {', '.join(DTYPES)}.")
        if self.tier not in TIERS:
            raise InvalidSpace(f"The storage tier {self.tier} is unknown; choose one of {', '.join(TIERS)}.")
        try:
            short = crop_side(self.fit)
        except ValueError:
            short = 0
        if short is not None and short < self.size:
            raise InvalidSpace(
                f"The fit {self.fit!r} cannot be used at size {self.size}; choose squash, or crop N with N of at least "
                f"{self.size}."
            )
        if not self.noises:
            object.__setattr__(self, "seed", 0)
        if self.variant == "global":
            object.__setattr__(self, "tier", DEFAULT_TIER)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "SpaceSettings":
        """The inverse of `asdict`. Raises InvalidSpace; TypeError or KeyError for a record of another version."""
        return cls(**{**record, "taps": tuple(Tap(**tap) for tap in record["taps"])})
