"""Shared by the readers of data sets: pictures of a folder in a fixed order, independent of the file system."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..pictures.images import PICTURE_SUFFIXES
from .triplets import BadBenchmark


def pictures_in(folder: Path) -> list[Path]:
    """The picture files directly in a folder, in byte order of their names."""
    return [path for path in _sorted(folder) if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder, in byte order of their names; hidden ones are left out."""
    return [path for path in _sorted(folder) if path.is_dir() and not path.name.startswith(".")]


def folders_below(folder: Path) -> list[Path]:
    """Every folder below a folder, each before its own, in byte order."""
    return [below for inner in folders_in(folder) for below in (inner, *folders_below(inner))]


def missing_note(wanted: int, absent: Sequence[object], what: str) -> tuple[str, ...]:
    """A sentence about what the protocol requires but the folder lacks; empty if it lacks nothing."""
    if not absent:
        return ()
    return (f"{len(absent)} of {wanted} {what} were left out: a picture is missing (the first: {absent[0]}).",)


def not_found(root: Path, wanted: str) -> BadBenchmark:
    return BadBenchmark(f"The folder {root} holds no {wanted}; give the folder of that data set.")


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
