"""What a feature space stores with its record, so that stored tokens stay usable without the network.

`space.json` is the record; `space.safetensors` holds the noise, the prompt embedding and, for each tap, the few weights
of its attention layer. Querying with an indexed picture needs nothing else: no U-Net is loaded.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .durable import put_in_place
from .errors import RetrievalError
from .pooling import pool
from .projection import LINEAR, Projection, UnknownProjection
from .score import AttentionFeatures
from .settings import SpaceSettings
from .space import FeatureSpace
from .tiers import decode_tokens


class DamagedKit(RetrievalError):
    """The files of a feature space are missing, or do not match its record."""


@dataclass(frozen=True)
class SpaceKit:
    """A feature space and what it needs.

    constants: inputs shared by all pictures, float32, by name: `noise` [noises, channels, height, width] of the
    latents, `conditioning` [1, words, channels] of the prompt, `rotary` [2, tokens, head_dim] of the positions, ...
    projections: per tap. shapes: (tokens, channels) of every matrix of a record, in the order in which the projections
    take them.
    """

    space: FeatureSpace
    constants: dict[str, Tensor]
    projections: tuple[Projection, ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def settings(self) -> SpaceSettings:
        return self.space.settings

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the taps."""
        return tuple(tap.weight for tap in self.settings.taps)

    @property
    def has_tokens(self) -> bool:
        """Whether there is a token stage; otherwise the cosine of descriptors is the score."""
        return bool(self.projections)

    @property
    def device(self) -> torch.device:
        """The device on which projections are computed."""
        return self.projections[0].weights[0].device if self.projections else torch.device("cpu")

    def attention(self, matrices: Sequence[Tensor]) -> tuple[AttentionFeatures, ...]:
        """Q, K, V and map of each tap from the matrices of a record, each [pictures, tokens, channels]."""
        rest = iter(matrices)
        rotary = self.constants.get("rotary")
        return tuple(project([next(rest) for _ in range(project.matrices)], rotary) for project in self.projections)

    def read(self, records: Sequence[bytes | memoryview]) -> tuple[AttentionFeatures, ...]:
        """The same from the token records of several pictures, on the device of the projections. Raises ValueError for
        a record that cannot be of this space."""
        return self.attention(decode_tokens(records, self.shapes, self.settings.tier, self.device))

    def descriptors(self, features: Sequence[AttentionFeatures]) -> Tensor:
        """Pooled descriptors [pictures, dimensions], float32, unit norm."""
        return pool(features, self.weights)

    def to(self, device: torch.device | str) -> "SpaceKit":
        return SpaceKit(
            self.space,
            {name: tensor.to(device) for name, tensor in self.constants.items()},
            tuple(projection.to(device) for projection in self.projections),
            self.shapes,
        )

    def save(self, folder: Path) -> None:
        """Write the two files; the record last, so that a folder with a record is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"constants.{name}": tensor for name, tensor in self.constants.items()}
        for number, projection in enumerate(self.projections):
            tensors |= {f"taps.{number}.{name}": tensor for name, tensor in projection.tensors().items()}
        data = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
        details = {
            "space": self.space.record(),
            "tensors": hashlib.sha256(data).hexdigest(),
            "projections": [projection.record() for projection in self.projections],
            "shapes": self.shapes,
        }
        details["details"] = _details_hash(details)
        # Not by save_file, whose files are for their owner alone: an index may be shared.
        (folder / "space.safetensors.part").write_bytes(data)
        (folder / "space.json.part").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
        for name in ("space.safetensors", "space.json"):
            put_in_place(folder / f"{name}.part", folder / name)

    @classmethod
    def load(cls, folder: Path) -> "SpaceKit":
        """Read a kit. Raises DamagedKit if a file is missing or was altered, and UnknownProjection if a newer version
        made it."""
        try:
            details = json.loads((folder / "space.json").read_text(encoding="utf-8"))
            data = (folder / "space.safetensors").read_bytes()
            whole = hashlib.sha256(data).hexdigest() == details["tensors"]
            whole &= _details_hash(details) == details.get("details", _details_hash(details))  # the first had none
            tensors = load(data)
            projections = tuple(
                Projection.from_record(record, _below(f"taps.{number}.", tensors))
                for number, record in enumerate(_projections(details))
            )
            shapes = tuple((tokens, channels) for tokens, channels in details["shapes"])
            space = FeatureSpace.from_record(details["space"])
            kit = cls(space, _below("constants.", tensors), projections, shapes)
        except UnknownProjection as problem:
            raise UnknownProjection(
                f"The feature space in {folder} was made by a newer version of diffsim-search and cannot be read by "
                f"this one ({str(problem).rstrip('.')}); update diffsim-search."
            ) from problem
        except _UNREADABLE as problem:
            raise DamagedKit(f"The feature space in {folder} cannot be read ({problem}); {_REPAIR}") from problem
        if not whole or constants_hash(kit.constants) != space.constants:
            raise DamagedKit(f"The feature space in {folder} was altered after it was made; {_REPAIR}")
        return kit


_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError)
"""What files that were altered end in."""

_REPAIR = "restore that folder from a backup, or forget the space with `diffsim prune --space NAME` and index again."


def _projections(details: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of the projections; the first versions wrote only the numbers of heads."""
    if "projections" in details:
        return list(details["projections"])
    return [{"kind": LINEAR, "heads": heads} for heads in details["heads"]]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _details_hash(details: dict[str, Any]) -> str:
    """SHA-256 (hex) of what the record says, apart from this hash."""
    said = {name: value for name, value in details.items() if name != "details"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def constants_hash(constants: dict[str, Tensor]) -> str:
    """SHA-256 (hex) of the tensors' names, shapes and float32 numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(constants.items()):
        array = tensor.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
