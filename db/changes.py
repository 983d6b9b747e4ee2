"""What changed in a feature space after a generation: what a reader must know, and no more.

A row of `features` has the generation of the commit that wrote it. Every other commit that changes whether or how a
content can be seen (its files came, went or moved, it was taken out of a space, it was forgotten) puts its generation
into `changes`. So the changes after a generation are two look-ups, however large the catalog is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, delete, exists, func, insert, select, update
from sqlalchemy.sql import ColumnElement

from .arrays import raw_rows
from .chunks import chunks
from .tables import PRESENT, Change, Content, Feature, File, Generation, Recall, Space

ROWS_KEPT = 100_000
"""Changes that every FAISS file covers are kept up to this number: they still serve readers that are open now."""


@dataclass(frozen=True)
class SpaceChanges:
    """The pictures of a space that changed after a generation, by content id, and those that are gone.

    complete: these are all pictures of the space, not only those that changed, and replace what the reader holds.
    """

    ids: np.ndarray  # int64 [n], ascending
    shards: np.ndarray  # int32 [n]
    sha256: np.ndarray  # uint8 [n, 32]
    generations: np.ndarray  # int64 [n], of the commit that made each picture exist, or wrote its features anew
    visible: np.ndarray  # bool [n], at least one file is there
    gone: np.ndarray  # int64 [m], ascending: contents that may have existed in the space and do not any more
    generation: int  # the catalog's at this reading
    complete: bool

    def hashes(self) -> dict[int, bytes]:
        """Content id -> SHA-256, as feature stores want it."""
        rows = self.sha256.tobytes()
        return {row: rows[32 * place : 32 * place + 32] for place, row in enumerate(self.ids.tolist())}


def generation_of(connection: Connection) -> int:
    return connection.scalars(select(Generation.value)).one()


def read_changes(connection: Connection, space_id: int, since: int, shard: int | None) -> SpaceChanges:
    """What changed in a space, or in one shard of it, after generation `since`; see `Catalog.space_changes`."""
    # The generation first: where a transaction is no snapshot, it may be too low, never too high.
    now, oldest = connection.execute(select(Generation.value, Generation.oldest)).one()
    added = connection.scalar(select(Space.generation).where(Space.id == space_id))
    complete = added is None or not max(oldest, added) <= since <= now
    visible = exists().where(File.content_id == Feature.content_id, PRESENT)
    statement = (
        select(Feature.content_id, Content.shard, Content.sha256, Feature.generation, visible)
        .join(Content, Content.id == Feature.content_id)
        .where(Feature.space_id == space_id)
        .order_by(Feature.content_id)
    )
    if shard is not None:
        statement = statement.where(Content.shard == shard)
    gone: list[int] = []
    if not complete:
        statement = statement.where(Feature.content_id.in_(_changed(space_id, since)))
        gone = sorted(connection.scalars(_gone(space_id, since, shard)))  # by SQL, it would look at all changes
    elif shard is not None:
        statement = statement.where(_near(shard))
    parts = [_arrays(rows) for rows in raw_rows(connection, statement)] or [_arrays([])]
    ids, shards, sha256, generations, seen = (np.concatenate(column) for column in zip(*parts, strict=True))
    return SpaceChanges(ids, shards, sha256, generations, seen, np.array(gone, np.int64), now, complete)


def count_indexed(connection: Connection, space_id: int, shard: int | None) -> int:
    """How many pictures exist in a space, or in one shard of it."""
    statement = select(func.count()).select_from(Feature).where(Feature.space_id == space_id)
    if shard is not None:
        statement = statement.join(Content, Content.id == Feature.content_id)
        statement = statement.where(Content.shard == shard, _near(shard))
    return connection.scalars(statement).one()


def count_changes(connection: Connection, space_id: int, since: int, shard: int) -> int:
    """How many pictures of one shard of a space changed, or are gone, after generation `since`."""
    here = (
        select(func.count())
        .select_from(Feature)
        .join(Content, Content.id == Feature.content_id)
        .where(Feature.space_id == space_id, Feature.content_id.in_(_changed(space_id, since)), Content.shard == shard)
    )
    gone = select(func.count()).select_from(_gone(space_id, since, shard).subquery())
    return sum(connection.scalars(counted).one() for counted in (here, gone))


def last_change(connection: Connection, space_id: int) -> int:
    """The generation of the last commit that changed anything that `read_changes` reads, in any shard."""
    ends = select(func.max(Feature.generation)).where(Feature.space_id == space_id), select(func.max(Change.generation))
    return max(connection.scalar(end) or 0 for end in ends)


def record_changes(connection: Connection, contents: Select) -> None:
    """Note that these contents (a SELECT of their ids) can be seen in another way from this commit on, or not at all.

    Comes before what the SELECT reads is deleted.
    """
    connection.execute(delete(Change).where(Change.content_id.in_(contents)))
    rows = select(Content.id, Content.shard, select(Generation.value).scalar_subquery())
    rows = rows.where(Content.id.in_(contents))
    connection.execute(insert(Change).from_select(["content_id", "shard", "generation"], rows))


def record_changes_of(connection: Connection, ids: Iterable[int]) -> None:
    """The same for a number of ids."""
    for some in chunks(ids):
        record_changes(connection, select(Content.id).where(Content.id.in_(some)))


def forgettable(connection: Connection) -> int | None:
    """The generation up to which every FAISS file covers the changes, where these have become many; else None."""
    oldest = connection.scalar(select(func.min(Recall.generation)))
    if oldest is None:
        return None
    covered = connection.scalars(select(func.count()).where(Change.generation <= oldest)).one()
    return oldest if covered > ROWS_KEPT else None


def forget_changes(connection: Connection, until: int) -> None:
    connection.execute(delete(Change).where(Change.generation <= until))
    connection.execute(update(Generation).values(oldest=until))


def _near(shard: int) -> ColumnElement[bool]:
    """Between the ends of a shard, whose ids lie close together as they were given in order: an index has this range,
    and does not have the shard itself."""
    ends = func.min(Content.id), func.max(Content.id)
    first, last = (select(end).where(Content.shard == shard).scalar_subquery() for end in ends)
    return Feature.content_id.between(first, last)


def _changed(space_id: int, since: int) -> Any:
    written = select(Feature.content_id).where(Feature.space_id == space_id, Feature.generation > since)
    return written.union(select(Change.content_id).where(Change.generation > since))


def _gone(space_id: int, since: int, shard: int | None) -> Select:
    exists_here = exists().where(Feature.space_id == space_id, Feature.content_id == Change.content_id)
    of_shard = [] if shard is None else [Change.shard == shard]
    return select(Change.content_id).where(Change.generation > since, *of_shard, ~exists_here)


def _arrays(rows: list[tuple[Any, ...]]) -> tuple[np.ndarray, ...]:
    ids, shards, sha256, generations, visible = zip(*rows, strict=True) if rows else ((),) * 5
    return (
        np.fromiter(ids, np.int64, len(rows)),
        np.fromiter(shards, np.int32, len(rows)),
        np.frombuffer(b"".join(sha256), np.uint8).reshape(len(rows), 32),
        np.fromiter(generations, np.int64, len(rows)),
        np.fromiter(visible, np.bool_, len(rows)),
    )
