"""The input of one step: a function of the recipe's seed and the step alone, so that a run can be resumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .encoded import Encoded
from .pictures import Pictures
from .recipe import Recipe


@dataclass(frozen=True)
class Grid:
    """latents: float32 [n, channels, side, side], standardised. subjects, styles: int64 [n], of each picture.

    deep: float32 [n, channels], the encoder's deepest features, where the score is to follow them; else None.
    """

    latents: Tensor
    subjects: Tensor
    styles: Tensor
    deep: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """denoised: float32 [n, channels, side, side]. grids: subjects and styles to distinguish, within each grid."""

    denoised: Tensor
    grids: tuple[Grid, ...]


class Batches:
    """Draws batches from encoded pictures."""

    def __init__(self, pictures: Pictures, encoded: Encoded, recipe: Recipe) -> None:
        self.pictures, self.encoded, self.recipe = pictures, encoded, recipe
        self._all = list(pictures.by_collection().values())
        self._motifs = list(pictures.motifs().values())
        self._kinds = list(pictures.kinds(recipe.kinds[1]).values())

    def draw(self, step: int) -> Batch:
        """The pictures of step number `step`."""
        rng = np.random.default_rng([self.recipe.seed, 0, step])
        rows = [int(rng.choice(self._all[rng.integers(len(self._all))])) for _ in range(self.recipe.denoised)]
        grids = [self._painted(rng)]
        grids += [self._motif_grid(rng)] if self._motifs else []
        grids += [self._kind_grid(rng)] if self._kinds else []
        return Batch(self._latents(rows, rng)[0], tuple(grids))

    def _motif_grid(self, rng: np.random.Generator) -> Grid:
        """Subjects in their own styles. Not every subject is in every style."""
        subjects, styles = self.recipe.motifs
        cells = self._motifs[rng.integers(len(self._motifs))]
        chosen = _choose(sorted({style for _, style in cells}), styles, rng)
        names = _choose(sorted({subject for subject, _ in cells}), len(cells), rng)
        found = [[cells[name, style] for style in chosen if (name, style) in cells] for name in names]
        fullest = sorted(found, key=len, reverse=True)[:subjects]
        rows = [row for of_subject in fullest for row in of_subject]
        return self._grid(rows, rng, keep=False)

    def _kind_grid(self, rng: np.random.Generator) -> Grid:
        """Several pictures of each of some subjects, from one or two collections."""
        subjects, each = self.recipe.kinds
        some = rng.choice(len(self._kinds), size=min(2, len(self._kinds)), replace=False)
        rows = []
        for place in some:
            kinds = self._kinds[place]
            for subject in _choose(sorted(kinds), subjects // len(some), rng):
                rows += [int(row) for row in rng.choice(kinds[subject], size=each, replace=False)]
        return self._grid(rows, rng, keep=True)

    def _grid(self, rows: list[int], rng: np.random.Generator, *, keep: bool) -> Grid:
        latents, deep = self._latents(rows, rng)
        subjects = _numbered([f"{self.pictures.collections[row]}\n{self.pictures.subjects[row]}" for row in rows])
        styles = _numbered([self.pictures.styles[row] for row in rows])
        return Grid(latents, subjects, styles, deep if keep else None)

    def _painted(self, rng: np.random.Generator) -> Grid:
        number = rng.integers(len(self.encoded.painted))
        latents = self._standardised(self.encoded.painted[number])
        subjects, looks = self.recipe.painted
        places = torch.arange(subjects * looks)
        kinds = torch.from_numpy(np.array(self.encoded.kinds[number])).repeat_interleave(looks)
        return Grid(_mirrored(latents, rng), places // looks, kinds * looks + places % looks)

    def _latents(self, rows: list[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Of a random version of each, sometimes mirrored (all of them or none), with the deep features."""
        versions = rng.integers(self.recipe.versions, size=len(rows))
        latents = np.stack([self.encoded.latents[row, version] for row, version in zip(rows, versions, strict=True)])
        deep = np.stack([self.encoded.deep[row, version] for row, version in zip(rows, versions, strict=True)])
        return _mirrored(self._standardised(latents), rng), torch.from_numpy(deep.astype(np.float32))

    def _standardised(self, latents: NDArray[np.float16]) -> Tensor:
        statistics = self.encoded.statistics
        mean, deviation = (part[:, None, None] for part in (statistics.latent_mean, statistics.latent_deviation))
        return (torch.from_numpy(latents.astype(np.float32)) - mean) / deviation


def _choose(among: list[str], count: int, rng: np.random.Generator) -> list[str]:
    return [str(one) for one in rng.choice(among, size=min(count, len(among)), replace=False)]


def _numbered(names: list[str]) -> Tensor:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def _mirrored(latents: Tensor, rng: np.random.Generator) -> Tensor:
    return latents.flip(3) if rng.random() < 0.5 else latents
