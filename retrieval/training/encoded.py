"""The encoder's features of all pictures, computed once: latents in several versions, and grids of painted pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..networks.efficientnet_lite import CHANNELS, WEIGHTS, EfficientNetLite2
from ..networks.feature_maps import DEEPEST, FACTOR, LATENT_CHANNELS, Statistics, joined
from ..pictures.images import DECODE_REVISION, UnreadableImage, decode
from .pictures import Pictures, TrainingError
from .recipe import Recipe
from .treatments import Look, coloured_paper

Pixels = NDArray[np.uint8]

_ARRAYS = ("latents", "deep", "painted", "kinds")

_SAMPLE = 2000
"""About as many pictures determine the statistics."""

_AT_ONCE = 4
"""Pictures to encode together: more do not fit the caches of a CPU, and are slower there."""


@dataclass(frozen=True)
class Encoded:
    """latents: float16 [pictures, versions, channels, side, side]. deep: float16 [pictures, versions, channels], the
    means of the deepest map. statistics: of the pictures as they are.

    painted: float16 [grids, subjects x looks, channels, side, side], the looks of one subject in turn.
    kinds: int64 [grids, subjects], the collection (a number) of each painted picture: two collections differ in style
    under any look.
    """

    latents: NDArray[np.float16]
    deep: NDArray[np.float16]
    painted: NDArray[np.float16]
    kinds: NDArray[np.int64]
    statistics: Statistics


def encode_pictures(pictures: Pictures, recipe: Recipe, folder: Path, device: str) -> Encoded:
    """Read the features from the folder, or compute them where it has none of these pictures and this recipe. Raises
    TrainingError for a picture that cannot be decoded, BadNetwork."""
    mark, key = folder / "made-of.txt", _key(pictures, recipe)
    if not (mark.exists() and mark.read_text(encoding="utf-8") == key):
        mark.unlink(missing_ok=True)
        encoder = EfficientNetLite2.load(torch.float32, device)
        _encode_all(pictures, recipe, folder, encoder).save(folder)
        _paint_all(pictures, recipe, folder, encoder)
        mark.write_text(key, encoding="utf-8")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Encoded(**arrays, statistics=Statistics.load(folder, "cpu"))


def _key(pictures: Pictures, recipe: Recipe) -> str:
    listed = [[str(path), collection] for path, collection in zip(pictures.files, pictures.collections, strict=True)]
    numbers = [recipe.picture_size, recipe.versions, recipe.painted_grids, recipe.painted, recipe.seed]
    return hashlib.sha256(json.dumps([WEIGHTS, DECODE_REVISION, numbers, listed]).encode()).hexdigest()


def _encode_all(pictures: Pictures, recipe: Recipe, folder: Path, encoder: EfficientNetLite2) -> Statistics:
    count, versions = len(pictures.files), recipe.versions
    latents = _made(folder, "latents", (count, versions, *_shape(recipe)))
    deep = _made(folder, "deep", (count, versions, CHANNELS[DEEPEST]))
    every = max(1, count // _SAMPLE)
    places = []
    pixels = (version for row in range(count) for version in _versions(pictures, row, recipe))
    for number, (joined_maps, deepest) in enumerate(_encoded(pixels, encoder)):
        row, version = divmod(number, versions)
        latents[row, version], deep[row, version] = joined_maps, deepest.mean(0)
        if version == 0 and row % every == 0:
            places.append(deepest)
    sample = torch.from_numpy(np.array(latents[::every, 0], np.float32))
    return Statistics.fit(sample, torch.from_numpy(np.concatenate(places)))


def _paint_all(pictures: Pictures, recipe: Recipe, folder: Path, encoder: EfficientNetLite2) -> None:
    (subjects, looks), count = recipe.painted, recipe.painted_grids
    painted = _made(folder, "painted", (count, subjects * looks, *_shape(recipe)))
    kinds = _made(folder, "kinds", (count, subjects), np.int64)
    pixels = (picture for number in range(count) for picture in _painted(pictures, recipe, number, kinds[number]))
    for place, (joined_maps, _) in enumerate(_encoded(pixels, encoder)):
        painted[divmod(place, subjects * looks)] = joined_maps


def _made(folder: Path, name: str, shape: tuple[int, ...], dtype: type = np.float16) -> NDArray[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    side = recipe.picture_size // FACTOR
    return LATENT_CHANNELS, side, side


def _encoded(pixels: Iterable[Pixels], encoder: EfficientNetLite2) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each picture, in order: its latents, not standardised, and the deepest map [tokens, channels], float32."""
    waiting = iter(pixels)
    device = next(encoder.parameters()).device
    while some := list(islice(waiting, _AT_ONCE)):
        with torch.inference_mode():
            maps = encoder(torch.from_numpy(np.stack(some)).to(device))
            found = joined(maps), maps[DEEPEST].float().flatten(2).transpose(1, 2)
        yield from zip(*(each.cpu().numpy() for each in found), strict=True)


def _versions(pictures: Pictures, row: int, recipe: Recipe) -> list[Pixels]:
    """A picture as it is, and augmented."""
    picture = decoded(pictures.files[row], recipe.picture_size)
    rng = np.random.default_rng([recipe.seed, 1, row])
    return [picture, *(augment(picture, rng) for _ in range(recipe.versions - 1))]


def _painted(pictures: Pictures, recipe: Recipe, number: int, kinds: NDArray[np.int64]) -> Iterator[Pixels]:
    """A grid: random pictures of one or two collections, each under all of several looks, and each time in another
    crop. Their collections are written into `kinds`."""
    rng = np.random.default_rng([recipe.seed, 2, number])
    by_collection = list(pictures.by_collection().values())
    subjects, looks = recipe.painted
    several = len(by_collection) > 1 and subjects > 3 and rng.random() < 0.5  # a style needs two pictures
    chosen = rng.choice(len(by_collection), size=2 if several else 1, replace=False)
    kinds[:] = [chosen[place * len(chosen) // subjects] for place in range(subjects)]
    rows = [int(rng.choice(by_collection[kind])) for kind in kinds]
    drawn = [Look.draw(rng) for _ in range(looks)]
    for row in rows:
        picture = decoded(pictures.files[row], recipe.picture_size)
        for look in drawn:
            yield look.paint(crop(picture, rng, 0.7), rng)


def decoded(file: Path, size: int) -> Pixels:
    """The picture as the training sees it, a square of this side. Raises TrainingError."""
    try:
        return decode(file.read_bytes(), size).pixels
    except (UnreadableImage, OSError) as error:
        raise TrainingError(f"{file} cannot be decoded ({error}); remove it from the table and start again") from error


def augment(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """A random crop, sometimes mirrored; a white background is sometimes coloured."""
    pixels = crop(picture, rng, 0.7)
    pixels = np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels
    edge = len(picture) - 1
    if picture[::edge, ::edge].min() > 250 and rng.random() < 0.3:  # all four corners are white
        pixels = (pixels * coloured_paper(rng)).astype(np.uint8)
    return pixels


def crop(picture: Pixels, rng: np.random.Generator, least: float) -> Pixels:
    """A square of at least `least` of the side (all of it at least a quarter of the time), at the picture's size."""
    full = len(picture)
    side = min(full, int(rng.integers(int(least * full), int(1.1 * full) + 1)))
    top, left = rng.integers(0, full - side + 1, 2)
    square = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(square.resize((full, full), Image.Resampling.BILINEAR))
