"""The training objectives: denoising, a score that finds what belongs together, and keeping what the encoder knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def denoising_errors(predicted: Tensor, target: Tensor, alphas_cumprod: Tensor, snr_limit: float) -> Tensor:
    """Min-SNR-weighted squared error of v-prediction (arXiv 2303.09556), float32 [n].

    predicted, target: [n,C,h,w]. alphas_cumprod: [n], at each picture's timestep.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    weight = snr.clamp(max=snr_limit) / (snr + 1)
    errors: Tensor = weight * (predicted.float() - target).square().mean((1, 2, 3))
    return errors


def score_matrix(attention: Any, tokens: Tensor) -> Tensor:
    """The Aligned Attention Score of every picture with every other: float32 [n,n], symmetric, 1 on the diagonal.

    Equal to `diffsim.retrieval.score.score` for one tap, except for rounding, and with gradients.
    attention: the self-attention module that is read. tokens: [n,tokens,channels], what enters it.
    """
    query, key, value = (
        projection(tokens).unflatten(-1, (attention.heads, -1)).permute(2, 0, 1, 3)  # [heads,n,tokens,head_dim]
        for projection in (attention.to_q, attention.to_k, attention.to_v)
    )
    pictures, length, width = query.shape[1:]
    products = lengths = torch.zeros(pictures, pictures, device=tokens.device)
    for asking, keys, values in zip(query * width**-0.5, key, value, strict=True):  # a head's tensors fit a CPU's cache
        weights = (asking.reshape(1, pictures * length, width) @ keys.transpose(1, 2)).softmax(-1)
        # In float32 from here: two gradients all but cancel where cosines are near 1, as all are at the beginning.
        rebuilt = (weights @ values).float().view(pictures, pictures, length * width)  # [of j, for i, ...]
        own = rebuilt.diagonal(dim1=0, dim2=1).T
        products = products + (rebuilt * own).sum(-1)
        lengths = lengths + rebuilt.square().sum(-1)
    lengths = lengths.sqrt()
    cosines = products / (lengths * lengths.diagonal()).clamp(min=1e-8)
    return (cosines + cosines.T) / 2


def contrastive_loss(scores: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al., arXiv 2004.11362, the outer sum): each picture's positives are those
    with its label; all others of the grid should score lower. Pictures without a positive are only negatives.

    scores: float32 [n,n]. labels: int64 [n]. Returns 0 where no picture has both positives and negatives.
    """
    logs = _log_shares(scores, temperature)
    partners = (labels[:, None] == labels) & ~_diagonal(scores)
    counts = partners.sum(1)
    asking = (counts > 0) & (counts < len(labels) - 1)
    means = logs.masked_fill(~partners, 0).sum(1) / counts.clamp(min=1)
    return -(means * asking).sum() / asking.sum().clamp(min=1)


def keeping_loss(scores: Tensor, deep: Tensor, temperature: float, keep_temperature: float) -> Tensor:
    """How far the scores of a grid depart from the encoder's own similarities: the Kullback-Leibler divergence of each
    picture's shares, the mean over the pictures (a relational distillation, Park et al., arXiv 1904.05068).

    scores: float32 [n,n]. deep: float32 [n,channels], compared by cosine, less their mean over the grid.
    """
    directions = functional.normalize(deep - deep.mean(0), dim=1)
    wanted = _log_shares(directions @ directions.T, keep_temperature)
    shares = _log_shares(scores, temperature)
    off = ~_diagonal(scores)
    divergences: Tensor = (wanted.exp() * (wanted - shares)).masked_fill(~off, 0).sum(1)
    return divergences.mean()


def _log_shares(scores: Tensor, temperature: float) -> Tensor:
    """Logarithms of each picture's softmax over all others; finite numbers without meaning on the diagonal."""
    others = (scores / temperature).masked_fill(_diagonal(scores), -1e9)
    return others - others.logsumexp(1, keepdim=True)


def _diagonal(scores: Tensor) -> Tensor:
    return torch.eye(len(scores), dtype=torch.bool, device=scores.device)
