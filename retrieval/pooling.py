"""Pooling: a picture's attention maps as one unit vector, for the first stage.

The mean and the standard deviation of the attention map over the tokens, per head and channel: of the poolings compared
in `docs/pooling.md`, it recalls the most of the exhaustive top 10 per byte.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .score import AttentionFeatures


def pool(features: Sequence[AttentionFeatures], weights: Sequence[float]) -> Tensor:
    """Descriptors [pictures, dimensions], float32, unit norm: one unit vector per tap, times sqrt(weight), in turn."""
    parts = [weight**0.5 * _pool_map(tap.map) for tap, weight in zip(features, weights, strict=True)]
    return F.normalize(torch.cat(parts, dim=1), dim=1)


def _pool_map(attention_map: Tensor) -> Tensor:
    """Unit vectors [pictures, 2 x heads x head_dim] of maps [pictures, heads, tokens, head_dim]."""
    deviation, mean = torch.std_mean(attention_map, dim=2, correction=0)
    return F.normalize(torch.cat([mean, deviation], dim=2).flatten(1), dim=1)
