"""Second look for copies: where one sketch lies in the other, and how well the two agree there.

A copy is the same shot: cut, mirrored, resized or recoloured, an affine map of the plane takes it into the other, and
under it both have the same detail. Another photograph of the same things agrees in outline only.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sketch import SIDE

_COARSE, _MIDDLE = 4.0, 1.5
"""Blur, in pixels of the sketch, at which the map is found and then refined, by Gauss-Newton."""
_COARSE_STEPS, _MIDDLE_STEPS = 8, 6
_MOST_STEP = 0.1

_WORTH = 0.85
"""Correlation of the blurred pictures below which the map is not refined."""

_FINE, _BROAD = 1.2, 3.0
"""The detail that must agree lies between these two blurs, in pixels."""

_BLOCKS = 8
"""Agreement is also looked at in 8 x 8 blocks: a print on a garment differs where the garment does not."""

_NOISE = 4.0
"""Squared grey levels of detail below which a block says nothing: noise of compression."""

_PIXEL = 1 / 12  # the variance of a pixel's own blur, in pixels

_SMALLEST, _LARGEST, _MOST_TURN = 0.6, 1.15, 0.1


@dataclass(frozen=True, eq=False)
class Aligned:
    """maps: float32 [pairs, 2, 3], take a point (x, y, 1) of the first picture, each in [-1, 1], to one of the second.
    detail: float32 [pairs], correlation of the detail that both show. local: the same in the block that a tenth of the
    blocks are below. inside: share of the first picture that lies in the second. Pairs that cannot be aligned have
    -1 in all three."""

    maps: np.ndarray
    detail: np.ndarray
    local: np.ndarray
    inside: np.ndarray


def align(first: np.ndarray, second: np.ndarray, maps: np.ndarray) -> Aligned:
    """first, second: brightness, uint8 [pairs, 64, 64]. maps: float32 [pairs, 2, 3], to begin with."""
    one, other = (torch.from_numpy(each).float() for each in (first, second))
    found = torch.from_numpy(maps.copy())
    found, correlation = _refined(one, other, found, _COARSE, _COARSE_STEPS, _QUARTER)
    worth = (correlation >= _WORTH) & _is_plausible(found)
    figures = torch.full((3, len(first)), -1.0)
    if worth.any():
        some = one[worth], other[worth]
        found[worth], _ = _refined(*some, found[worth], _MIDDLE, _MIDDLE_STEPS, _HALF)
        figures[:, worth] = torch.where(_is_plausible(found[worth]), _agreement(*some, found[worth]), -1.0)
    detail, local, inside = figures.numpy()
    return Aligned(found.numpy(), detail, local, inside)


def _is_plausible(maps: Tensor) -> Tensor:
    """Whether maps keep size and upright position roughly, as those of copies do: bool [pairs]."""
    sides = maps[:, :, :2].norm(dim=1)
    turned = torch.stack([maps[:, 0, 1], maps[:, 1, 0]]).abs().amax(0)
    plausible: Tensor = (sides > _SMALLEST).all(1) & (sides < _LARGEST).all(1) & (turned < _MOST_TURN)
    return plausible


def _points(side: int) -> Tensor:
    """Centres of side x side places, as (x, y, 1): [places, 3]."""
    centres = (2 * torch.arange(side) + 1) / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3)


_ALL, _HALF, _QUARTER = _points(SIDE), _points(SIDE // 2), _points(SIDE // 4)


def _within(points: Tensor, margin: float) -> Tensor:
    """Which points are no nearer to the border than so many pixels: what lies beyond it is blurred into the rest."""
    return (points[:, :2].abs().amax(1) <= 1 - 2 * margin / SIDE).float()


def _gaussian(variance: Tensor) -> Tensor:
    """Blur by so many squared pixels [pairs]: [pairs, 64, 64], each row the weights of a pixel."""
    apart = torch.arange(SIDE)[:, None] - torch.arange(SIDE)
    weights = torch.exp(-0.5 * apart**2 / (variance - _PIXEL).clamp(min=0.04)[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _blurred(one: Tensor, other: Tensor, maps: Tensor, blur: float) -> tuple[Tensor, Tensor]:
    """Both at the same resolution, whose pixels differ in size by the share that the map gives to each side."""
    across, down = maps[:, :, :2].norm(dim=1).unbind(1)
    own = [blur**2 * torch.clamp(1 / share, min=1) for share in (down, across)]
    of_other = [variance * share**2 for variance, share in zip(own, (down, across), strict=True)]
    one, other = (
        _gaussian(down) @ picture @ _gaussian(across).transpose(1, 2)
        for picture, (down, across) in ((one, own), (other, of_other))
    )
    return one, other


def _sampled(channels: Tensor, maps: Tensor, points: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """[pairs, channels, 64, 64] at mapped points: [pairs, channels, points]; and which of these lie inside."""
    places = points @ maps.transpose(1, 2)
    values = F.grid_sample(channels, places[:, None], mode, "border", align_corners=False)[:, :, 0]
    return values, (places.abs() <= 1 + 1 / SIDE).all(2).float()


def _refined(
    one: Tensor, other: Tensor, maps: Tensor, blur: float, steps: int, points: Tensor
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton for the map, a gain and an offset; and the correlation before the last step."""
    one, other = _blurred(one, other, maps, blur)
    wanted = F.avg_pool2d(one[:, None], math.isqrt(SIDE**2 // len(points))).flatten(1)
    padded = F.pad(other[:, None], (1, 1, 1, 1), mode="replicate")
    along = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) * (SIDE / 4)
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) * (SIDE / 4)
    channels = torch.cat([other[:, None], along, down], 1)
    within = _within(points, blur)
    damping = torch.tensor([1e-4] * 6 + [1e-7] * 2).diag()
    correlation = torch.zeros(len(maps))
    for _ in range(steps):
        values, inside = _sampled(channels, maps, points, "bilinear")
        counted = inside * within
        by_map = (values[:, 1:, None] * points.T).flatten(1, 2)
        rows = torch.cat([by_map, -wanted[:, None], -torch.ones_like(wanted)[:, None]], 1) * counted[:, None]
        square = rows @ rows.transpose(1, 2)
        scale = square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-3
        step = torch.linalg.solve(square + damping * scale, -rows @ (values[:, 0] * counted)[:, :, None])
        correlation = _correlation(wanted, values[:, 0], counted)
        maps = maps + step[:, :6, 0].reshape(-1, 2, 3).clamp(-_MOST_STEP, _MOST_STEP)
    return maps, correlation


def _correlation(a: Tensor, b: Tensor, counted: Tensor) -> Tensor:
    """Of the values [pairs, points] that count."""
    count = counted.sum(1, keepdim=True).clamp(min=1)
    a, b = ((each - (each * counted).sum(1, keepdim=True) / count) * counted for each in (a, b))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).clamp(min=1e-3).sqrt()


def _agreement(one: Tensor, other: Tensor, maps: Tensor) -> Tensor:
    """detail, local, inside: [3, pairs]."""
    blurred = []
    for blur in (_FINE, _BROAD):
        here, there = _blurred(one, other, maps, blur)
        there, inside = _sampled(there[:, None], maps, _ALL, "bicubic")
        blurred.append(torch.stack([here.flatten(1), there[:, 0]]))
    counted = inside * _within(_ALL, 1.5 * _BROAD)
    a, b = (blurred[0] - blurred[1]) * counted
    products = torch.stack([a * b, a * a, b * b, counted], 1)
    product, own, others, _ = products.sum(2).unbind(1)
    detail = product / (own * others).clamp(min=1e-3).sqrt()
    gain = (own.clamp(min=1e-3) / others.clamp(min=1e-3)).sqrt()[:, None]
    product, own, others, seen = F.avg_pool2d(products.reshape(-1, 4, SIDE, SIDE), SIDE // _BLOCKS).flatten(2).unbind(1)
    noise = _NOISE * seen
    same = (product + noise) / ((own / gain + others * gain) / 2 + noise).clamp(min=1e-6)
    local = torch.where(seen > 0.5, same, torch.nan).nanquantile(0.1, dim=1).nan_to_num(-1.0)
    return torch.stack([detail, local, inside.mean(1)])
