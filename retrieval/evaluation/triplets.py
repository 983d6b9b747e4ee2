"""Triplets: is A more similar to B than to C? The questions of a benchmark, and the accuracy with its interval."""

import csv
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import RetrievalError
from .bootstrap import Figure, mean_figure

SEED = 2334
"""The released scripts' seed: the default for draws, subsets and intervals."""

DECIMALS = 6
"""The precision of a score, as in `diffsim.retrieval.shard.rerank.rank`: equal to this many decimals is a tie."""


class BadBenchmark(RetrievalError):
    """A folder or list does not hold the requested benchmark."""


@dataclass(frozen=True)
class Triplet:
    """`closer` should score higher with `reference` than `farther` does.

    unit: what is independent (a style, a subject, a reference picture): triplets of one unit share pictures.
    """

    reference: Path
    closer: Path
    farther: Path
    unit: str


@dataclass(frozen=True)
class Question:
    """A benchmark's triplets. unit: what its units are, in the plural. notes: what a reader of the figures must know,
    including everything that was left out, as sentences."""

    triplets: list[Triplet]
    unit: str
    notes: tuple[str, ...] = ()


def verdicts(closer: np.ndarray, farther: np.ndarray) -> np.ndarray:
    """1 where the closer picture scores higher, -1 where it scores lower, 0 for a tie, int64 [n], from float [n]."""
    gap = np.round(closer.astype(np.float64), DECIMALS) - np.round(farther.astype(np.float64), DECIMALS)
    return np.asarray(np.sign(gap), np.int64)


def accuracy(found: np.ndarray, units: Sequence[str], seed: int = SEED) -> Figure:
    """Share of right verdicts, 0..1, with the interval over each triplet's unit.

    A tie counts as wrong, as in the released code: it keeps figures comparable with the paper's and never flatters a
    descriptor that cannot distinguish two pictures. To score ties as coin tosses, add half of them.
    """
    return mean_figure((found > 0).astype(np.float64), units, seed)


def gain(found: np.ndarray, first: np.ndarray, units: Sequence[str], seed: int = SEED) -> Figure:
    """How much more accurate `found` is than `first`, -1..1, on the same triplets.

    Use the interval of this difference to compare two spaces; those of the two accuracies share the luck of the draw
    and are wider.
    """
    return mean_figure((found > 0).astype(np.float64) - (first > 0), units, seed)


def limited(triplets: list[Triplet], limit: int | None, seed: int) -> list[Triplet]:
    """A seeded sample of at most `limit`, in the order of the list."""
    if limit is None or limit >= len(triplets):
        return triplets
    return [triplets[row] for row in sorted(random.Random(seed).sample(range(len(triplets)), limit))]


def read_triplets(path: Path) -> Question:
    """Read a CSV with the columns reference, closer, farther and optionally unit; paths are relative to its folder.

    Without units every reference picture is its own unit. Raises BadBenchmark.
    """
    rows = read_table(path, ("reference", "closer", "farther"))
    triplets = [
        Triplet(
            path.parent / row["reference"],
            path.parent / row["closer"],
            path.parent / row["farther"],
            row.get("unit") or row["reference"],
        )
        for row in rows
    ]
    return Question(triplets, "units")


def write_triplets(path: Path, triplets: Sequence[Triplet]) -> None:
    """The inverse of `read_triplets`."""
    folder = path.parent.resolve()
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["reference", "closer", "farther", "unit"])
        for triplet in triplets:
            pictures = (triplet.reference, triplet.closer, triplet.farther)
            relative = [os.path.relpath(picture.parent.resolve() / picture.name, folder) for picture in pictures]
            table.writerow([*relative, triplet.unit])


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV with a header that has at least these columns, and values in them. Raises BadBenchmark."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise BadBenchmark(f"The list {path} cannot be read ({reason}); give a CSV file.") from problem
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise BadBenchmark(
            f"The list {path} has no rows or no column {missing[0]}; its first line must name {', '.join(columns)}."
        )
    for number, row in enumerate(rows, 2):
        if not all(row[name] for name in columns):
            raise BadBenchmark(f"Line {number} of {path} lacks one of {', '.join(columns)}; fill it or drop the line.")
    return rows
