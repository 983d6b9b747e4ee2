"""Feature spaces: one frozen record of everything that changes a number.

Two pictures can be compared only in the same space. A space is identified by its `fingerprint`; a new network, tap,
prompt, seed, size, precision or revision of our own code is a new space beside the old one, never a change of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from .errors import RetrievalError
from .names import DTYPES, TIERS, VARIANTS
from .pictures.images import DECODE_REVISION, crop_side

EXTRACTOR_REVISION = 1
"""Raised whenever this project's code changes a number in a token record or a descriptor."""

TIMESTEPS = 1000


class InvalidSpace(RetrievalError, ValueError):
    """A setting of a feature space is outside what is allowed."""


class SpaceMismatch(RetrievalError):
    """The network that is here now is not the one that a feature space was made with."""

    def __init__(self, fingerprint: str, network: object) -> None:
        super().__init__(
            f"The weights of the network {network} are not those that the feature space {fingerprint} was made with, "
            "so what it computes now cannot be compared; ask with an indexed picture, which needs no network, or make "
            "a new space with `diffsim index --by ...`."
        )


class OtherRevision(RetrievalError):
    """Another version of this program made a feature space; this one would compute other numbers."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(
            f"The feature space {fingerprint} was made by another version of this program, and what this one computes "
            "cannot be compared with it; ask with an indexed picture, which needs no network, or make a new space with "
            "`diffsim index --by ...`."
        )


@dataclass(frozen=True)
class Tap:
    """Where attention is read: an attention module of the network, at a noise level.

    module: dotted name of the attention in the network, for example
        `up_blocks.1.attentions.2.transformer_blocks.0.attn1`.
    timestep: DDPM timestep, 0..999; larger is noisier. (The released scripts' `--target_step i` is t = 1001 - i.)
        Always 0 for networks that know no noise (CLIP, DINOv2).
    weight: share of this tap in the score, > 0; the score is the weighted mean over the taps.
    """

    module: str
    timestep: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.timestep < TIMESTEPS:
            raise InvalidSpace(f"The timestep {self.timestep} is not a DDPM timestep; choose one from 0 to 999.")
        if not 0 < self.weight < float("inf"):
            raise InvalidSpace(f"The tap weight {self.weight} is not a positive number.")
        object.__setattr__(self, "weight", float(self.weight))  # 1 and 1.0 are equal: let them be one fingerprint too

    def __str__(self) -> str:
        place = self.module.removesuffix(".attn1").removesuffix(".attn2").removesuffix(".transformer_blocks.0")
        return f"{place}@t{self.timestep}"


@dataclass(frozen=True)
class FeatureSpace:
    """Everything that changes a number (DESIGN section 3).

    weights, constants: hash of the network's weights and configuration (what embeds the prompt included), and of the
    tensors that every picture is given: the noise, the prompt embedding, ...
    variant: `S`, self-attention; `C`, cross-attention to the picture as its own prompt (IP-Adapter); `global`, the
    network's one embedding a picture, without taps and without a token stage.
    size: side of the square that a picture is resized to, pixels. fit: how; `squash`, or `crop N`: the short side to
    N pixels, at least the size, then the middle. noises: how many noise tensors the tokens are the mean over; 0 is a
    clean picture. dtype: what the network computes in. tier: how tokens are stored, `fp32`, `fp16` or `int8`.

    What has no effect makes no second space: the seed is 0 without noise, the tier of a global space `fp16`.
    """

    weights: str
    taps: tuple[Tap, ...]
    size: int
    constants: str
    prompt: str = ""
    seed: int = 2334
    noises: int = 1
    variant: str = "S"
    fit: str = "squash"
    dtype: str = "float32"
    tier: str = "fp16"
    decode_revision: int = DECODE_REVISION
    extractor_revision: int = EXTRACTOR_REVISION

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InvalidSpace(f"The variant {self.variant} is unknown; choose one of {', '.join(VARIANTS)}.")
        if bool(self.taps) == (self.variant == "global"):
            raise InvalidSpace("A feature space needs at least one tap (a module and a timestep), a global one none.")
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
            object.__setattr__(self, "tier", "fp16")

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that stand for the whole record."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """The record as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "FeatureSpace":
        """The inverse of `record`; raises InvalidSpace for a record of another program version."""
        try:
            return cls(**{**record, "taps": tuple(Tap(**tap) for tap in record["taps"])})
        except (TypeError, KeyError) as problem:
            raise InvalidSpace(f"A feature space written by another version cannot be read ({problem}).") from problem

    def same_request(self, other: "FeatureSpace") -> bool:
        """Whether both were asked for in the same way: only the drawn noise and the numbers of the prompt embedding
        may differ (no library promises a stable generator, nor the same last digit on another processor; an existing
        space keeps the tensors that it saved)."""
        return replace(self, constants=other.constants) == other

    def __str__(self) -> str:
        return " + ".join(str(tap) for tap in self.taps) or self.variant
