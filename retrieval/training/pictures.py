"""The folders' pictures as one array, with what their paths tell: shares, and subjects in several styles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..errors import RetrievalError
from ..pictures.images import PICTURE_SUFFIXES, UnreadableImage, decode


class TrainingError(RetrievalError):
    """The training cannot start: no pictures, an unreadable one, or a checkpoint of another run."""


@dataclass(frozen=True)
class Pictures:
    """pixels: uint8 [pictures, size, size, 3].

    shares: rows by folder and subfolder; every folder is drawn from equally often, and within it every subfolder,
    regardless of their sizes. motifs: (subject, style) -> row, see `find_motifs`.
    """

    pixels: NDArray[np.uint8]
    shares: tuple[tuple[NDArray[np.int64], ...], ...]
    motifs: dict[tuple[str, str], int]

    def kind(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The rows of a random subfolder."""
        return self._kind_of(rng.integers(len(self.shares)), rng)

    def two_kinds(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of one subfolder from each of two random folders. There must be at least two folders."""
        first, second = rng.choice(len(self.shares), size=2, replace=False)
        return self._kind_of(first, rng), self._kind_of(second, rng)

    def _kind_of(self, folder: np.int64, rng: np.random.Generator) -> NDArray[np.int64]:
        share = self.shares[folder]
        return share[rng.integers(len(share))]

    def one_of(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        """One of these pictures, at random."""
        picture: NDArray[np.uint8] = self.pixels[rows[rng.integers(len(rows))]]
        return picture


def list_pictures(folders: Sequence[Path], without: Collection[Path] = ()) -> list[list[Path]]:
    """The pictures below each folder, in the order of their names, except those left out (resolved paths)."""
    listed = [
        [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURE_SUFFIXES and p.resolve() not in without]
        for folder in folders
    ]
    for folder, files in zip(folders, listed, strict=True):
        if not files:
            raise TrainingError(f"{folder} holds no pictures to train on; name folders with pictures")
    return listed


def read_pictures(folders: Sequence[Path], size: int, cache: Path, without: Collection[Path] = ()) -> Pictures:
    """Decode the folders' pictures into the file `cache`, squashed to `size` x `size`; decoded again only for another
    list of files. Raises TrainingError."""
    listed = list_pictures(folders, without)
    files = [file for some in listed for file in some]
    row_of = {file: row for row, file in enumerate(files)}
    shares = []
    motifs: dict[tuple[str, str], int] = {}
    for some in listed:
        by_parent = defaultdict(list)
        for file in some:
            by_parent[file.parent].append(row_of[file])
        shares.append(tuple(np.array(rows) for rows in by_parent.values()))
        motifs |= {key: row_of[file] for key, file in find_motifs(some).items()}
    return Pictures(_cached(files, size, cache), tuple(shares), motifs)


def find_motifs(files: Sequence[Path]) -> dict[tuple[str, str], Path]:
    """(subject, style) -> file, for names that are in several subfolders: `noto/cat.webp` and `twemoji/cat.webp`
    show one subject in two styles."""
    by_name = defaultdict(list)
    for file in files:
        by_name[file.stem].append(file)
    return {
        (name, str(file.parent)): file
        for name, same in by_name.items()
        if len({file.parent for file in same}) > 1
        for file in same
    }


def _cached(files: Sequence[Path], size: int, cache: Path) -> NDArray[np.uint8]:
    """[files, size, size, 3], memory-mapped."""
    names = "".join(f"{file}\n" for file in files)
    listing = cache.with_suffix(".txt")
    if not (cache.exists() and listing.exists() and listing.read_text() == names):
        listing.unlink(missing_ok=True)
        shape = (len(files), size, size, 3)
        pictures = np.lib.format.open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
        for row, file in zip(pictures, files, strict=True):
            try:
                row[:] = decode(file.read_bytes(), size).pixels
            except UnreadableImage as error:
                raise TrainingError(f"{file} cannot be decoded ({error}); remove it and start again") from error
        pictures.flush()
        listing.write_text(names)
    return cast("NDArray[np.uint8]", np.load(cache, mmap_mode="r"))
