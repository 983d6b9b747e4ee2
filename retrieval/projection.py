"""Projects the tokens that enter an attention layer to queries, keys and values, with that layer's own few weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import RetrievalError
from .score import AttentionFeatures, attend

LINEAR, NORMALISED = KINDS = ("linear", "linear+qk-norm")
"""linear: matrices and biases. linear+qk-norm: queries and keys are then normalised, before any rotary positions."""


class UnknownProjection(RetrievalError):
    """An attention layer computes its queries, keys and values in a way that is not supported."""


@dataclass(frozen=True)
class Norm:
    """A normalisation of queries or of keys.

    kind: `layer` (LayerNorm: mean 0, variance 1) or `rms` (RMSNorm: mean square 1). width: how many numbers are
    normalised together: head_dim, or heads x head_dim across all heads. weight, bias: float32 [width], if learned.
    """

    kind: str
    width: int
    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of(cls, norm: Any) -> "Norm":
        """Copy a LayerNorm or RMSNorm of torch or diffusers. Raises UnknownProjection."""
        name, library = type(norm).__name__, type(norm).__module__.partition(".")[0]
        kind = _NORMS.get(name)
        if kind is None or library not in ("torch", "diffusers"):
            raise UnknownProjection(
                f"Attention layers that normalise queries or keys by {name} cannot be read; choose another layer."
            )
        (width,) = getattr(norm, "normalized_shape", None) or norm.dim
        eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
        return cls(kind, width, eps, _copy(norm.weight), _copy(getattr(norm, "bias", None)))

    def __call__(self, numbers: Tensor) -> Tensor:
        """Of [pictures, tokens, heads x head_dim], float32, every `width` numbers in turn."""
        grouped = numbers.reshape(*numbers.shape[:2], -1, self.width)
        if self.kind == "layer":
            grouped = F.layer_norm(grouped, (self.width,), self.weight, self.bias, self.eps)
        else:
            grouped = F.rms_norm(grouped, (self.width,), self.weight, self.eps)
            grouped = grouped if self.bias is None else grouped + self.bias
        return grouped.flatten(2)

    def to(self, device: torch.device | str) -> "Norm":
        weight, bias = (None if part is None else part.to(device) for part in (self.weight, self.bias))
        return Norm(self.kind, self.width, self.eps, weight, bias)


_NORMS = {"LayerNorm": "layer", "FP32LayerNorm": "layer", "RMSNorm": "rms"}


@dataclass(frozen=True)
class Projection:
    """Tokens -> queries, keys and values of one attention layer, whose logits are scaled by 1/sqrt(head_dim).

    weights, biases: float32, one per matrix of tokens that the layer reads. Self-attention reads one, and its weight
    [3 x inner, channels] holds to_q, to_k and to_v in turn; cross-attention reads two, the picture's tokens (to_q) and
    the context (to_k, to_v).
    query_norm, key_norm: the kind linear+qk-norm has at least one of them, the kind linear has neither.
    """

    heads: int
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    query_norm: Norm | None = None
    key_norm: Norm | None = None

    @classmethod
    def of(cls, attention: Any, query: Any, key: Any, value: Any, *, cross: bool = False) -> "Projection":
        """Copy the three linear layers of a diffusers attention, and the norms of its queries and keys. Raises
        UnknownProjection for a layer that computes more than that."""
        norms = (getattr(attention, "norm_q", None), getattr(attention, "norm_k", None))
        if cross and norms != (None, None):
            raise UnknownProjection(
                "Cross-attention layers that normalise queries and keys cannot be read; choose another layer."
            )
        more = any(getattr(attention, name, None) is not None for name in ("group_norm", "spatial_norm", "add_k_proj"))
        if more or len(key.weight) != len(query.weight) or not getattr(attention, "scale_qk", True):
            raise UnknownProjection(
                "Attention layers that normalise their input, take in other tokens, share keys between heads or scale "
                "their logits otherwise than by 1/sqrt(head_dim) cannot be read; choose another layer."
            )
        copied = (None if norm is None else Norm.of(norm) for norm in norms)
        return cls.of_layers(attention.heads, ((query,), (key, value)) if cross else ((query, key, value),), *copied)

    @classmethod
    def of_layers(
        cls,
        heads: int,
        groups: Sequence[Sequence[Any]],
        query_norm: Norm | None = None,
        key_norm: Norm | None = None,
    ) -> "Projection":
        """Copy the linear layers for queries, keys and values, in this order, one group per matrix of tokens."""
        weights = tuple(torch.cat([layer.weight.detach() for layer in group]).float().cpu() for group in groups)
        head_dim = sum(map(len, weights)) // 3 // heads
        for norm in filter(None, (query_norm, key_norm)):
            if norm.width not in (head_dim, heads * head_dim):
                raise UnknownProjection(
                    f"An attention of {heads} heads of {head_dim} numbers that normalises {norm.width} at a time "
                    "cannot be read; choose another layer."
                )
        return cls(heads, weights, tuple(_biases(group) for group in groups), query_norm, key_norm)

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return NORMALISED if self.query_norm or self.key_norm else LINEAR

    @property
    def matrices(self) -> int:
        """How many matrices of tokens the layer reads."""
        return len(self.weights)

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
        query = self.query_norm(query) if self.query_norm else query
        key = self.key_norm(key) if self.key_norm else key
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
            self.query_norm.to(device) if self.query_norm else None,
            self.key_norm.to(device) if self.key_norm else None,
        )

    def record(self) -> dict[str, Any]:
        """All but the tensors as plain values, for JSON."""
        norms = {
            name: {"kind": norm.kind, "width": norm.width, "eps": norm.eps} for name, norm in self._norms().items()
        }
        return {"kind": self.kind, "heads": self.heads} | ({"norms": norms} if norms else {})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, for a file; `from_record` reads them."""
        named = {f"{part}.weight": weight for part, weight in enumerate(self.weights)}
        more = {f"{part}.bias": bias for part, bias in enumerate(self.biases)}
        for name, norm in self._norms().items():
            more |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
        return named | {name: tensor for name, tensor in more.items() if tensor is not None}

    def _norms(self) -> dict[str, Norm]:
        return {name: norm for name, norm in (("query", self.query_norm), ("key", self.key_norm)) if norm}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], named: dict[str, Tensor]) -> "Projection":
        """The inverse of `record` and `tensors`. Raises UnknownProjection for a kind that is not one of KINDS."""
        if record["kind"] not in KINDS:
            raise UnknownProjection(f"Projections of the kind {record['kind']!r} cannot be computed here.")
        norms = {
            name: Norm(**norm, weight=named.get(f"{name}.weight"), bias=named.get(f"{name}.bias"))
            for name, norm in record.get("norms", {}).items()
        }
        parts = range(sum(name.endswith(".weight") and name[0].isdigit() for name in named))
        weights = tuple(named[f"{part}.weight"] for part in parts)
        biases = tuple(named.get(f"{part}.bias") for part in parts)
        return cls(record["heads"], weights, biases, norms.get("query"), norms.get("key"))


def _turned(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021): channel i and channel i + head_dim / 2 are a pair."""
    cosine, sine = rotary
    first, second = x.chunk(2, dim=-1)
    turned: Tensor = x * cosine + torch.cat([-second, first], dim=-1) * sine
    return turned


def _biases(layers: Sequence[Any]) -> Tensor | None:
    """The layers' biases in order, zeros for a layer without one; None if no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    zeros = (layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers)
    return torch.cat([bias.detach() for bias in zeros]).float().cpu()


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().float().cpu().clone()
