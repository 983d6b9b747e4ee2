"""Explains the score of two pictures: which parts of A can be rebuilt from B, and where their attention went.

The score compares two attention maps of A, its own and the one rebuilt from B, as two long vectors x and y. Here they
are compared token by token, each token a vector over heads x channels:

    x_i = Attn(Q_A,K_A,V_A)_i       y_i = Attn(Q_A,K_B,V_B)_i
    agreement_i = cos(x_i, y_i)                                             in [-1, 1]
    AAS(A<-B)   = sum_i x_i . y_i / (|x| |y|)
                = sum_i agreement_i (|x_i| / |x|) (|y_i| / |y|)

So the score is a combination of the agreements weighted by the tokens' norms, NOT their mean. The weights sum to 1 only
if both maps spread their norm over the tokens equally, and to less otherwise: a picture can score below all its
agreements. An agreement measures how well the direction of a token is rebuilt; the norms set how much that counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import RetrievalError
from .score import AttentionFeatures, attend, score

Grid = tuple[int, int]
"""Rows and columns of a picture's tokens."""

_APART = 0.25
"""Regions are at least this share of the grid's longer side apart."""


class NoGrid(RetrievalError, ValueError):
    """The tokens of a layer do not lie on the grid that is assumed."""


@dataclass(frozen=True)
class Region:
    """A token of A that B rebuilds well, and where its attention went.

    row, column: on the grid of A's agreement. agreement: there, in [-1, 1].
    attention: [rows, columns] of B, float32: the share of the attention that each token of B got, mean over the heads;
        sums to 1, or to less if prefix tokens took a part. peak: row and column of the largest share.
    """

    row: int
    column: int
    agreement: float
    attention: Tensor
    peak: tuple[int, int]


@dataclass(frozen=True)
class Agreement:
    """score: of the two pictures, in [-1, 1], symmetric.

    a_from_b, b_from_a: [rows, columns], float32: each token's agreement of A with A rebuilt from B, and of B with B
        rebuilt from A, in [-1, 1].
    regions: places of high agreement in A, best first, apart from each other in both pictures; empty if the keys are
        not places in B (DiffSim-C).
    """

    score: float
    a_from_b: Tensor
    b_from_a: Tensor
    regions: tuple[Region, ...]


def agreement(
    a: Sequence[AttentionFeatures],
    b: Sequence[AttentionFeatures],
    weights: Sequence[float],
    *,
    grids: Sequence[Grid] | None = None,
    prefix: int = 0,
    regions: int = 4,
    within: Tensor | None = None,
) -> Agreement:
    """Compare two pictures token by token.

    a, b, weights: per tap, the features of one picture each, and the tap's share in the score.
    grids: rows and columns of each tap's tokens; None: they are square. prefix: leading tokens that are not places (the
        CLS and register tokens of a ViT): they take part in attention, but are not drawn.
    regions: the maximum number. The keys of DiffSim-C are not places in B; if they happen to be as many as the
        queries, which cannot be detected here, give 0. within: bool [rows, columns] on the finest grid, the places of A
        among which they are chosen; None: all.
    Several taps: the weighted mean of their maps, brought to the finest grid (bilinear). Raises NoGrid.
    """
    given: Sequence[Grid | None] = grids or [None] * len(a)
    shapes = [_grid(tap, prefix, grid) for tap, grid in zip(a, given, strict=True)]
    finest = max(shapes, key=lambda grid: grid[0] * grid[1])
    shares = [weight / sum(weights) for weight in weights]
    a_from_b, b_from_a = torch.zeros(finest), torch.zeros(finest)
    for tap_a, tap_b, shape, share in zip(a, b, shapes, shares, strict=True):
        a_from_b += share * _resized(token_agreement(tap_a, tap_b)[prefix:].view(shape), finest)
        b_from_a += share * _resized(token_agreement(tap_b, tap_a)[prefix:].view(shape), finest)
    places = all(tap.key.shape[2] == tap.query.shape[2] for tap in b)
    chosen_from = a_from_b if within is None else a_from_b.masked_fill(~within, -math.inf)
    found = _regions(a, b, shapes, shares, prefix, chosen_from, regions if places else 0)
    return Agreement(float(score(a, b, weights)), a_from_b, b_from_a, tuple(found))


def attention_map(
    a: Sequence[AttentionFeatures],
    b: Sequence[AttentionFeatures],
    weights: Sequence[float],
    place: tuple[int, int],
    *,
    grids: Sequence[Grid] | None = None,
    prefix: int = 0,
) -> Tensor:
    """Where in B the attention of one place of A falls: [rows, columns] of B, float32, mean over the heads.

    place: row and column on the grid of the agreement, which is also this map's grid. It sums to 1, or to less if
    prefix tokens took a part. Raises NoGrid, also if the keys are not places in B (DiffSim-C).
    """
    given: Sequence[Grid | None] = grids or [None] * len(a)
    shapes = [_grid(tap, prefix, grid) for tap, grid in zip(a, given, strict=True)]
    if any(tap.key.shape[2] != tap.query.shape[2] for tap in b):
        raise NoGrid("The keys of this layer are not places in the picture, so its attention cannot be shown there.")
    rows, columns = max(shapes, key=lambda grid: grid[0] * grid[1])
    if not (0 <= place[0] < rows and 0 <= place[1] < columns):
        raise NoGrid(f"The place {place[0]},{place[1]} is not on the grid of {rows} x {columns} tokens.")
    attention = torch.zeros(rows, columns)
    for tap_a, tap_b, shape, weight in zip(a, b, shapes, weights, strict=True):
        token = prefix + place[0] * shape[0] // rows * shape[1] + place[1] * shape[1] // columns
        went = attention_weights(tap_a, tap_b, token)[prefix:].view(shape)
        share = weight / sum(weights) * (went.numel() / attention.numel())
        attention += share * _resized(went, (rows, columns))
    return attention


def square_places(tokens: int) -> tuple[Grid, int]:
    """(grid, prefix) of a layer for a square picture: the tokens beyond the largest square are a ViT's class and
    register tokens, which come first and are not places."""
    side = math.isqrt(tokens)
    return (side, side), tokens - side * side


def token_agreement(a: AttentionFeatures, b: AttentionFeatures) -> Tensor:
    """cos(x_i, y_i) of one tap, [tokens of A], float32 on the CPU. A token whose map is all zero agrees with nothing
    (0)."""
    own, rebuilt = _tokens(a.map), _tokens(attend(a.query, b.key, b.value))
    return F.cosine_similarity(own, rebuilt, dim=1).clamp(-1, 1).cpu()


def attention_weights(a: AttentionFeatures, b: AttentionFeatures, token: int) -> Tensor:
    """softmax(Q_A K_B^T / sqrt(head_dim)) of one token of A, mean over the heads: [tokens of B], sums to 1, CPU."""
    query, key = a.query[0, :, token], b.key[0]
    logits = torch.einsum("hd,htd->ht", query, key) / query.shape[1] ** 0.5
    shares: Tensor = logits.softmax(dim=1).mean(0).cpu()
    return shares


def _tokens(attention_map: Tensor) -> Tensor:
    """A map [1, heads, tokens, head_dim] as [tokens, heads x head_dim]."""
    return attention_map[0].transpose(0, 1).flatten(1)


def _grid(tap: AttentionFeatures, prefix: int, grid: Grid | None) -> Grid:
    places = tap.query.shape[2] - prefix
    if grid is None:
        side = round(max(places, 0) ** 0.5)
        grid = (side, side)
    if places < 1 or grid[0] * grid[1] != places:
        raise NoGrid(
            f"{tap.query.shape[2]} tokens, {prefix} of them before the grid, do not make {grid[0]} x {grid[1]} places; "
            "give the grid of this layer."
        )
    return grid


def _resized(values: Tensor, grid: Grid) -> Tensor:
    if values.shape == grid:
        return values
    return F.interpolate(values[None, None], size=grid, mode="bilinear", align_corners=False)[0, 0]


def _regions(
    a: Sequence[AttentionFeatures],
    b: Sequence[AttentionFeatures],
    shapes: Sequence[Grid],
    shares: Sequence[float],
    prefix: int,
    values: Tensor,
    count: int,
) -> list[Region]:
    """Places of A by falling agreement, each well apart from those before it, in A and in its attention's peak in B
    (non-maximum suppression): otherwise all would lie in one plain background."""
    rows, columns = values.shape
    apart = _APART * max(rows, columns)
    chosen: list[Region] = []
    for place in values.flatten().argsort(descending=True, stable=True).tolist():
        if len(chosen) == count:
            break
        row, column = divmod(place, columns)
        if values[row, column] == -math.inf:
            break
        if any(math.dist((row, column), (region.row, region.column)) <= apart for region in chosen):
            continue
        attention = attention_map(a, b, shares, (row, column), grids=shapes, prefix=prefix)
        peak = divmod(int(attention.argmax()), columns)
        if all(math.dist(peak, region.peak) > apart for region in chosen):
            chosen.append(Region(row, column, float(values[row, column]), attention, peak))
    return chosen
