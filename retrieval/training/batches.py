"""The input of one step: a function of the recipe's seed and the step alone, so that a run can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .pictures import Pictures
from .recipe import Recipe
from .treatments import Look, coloured_paper

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """pixels: float32 [n,3,H,W] in [-1,1]: several subjects, each in all of several styles.

    subjects, styles: int64 [n], of each picture.
    """

    pixels: Tensor
    subjects: Tensor
    styles: Tensor


@dataclass(frozen=True)
class Batch:
    """denoised: float32 [n,3,H,W]. grids: subjects and styles to distinguish, within each grid."""

    denoised: Tensor
    grids: tuple[Grid, ...]


def draw_batch(pictures: Pictures, recipe: Recipe, step: int) -> Batch:
    """The pictures of step number `step`."""
    rng = np.random.default_rng([recipe.seed, step])
    denoised = [
        augment(pictures.one_of(pictures.kind(rng), rng), recipe.picture_size, rng) for _ in range(recipe.denoised)
    ]
    grids = [draw_painted(pictures, recipe, rng)]
    if pictures.motifs:
        grids.append(draw_motifs(pictures, recipe, rng))
    return Batch(to_network(denoised), tuple(grids))


def draw_motifs(pictures: Pictures, recipe: Recipe, rng: np.random.Generator) -> Grid:
    """Subjects in their own styles; sometimes a whole style on coloured paper, or under a random look."""
    subjects, styles = recipe.motifs
    all_styles = sorted({style for _, style in pictures.motifs})
    chosen = list(rng.choice(all_styles, size=min(styles, len(all_styles)), replace=False))
    names = sorted({subject for subject, _ in pictures.motifs})
    complete = [name for name in names if all((name, style) in pictures.motifs for style in chosen)]
    papers = [coloured_paper(rng) if rng.random() < 0.3 else None for _ in chosen]
    looks = [Look.draw(rng) if rng.random() < 0.25 else Look() for _ in chosen]
    rows = []
    for name in rng.choice(complete, size=min(subjects, len(complete)), replace=False) if complete else ():
        for style, paper, look in zip(chosen, papers, looks, strict=True):
            pixels = crop(pictures.pixels[pictures.motifs[str(name), str(style)]], recipe.picture_size, rng, 0.8)
            if paper is not None:
                pixels = (pixels * paper).astype(np.uint8)
            rows.append(look.paint(pixels, rng))
    places = torch.arange(len(rows))
    return Grid(to_network(rows), places // len(chosen), places % len(chosen))


def draw_painted(pictures: Pictures, recipe: Recipe, rng: np.random.Generator) -> Grid:
    """Random pictures, each under all of several looks, and each time in another crop. Half of the time (if there are
    two folders) half of them are of another kind: a photograph and a drawing under one look still differ in style."""
    subjects, styles = recipe.painted
    mixed = len(pictures.shares) > 1 and rng.random() < 0.5
    kinds = pictures.two_kinds(rng) if mixed else (pictures.kind(rng),)
    of_a_kind = max(2, math.ceil(subjects / len(kinds)))  # a style needs two pictures
    looks = [Look.draw(rng) for _ in range(styles)]
    rows = []
    for kind in kinds:
        for _ in range(of_a_kind):
            picture = pictures.one_of(kind, rng)
            seen = mirrored(crop(picture, len(picture), rng, 0.6), rng)
            rows += [look.paint(crop(seen, recipe.picture_size, rng, 0.8), rng) for look in looks]
    places = torch.arange(len(rows))
    kind_of = places // (of_a_kind * styles)
    return Grid(to_network(rows), places // styles, kind_of * styles + places % styles)


def augment(picture: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """A random crop, sometimes mirrored; a white background is sometimes coloured."""
    pixels = mirrored(crop(picture, size, rng, 0.7), rng)
    full = len(picture)
    if picture[:: full - 1, :: full - 1].min() > 250 and rng.random() < 0.5:  # all four corners are white
        pixels = (pixels * coloured_paper(rng)).astype(np.uint8)
    return pixels


def crop(picture: Pixels, size: int, rng: np.random.Generator, least: float) -> Pixels:
    """A square of at least `least` of the side (all of it at least a quarter of the time), resized to `size`."""
    full = len(picture)
    side = min(full, int(rng.integers(int(least * full), int(1.1 * full) + 1)))
    top, left = rng.integers(0, full - side + 1, 2)
    square = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def mirrored(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirrored half the time."""
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def to_network(pixels: Sequence[Pixels]) -> Tensor:
    """uint8 [H,W,3] each -> float32 [n,3,H,W] in [-1,1]."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
