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
from .space import FeatureSpace


class DamagedKit(RetrievalError):
    """The files of a feature space are missing, or are not what its record says."""


@dataclass(frozen=True)
class Projection:
    """One attention layer's own to_q, to_k, to_v: weight [3 x inner, channels], bias [3 x inner], float32."""

    heads: int
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, attention: Any) -> "Projection":
        """Copy the projections of a diffusers `Attention`."""
        if any(getattr(attention, name, None) is not None for name in ("norm_q", "norm_k")):
            raise RetrievalError(
                "Attention layers that normalise queries and keys cannot be tapped yet; choose another layer."
            )
        layers = (attention.to_q, attention.to_k, attention.to_v)
        bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers]).float().cpu()
        weight = torch.cat([layer.weight.detach() for layer in layers]).float().cpu()
        return cls(attention.heads, weight, bias)

    def __call__(self, tokens: Tensor) -> AttentionFeatures:
        """Project tokens [pictures, tokens, channels] and compute each picture's own map, in float32."""
        projected = F.linear(tokens.float(), self.weight, self.bias)
        pictures, count, inner = projected.shape
        split = projected.view(pictures, count, 3, self.heads, inner // (3 * self.heads)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        return AttentionFeatures(query, key, value, attend(query, key, value))

    def to(self, device: torch.device | str) -> "Projection":
        return Projection(self.heads, self.weight.to(device), None if self.bias is None else self.bias.to(device))


@dataclass(frozen=True)
class SpaceKit:
    """A feature space and what it needs.

    noise: [channels, height, width] of the latent, float32. conditioning: prompt embedding [1, words, channels],
    float32. projections, shapes: per tap, the layer's projections and (tokens, channels) of a record.
    """

    space: FeatureSpace
    noise: Tensor
    conditioning: Tensor
    projections: tuple[Projection, ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(tap.weight for tap in self.space.taps)

    def attention(self, tokens: Sequence[Tensor]) -> tuple[AttentionFeatures, ...]:
        """Q, K, V and map of each tap from its tokens [pictures, tokens, channels]."""
        return tuple(project(tap) for project, tap in zip(self.projections, tokens, strict=True))

    def descriptors(self, features: Sequence[AttentionFeatures]) -> Tensor:
        """Pooled descriptors [pictures, dimensions], float32, unit norm."""
        return pool(features, self.weights)

    def to(self, device: torch.device | str) -> "SpaceKit":
        return SpaceKit(
            self.space,
            self.noise.to(device),
            self.conditioning.to(device),
            tuple(projection.to(device) for projection in self.projections),
            self.shapes,
        )

    def save(self, folder: Path) -> None:
        """Write the two files; the record last, so that a folder with a record is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"noise": self.noise, "conditioning": self.conditioning}
        for number, projection in enumerate(self.projections):
            tensors[f"taps.{number}.weight"] = projection.weight
            if projection.bias is not None:
                tensors[f"taps.{number}.bias"] = projection.bias
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
                Projection(heads, tensors[f"taps.{number}.weight"], tensors.get(f"taps.{number}.bias"))
                for number, heads in enumerate(details["heads"])
            )
            shapes = tuple((tokens, channels) for tokens, channels in details["shapes"])
            space = FeatureSpace.from_record(details["space"])
            kit = cls(space, tensors["noise"], tensors["conditioning"], projections, shapes)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as problem:
            raise DamagedKit(f"The feature space in {folder} cannot be read ({problem}); {_REPAIR}") from problem
        if not whole or tensor_hash(kit.noise) != space.noise or tensor_hash(kit.conditioning) != space.conditioning:
            raise DamagedKit(f"The feature space in {folder} was altered after it was made; {_REPAIR}")
        return kit


_REPAIR = "restore that folder from a backup, or delete it and index again."


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 (hex) of a tensor's shape and float32 numbers."""
    array = tensor.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()
