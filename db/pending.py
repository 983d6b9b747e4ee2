"""What is still to be extracted: contents with a present file that lack features in some space."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Connection, exists, func, or_, select
from sqlalchemy.sql import ColumnElement

from .metadata import is_unread
from .tables import PRESENT, Content, Feature, File, Root


@dataclass(frozen=True)
class PendingContent:
    content_id: int
    sha256: bytes
    shard: int
    paths: list[bytes]  # absolute; any of them will do


def count_pending(connection: Connection, space_ids: Sequence[int] | None, skip_roots: Collection[int]) -> int:
    """space_ids: None counts those whose metadata were not read."""
    return connection.scalars(select(func.count()).where(*_is_pending(space_ids, skip_roots))).one()


def read_pending(
    connection: Connection, space_ids: Sequence[int] | None, skip_roots: Collection[int], after: int, most: int
) -> list[PendingContent]:
    """The first `most` of them with an id above `after`, by id."""
    some = (
        select(Content.id, Content.sha256, Content.shard)
        .where(Content.id > after, *_is_pending(space_ids, skip_roots))
        .order_by(Content.id)
        .limit(most)
        .subquery()
    )
    statement = (
        select(some, Root.path, File.path)
        .join(File, File.content_id == some.c.id)
        .join(Root, Root.id == File.root_id)
        .where(*_is_readable(skip_roots))
        .order_by(some.c.id, Root.path, File.path)
    )
    rows = connection.execute(statement).all()
    return [
        PendingContent(*content, [os.path.join(root, path) for *_, root, path in group])
        for content, group in groupby(rows, key=lambda row: (row[0], row[1], row[2]))
    ]


def _is_pending(space_ids: Sequence[int] | None, skip_roots: Collection[int]) -> list[ColumnElement[bool]]:
    of_spaces = (
        exists().where(Feature.space_id == space, Feature.content_id == Content.id) for space in space_ids or ()
    )
    lacks = is_unread() if space_ids is None else or_(*(~in_space for in_space in of_spaces))
    return [
        Content.failure.is_(None),
        lacks,  # before what follows, because hardly any content passes it
        exists().where(File.content_id == Content.id, *_is_readable(skip_roots)),
    ]


def _is_readable(skip_roots: Collection[int]) -> list[ColumnElement[bool]]:
    return [PRESENT, File.root_id.not_in(skip_roots)] if skip_roots else [PRESENT]
