"""The files that the examples of a query are: left out of its hits, while other files of the same bytes stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffsim.db.catalog import Catalog

from .locate import Locator
from .query import Example
from .text import printable


@dataclass(frozen=True, eq=False)
class OwnFiles:
    """contents: ids that are no hits, int64. files: absolute paths that are not shown among a hit's files. notes: where
    copies of an example are, as sentences."""

    contents: np.ndarray
    files: frozenset[str]
    notes: list[str]


NOTHING_LEFT_OUT = OwnFiles(np.empty(0, np.int64), frozenset(), [])


def own_files(catalog: Catalog, examples: Sequence[Example], ids: Sequence[int | None]) -> OwnFiles:
    """ids: of the examples' contents, None for one that is not in the index."""
    contents: list[int] = []
    files: set[str] = set()
    notes: list[str] = []
    locator = Locator(catalog)
    for example, content_id in zip(examples, ids, strict=True):
        if content_id is None:
            continue
        if example.file is None:  # an id, which means all files of the content
            contents.append(content_id)
            continue
        named = str(Path(example.file).resolve()) if example.file else ""
        known, _ = locator.locate(content_id) or ((), False)
        others = [path for path in known if path != named]
        if named in known:
            files.add(named)
        if not others:
            contents.append(content_id)
            continue
        more = f" and {len(others) - 1} more files" if len(others) > 1 else ""
        what = printable(Path(example.file).name) if example.file else "The picture"
        notes.append(f"{what} is byte for byte in the index: {printable(others[0])}{more}.")
    return OwnFiles(np.unique(np.array(contents, np.int64)), frozenset(files), notes)
