"""Pieces of a sequence, each short enough for one statement."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Iterable[T], size: int = 500) -> Iterator[list[T]]:
    """Pieces short enough for an IN list."""
    iterator = iter(items)
    while piece := list(islice(iterator, size)):
        yield piece
