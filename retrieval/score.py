"""The Aligned Attention Score (DiffSim, ICCV 2025, arXiv 2412.14580).

    Attn(Q,K,V) = softmax(Q K^T / sqrt(head_dim)) V                 per head
    AAS(A<-B)   = cos( vec Attn(Q_A,K_A,V_A), vec Attn(Q_A,K_B,V_B) )
    score(A,B)  = ( AAS(A<-B) + AAS(B<-A) ) / 2                     in [-1, 1], symmetric

`vec` makes ONE vector of all heads, tokens and channels before the cosine; the map is taken before the output
projection. Everything is computed in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AttentionFeatures:
    """One tap's features of some pictures: tensors [pictures, heads, tokens, head_dim], float32.

    map: the picture's own attention map Attn(Q,K,V), which depends on that picture alone.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    map: Tensor

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, rows: slice) -> "AttentionFeatures":
        return AttentionFeatures(self.query[rows], self.key[rows], self.value[rows], self.map[rows])

    def at(self, tokens: list[int]) -> "AttentionFeatures":
        """Keep only these query tokens and their rows of the map; all keys and values stay."""
        return AttentionFeatures(self.query[:, :, tokens], self.key, self.value, self.map[:, :, tokens])


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(head_dim)) V; all [pictures, heads, tokens, head_dim]; one picture broadcasts to many."""
    pictures = max(len(query), len(key))
    query, key, value = (part.expand(pictures, -1, -1, -1) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value)


def aligned_attention(a: AttentionFeatures, b: AttentionFeatures, metric: str = "cosine") -> tuple[Tensor, Tensor]:
    """Both directions of the score of one picture `a` (length 1) against each picture of `b`.

    metric: `cosine`, larger is more similar, or `mse` (mean squared error), smaller is more similar.
    Returns AAS(A<-B) and AAS(B<-A), each [pictures of b].
    """
    compare = {"cosine": _cosine, "mse": _mean_squared_error}[metric]
    forward = compare(a.map, attend(a.query, b.key, b.value))
    backward = compare(b.map, attend(b.query, a.key, a.value))
    return forward, backward


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return F.cosine_similarity(x.flatten(1), y.flatten(1), dim=1)


def _mean_squared_error(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).mean(1)


@dataclass(frozen=True)
class PairScore:
    """One picture A against one picture B.

    forward: A's layout, rebuilt from B against rebuilt from A. backward: the roles exchanged. score: their mean.
    Cosines are in [-1, 1], larger is more similar; mean squared errors are >= 0, smaller is more similar.
    """

    score: float
    forward: float
    backward: float


def score_pair(
    a: Sequence[AttentionFeatures], b: Sequence[AttentionFeatures], weights: Sequence[float], metric: str = "cosine"
) -> PairScore:
    """Both directions for two pictures (each one AttentionFeatures per tap, of one picture): weighted means over the
    taps. metric: as in `aligned_attention`."""
    forward = backward = 0.0
    for tap_a, tap_b, weight in zip(a, b, weights, strict=True):
        there, back = aligned_attention(tap_a, tap_b, metric)
        forward += weight * there.item() / sum(weights)
        backward += weight * back.item() / sum(weights)
    return PairScore((forward + backward) / 2, forward, backward)


def score(a: Sequence[AttentionFeatures], b: Sequence[AttentionFeatures], weights: Sequence[float]) -> Tensor:
    """The score of one picture against each of several, [pictures of b]: the weighted mean over the taps.

    a, b: one AttentionFeatures per tap, in the same order; those of `a` hold one picture.
    """
    total = torch.zeros(len(b[0]), device=b[0].query.device)
    for tap_a, tap_b, weight in zip(a, b, weights, strict=True):
        forward, backward = aligned_attention(tap_a, tap_b)
        total += weight * (forward + backward) / 2
    return (total / sum(weights)).clamp(-1, 1)


def score_one_way(a: Sequence[AttentionFeatures], b: Sequence[AttentionFeatures], weights: Sequence[float]) -> Tensor:
    """AAS(A<-B) of one picture, or of a region of it (see region.py), from each of several, [pictures of b]: the
    weighted mean over the taps. Not symmetric: the other direction, AAS(B<-A), is not computed."""
    total = torch.zeros(len(b[0]), device=b[0].query.device)
    for tap_a, tap_b, weight in zip(a, b, weights, strict=True):
        total += weight * _cosine(tap_a.map, attend(tap_a.query, tap_b.key, tap_b.value))
    return (total / sum(weights)).clamp(-1, 1)
