"""Long work tells how far it is."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

OnWork = Callable[[str, int, int | None], None]
"""Called with what is being done, in words, how much of it is done, and how much it is in all, None while that is not
known."""

T = TypeVar("T")

_EVERY = 100


def silently(doing: str, done: int, total: int | None) -> None:
    """For those who do not want to know."""


def counted(items: Iterable[T], doing: str, total: int | None, on_work: OnWork) -> Iterator[T]:
    """The same items; every hundredth is told of, and the last."""
    done = 0
    on_work(doing, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        if done % _EVERY == 0:
            on_work(doing, done, total)
    on_work(doing, done, done)
