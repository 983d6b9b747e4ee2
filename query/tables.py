"""Hits as pandas or Arrow tables. Both packages are optional and imported only when a table is made.

One row per hit: rank, score, likeness and by_chance (empty if they were not estimated), recall_rank, path, content_id,
offline, paths (all files of the content) and duplicates (a file of each near copy that was folded into the hit).

A path is text here: bytes of a file name that are not UTF-8 are written as \\xNN.
"""

import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import QueryError
from .query import Hit

if TYPE_CHECKING:
    import pandas
    import pyarrow


class MissingPackage(QueryError):
    """An optional package is not installed."""


def to_pandas(hits: Sequence[Hit]) -> "pandas.DataFrame":
    """Raises MissingPackage."""
    library = load_package("pandas")
    types = {
        "rank": "int64",
        "score": "float64",
        "likeness": "float64",
        "by_chance": "float64",
        "recall_rank": "int64",
        "path": "str",
        "content_id": "int64",
        "offline": "bool",
        "paths": "object",
        "duplicates": "object",
    }
    return library.DataFrame(_columns(hits)).astype(types)


def to_arrow(hits: Sequence[Hit]) -> "pyarrow.Table":
    """Raises MissingPackage."""
    library = load_package("pyarrow")
    text, number, real = library.string(), library.int64(), library.float64()
    schema = library.schema(
        {
            "rank": number,
            "score": real,
            "likeness": real,
            "by_chance": real,
            "recall_rank": number,
            "path": text,
            "content_id": number,
            "offline": library.bool_(),
            "paths": library.list_(text),
            "duplicates": library.list_(text),
        }
    )
    return library.table(_columns(hits), schema)


def _columns(hits: Sequence[Hit]) -> dict[str, list[Any]]:
    return {
        "rank": [hit.rank for hit in hits],
        "score": [hit.score for hit in hits],
        "likeness": [hit.likeness for hit in hits],
        "by_chance": [hit.by_chance for hit in hits],
        "recall_rank": [hit.recall_rank for hit in hits],
        "path": [text_of(hit.path) for hit in hits],
        "content_id": [hit.content_id for hit in hits],
        "offline": [hit.offline for hit in hits],
        "paths": [[text_of(path) for path in hit.paths] for hit in hits],
        "duplicates": [[text_of(copy.path) for copy in hit.duplicates] for hit in hits],
    }


def text_of(path: str) -> str:
    """A path as text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def load_package(name: str, extra: str = "") -> ModuleType:
    """extra: of this distribution, which brings the package. Raises MissingPackage."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        wanted = f"'diffsim-search[{extra}]'" if extra else name
        raise MissingPackage(f"A table of this kind needs {name}; install it with: pip install {wanted}.") from None
