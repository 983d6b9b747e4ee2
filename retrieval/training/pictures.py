"""The pictures to train on: a table of files with what each shows and in which style."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import RetrievalError

COLUMNS = ("file", "collection", "style", "subject")


class TrainingError(RetrievalError):
    """The training cannot start: a faulty table, an unreadable picture, or a checkpoint of another run."""


@dataclass(frozen=True)
class Pictures:
    """files: one per row. collections, styles, subjects: of each row, "" where unknown.

    Every collection is drawn from equally often, regardless of its size.
    """

    files: tuple[Path, ...]
    collections: tuple[str, ...]
    styles: tuple[str, ...]
    subjects: tuple[str, ...]

    def by_collection(self) -> dict[str, NDArray[np.int64]]:
        """The rows of each collection."""
        rows = defaultdict(list)
        for row, collection in enumerate(self.collections):
            rows[collection].append(row)
        return {collection: np.array(found) for collection, found in rows.items()}

    def motifs(self) -> dict[str, dict[tuple[str, str], int]]:
        """By collection, (subject, style) -> row: of the collections that have subjects in several styles, those
        subjects."""
        cells: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
        styles: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row, (collection, style, subject) in enumerate(
            zip(self.collections, self.styles, self.subjects, strict=True)
        ):
            if subject and style:
                cells[collection][subject, style] = row
                styles[collection, subject].add(style)
        several = {
            collection: {cell: row for cell, row in rows.items() if len(styles[collection, cell[0]]) > 1}
            for collection, rows in cells.items()
        }
        return {collection: rows for collection, rows in several.items() if rows}

    def kinds(self, least: int) -> dict[str, dict[str, NDArray[np.int64]]]:
        """By collection, subject -> its rows: of the collections whose subjects are in one style each, those with at
        least `least` pictures."""
        others = set(self.collections) - set(self.motifs())
        rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, (collection, subject) in enumerate(zip(self.collections, self.subjects, strict=True)):
            if collection in others and subject:
                rows[collection][subject].append(row)
        enough = {
            collection: {subject: np.array(found) for subject, found in subjects.items() if len(found) >= least}
            for collection, subjects in rows.items()
        }
        return {collection: subjects for collection, subjects in enough.items() if len(subjects) > 1}


def read_pictures(table: Path) -> Pictures:
    """Read a CSV with the COLUMNS; files are relative to its folder. Raises TrainingError."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise TrainingError(f"{table} must be a CSV of pictures with the columns {', '.join(COLUMNS)}.")
    files = tuple(table.parent / row["file"] for row in rows)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise TrainingError(f"{table} lists {len(missing)} files that do not exist, the first is {missing[0]}.")
    collections, styles, subjects = (tuple(row[column] for row in rows) for column in COLUMNS[1:])
    return Pictures(files, collections, styles, subjects)
