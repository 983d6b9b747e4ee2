"""Shards: which part of every space's features a content belongs to, and each part's FAISS file.

A shard has one number for all spaces. New contents go to the newest one until it is full; from then on it is sealed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from .errors import CatalogError
from .tables import Content, Shard


class BadCapacity(CatalogError, ValueError):
    """A shard cannot have this size."""


@dataclass(frozen=True)
class KnownShard:
    """All shards but the one with the highest number are sealed: they take no new contents."""

    number: int
    capacity: int  # how many contents it takes


@dataclass(frozen=True)
class RecordedRecall:
    """The valid FAISS file of a shard of a space. It holds what had been written up to a generation of the catalog."""

    generation: int
    digest: str


def read_shards(connection: Connection) -> list[KnownShard]:
    """All shards, by number."""
    rows = connection.execute(select(Shard.number, Shard.capacity).order_by(Shard.number))
    return [KnownShard(*row) for row in rows]


def set_capacity(connection: Connection, capacity: int) -> None:
    """How many contents the newest shard takes, and those that come after it. Raises BadCapacity."""
    if capacity < 1:
        raise BadCapacity(f"A shard cannot hold {capacity} pictures; give 1 or more.")
    newest = select(func.max(Shard.number)).scalar_subquery()
    connection.execute(update(Shard).where(Shard.number == newest).values(capacity=capacity))


def next_places(connection: Connection, count: int) -> Iterator[int]:
    """The shards of the next `count` new contents, in turn; shards that these open are in the catalog afterwards."""
    newest = read_shards(connection)[-1]
    number, capacity = newest.number, newest.capacity
    held = connection.scalars(select(func.count()).where(Content.shard == number)).one()
    for _ in range(count):
        if held >= capacity:
            number, held = number + 1, 0
            connection.execute(insert(Shard).values(number=number, capacity=capacity))
        held += 1
        yield number
