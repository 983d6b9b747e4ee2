"""Paths as people give them."""

import os
from pathlib import Path

from .errors import IndexerError


class EmptyPath(IndexerError, ValueError):
    """A path is an empty text, which pathlib would take for the current folder."""


def given_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file or folder; raises EmptyPath."""
    if not os.fspath(path):
        raise EmptyPath("A path is empty; name a file or folder, or . for the current folder.")
    return Path(path)
