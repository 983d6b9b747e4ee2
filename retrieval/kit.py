"""What a feature space keeps beside its record, so that stored tokens stay usable without the network.

`space.json` is the record; `space.safetensors` holds the noise, the prompt embedding and, for each tap, the few weights
of its attention layer. Asking with an indexed picture needs nothing else: no U-Net is loaded.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from .durable import put_in_place
from .errors import RetrievalError
from .pooling import pool
from .score import AttentionFeatures, attend
from .settings import SpaceSettings
from .space import FeatureSpace
from .tiers import decode_tokens


class DamagedKit(RetrievalError):
    """The files of a feature space are missing, or are not what its record says."""


@dataclass(frozen=True)
class Projection:
    """What makes queries, keys and values of the tokens that enter an attention layer: that layer's own weights.

    weights, biases: float32, one per matrix of tokens that the layer reads. Self-attention reads one, and its weight
    [3 x inner, channels] holds to_q, to_k and to_v in turn; cross-attention reads two, the picture's tokens (to_q) and
    the context (to_k, to_v).
    """

    heads: int
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, attention: Any, query: Any, key: Any, value: Any, *, cross: bool = False) -> "Projection":
        """Copy three linear layers of an attention of diffusers."""
        if any(getattr(attention, name, None) is not None for name in ("norm_q", "norm_k")):
            raise RetrievalError(
                "Attention layers that normalise queries and keys cannot be tapped yet; choose another layer."
            )
        return cls.of_layers(attention.heads, ((query,), (key, value)) if cross else ((query, key, value),))

    @classmethod
    def of_layers(cls, heads: int, groups: Sequence[Sequence[Any]]) -> "Projection":
        """Copy the linear layers that make queries, keys and values, in turn, one group per matrix of tokens, of an
        attention whose logits are scaled by 1/sqrt(head_dim)."""
        weights = tuple(torch.cat([layer.weight.detach() for layer in group]).float().cpu() for group in groups)
        return cls(heads, weights, tuple(_biases(group) for group in groups))

    def __call__(self, matrices: Sequence[Tensor], rotary: Tensor | None = None) -> AttentionFeatures:
        """Project tokens, one [pictures, tokens, channels] per matrix that the layer reads, and compute each picture's
        own map, in float32.

        rotary: cosine and sine of the positions, [2, tokens, head_dim], by which queries and keys are turned.
        """
        projected = [
            F.linear(tokens.float(), weight, bias)
            for tokens, weight, bias in zip(matrices, self.weights, self.biases, strict=True)
        ]
        if len(projected) == 1:
            query, key, value = projected[0].chunk(3, dim=2)
        else:
            query, (key, value) = projected[0], projected[1].chunk(2, dim=2)
        query, key, value = (
            part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (query, key, value)
        )
        if rotary is not None:
            query, key = _turned(query, rotary), _turned(key, rotary)
        return AttentionFeatures(query, key, value, attend(query, key, value))

    def to(self, device: torch.device | str) -> "Projection":
        return Projection(
            self.heads,
            tuple(weight.to(device) for weight in self.weights),
            tuple(None if bias is None else bias.to(device) for bias in self.biases),
        )

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a file; `from_tensors` is the inverse."""
        named = {f"{part}.weight": weight for part, weight in enumerate(self.weights)}
        return named | {f"{part}.bias": bias for part, bias in enumerate(self.biases) if bias is not None}

    @classmethod
    def from_tensors(cls, heads: int, named: dict[str, Tensor]) -> "Projection":
        parts = range(sum(name.endswith(".weight") for name in named))
        weights = tuple(named[f"{part}.weight"] for part in parts)
        return cls(heads, weights, tuple(named.get(f"{part}.bias") for part in parts))


def _turned(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021): channel i and channel i + head_dim / 2 are a pair."""
    cosine, sine = rotary
    first, second = x.chunk(2, dim=-1)
    turned: Tensor = x * cosine + torch.cat([-second, first], dim=-1) * sine
    return turned


def _biases(layers: Sequence[Any]) -> Tensor | None:
    """The layers' biases in turn, zeros for a layer without one; None where none has one."""
    if all(layer.bias is None for layer in layers):
        return None
    zeros = (layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers)
    return torch.cat([bias.detach() for bias in zeros]).float().cpu()


@dataclass(frozen=True)
class SpaceKit:
    """A feature space and what it needs.

    constants: what every picture is given, float32, by name: `noise` [noises, channels, height, width] of the latents,
    `conditioning` [1, words, channels] of the prompt, `rotary` [2, tokens, head_dim] of the positions, ...
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
        """Of the taps."""
        return tuple(tap.weight for tap in self.settings.taps)

    @property
    def has_tokens(self) -> bool:
        """Whether there is a token stage; else the cosine of descriptors is the score."""
        return bool(self.projections)

    @property
    def device(self) -> torch.device:
        """Where the projections compute."""
        return self.projections[0].weights[0].device if self.projections else torch.device("cpu")

    def attention(self, matrices: Sequence[Tensor]) -> tuple[AttentionFeatures, ...]:
        """Q, K, V and map of each tap from the matrices of a record, each [pictures, tokens, channels]."""
        rest = iter(matrices)
        rotary = self.constants.get("rotary")
        return tuple(project([next(rest) for _ in project.weights], rotary) for project in self.projections)

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
        """Write the two files; the record last, so that a folder with a record is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"constants.{name}": tensor for name, tensor in self.constants.items()}
        for number, projection in enumerate(self.projections):
            tensors |= {f"taps.{number}.{name}": tensor for name, tensor in projection.tensors().items()}
        tensors_part = folder / "space.safetensors.part"
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, tensors_part)
        details = {
            "space": self.space.record(),
            "tensors": hashlib.sha256(tensors_part.read_bytes()).hexdigest(),
            "heads": [projection.heads for projection in self.projections],
            "shapes": self.shapes,
        }
        (folder / "space.json.part").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
        for name in ("space.safetensors", "space.json"):
            put_in_place(folder / f"{name}.part", folder / name)

    @classmethod
    def load(cls, folder: Path) -> "SpaceKit":
        """Read a kit; raises DamagedKit where a file is missing or not the one that was saved."""
        try:
            details = json.loads((folder / "space.json").read_text(encoding="utf-8"))
            data = (folder / "space.safetensors").read_bytes()
            whole = hashlib.sha256(data).hexdigest() == details["tensors"]
            tensors = load(data)
            projections = tuple(
                Projection.from_tensors(heads, _below(f"taps.{number}.", tensors))
                for number, heads in enumerate(details["heads"])
            )
            shapes = tuple((tokens, channels) for tokens, channels in details["shapes"])
            space = FeatureSpace.from_record(details["space"])
            kit = cls(space, _below("constants.", tensors), projections, shapes)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as problem:
            raise DamagedKit(f"The feature space in {folder} cannot be read ({problem}); {_REPAIR}") from problem
        if not whole or constants_hash(kit.constants) != space.constants:
            raise DamagedKit(f"The feature space in {folder} was altered after it was made; {_REPAIR}")
        return kit


_REPAIR = "restore that folder from a backup, or forget the space with `diffsim prune --space NAME` and index again."


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def constants_hash(constants: dict[str, Tensor]) -> str:
    """SHA-256 (hex) of the tensors' names, shapes and float32 numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(constants.items()):
        array = tensor.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
