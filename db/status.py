"""Counts of what is in the catalog."""

import os
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select

from .files import KnownRoot, present, read_roots
from .tables import Content, Feature, File, Root, Space


@dataclass(frozen=True)
class SpaceCount:
    space_id: int
    files: int  # present files whose picture exists in the space
    contents: int  # pictures that exist in the space, those without a present file too
    visible: int  # pictures that exist in the space and have a present file


@dataclass(frozen=True)
class RootCount:
    root: KnownRoot
    files: int  # not missing
    missing: int


@dataclass(frozen=True)
class FailedFile:
    path: bytes  # absolute
    display: str
    reason: str


@dataclass(frozen=True)
class Status:
    contents: int  # those without a file too, until they are pruned
    files: int  # not missing
    missing: int
    failed: tuple[FailedFile, ...]  # unreadable, or its content is not a picture; by path
    failures: int  # how many there are: `failed` may be the first of them only
    spaces: tuple[SpaceCount, ...]
    roots: tuple[RootCount, ...]


def read_status(connection: Connection, most_failed: int | None) -> Status:
    """most_failed: how many failed files are named; None is all of them."""
    contents = connection.scalars(select(func.count()).select_from(Content)).one()
    roots = _root_counts(connection)
    failed = _failed_files(connection, most_failed)
    return Status(
        contents=contents,
        files=sum(root.files for root in roots),
        missing=sum(root.missing for root in roots),
        failed=failed,
        failures=len(failed) if most_failed is None or len(failed) < most_failed else _count_failed(connection),
        spaces=_space_counts(connection),
        roots=roots,
    )


def _root_counts(connection: Connection) -> tuple[RootCount, ...]:
    of_root = select(File.root_id, func.count()).group_by(File.root_id)
    total = dict(connection.execute(of_root).all())
    missing = dict(connection.execute(of_root.where(File.missing.is_(True))).all())
    return tuple(
        RootCount(root, total.get(root.id, 0) - missing.get(root.id, 0), missing.get(root.id, 0))
        for root in read_roots(connection)
    )


def _space_counts(connection: Connection) -> tuple[SpaceCount, ...]:
    contents = dict(connection.execute(select(Feature.space_id, func.count()).group_by(Feature.space_id)).all())
    seen = select(Feature.space_id, func.count(), func.count(Feature.content_id.distinct())).group_by(Feature.space_id)
    seen = seen.join(File, File.content_id == Feature.content_id).where(present())
    present_in = {space: (files, visible) for space, files, visible in connection.execute(seen)}
    counts = []
    for space in connection.scalars(select(Space.id).order_by(Space.id)):
        files, visible = present_in.get(space, (0, 0))
        counts.append(SpaceCount(space, files, contents.get(space, 0), visible))
    return tuple(counts)


def visible_pictures(connection: Connection) -> dict[int, int]:
    """Space id -> how many pictures with a present file exist in it, for every space, oldest first."""
    seen = Feature.content_id.in_(select(File.content_id).where(present()))
    counts = dict(
        connection.execute(select(Feature.space_id, func.count()).where(seen).group_by(Feature.space_id)).all()
    )
    return {space: counts.get(space, 0) for space in connection.scalars(select(Space.id).order_by(Space.id))}


_FAILED = File.missing.is_(False), or_(File.failure.is_not(None), Content.failure.is_not(None))


def _failed_files(connection: Connection, most: int | None) -> tuple[FailedFile, ...]:
    reason = func.coalesce(File.failure, Content.failure)
    statement = (
        select(Root.path, File.path, Root.display, File.display, reason)
        .join(Root, Root.id == File.root_id)
        .join(Content, Content.id == File.content_id, isouter=True)
        .where(*_FAILED)
        .order_by(Root.path, File.path)
        .limit(most)
    )
    return tuple(
        FailedFile(os.path.join(root, path), os.path.join(root_text, text), why)
        for root, path, root_text, text, why in connection.execute(statement)
    )


def _count_failed(connection: Connection) -> int:
    statement = select(func.count()).select_from(File).join(Content, Content.id == File.content_id, isouter=True)
    return connection.scalars(statement.where(*_FAILED)).one()
