"""Counts of what is in the catalog."""

import os
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select

from .files import KnownRoot, present
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
    failed: tuple[FailedFile, ...]  # unreadable, or its content is no picture; by path
    spaces: tuple[SpaceCount, ...]
    roots: tuple[RootCount, ...]


def read_status(connection: Connection) -> Status:
    contents = connection.scalars(select(func.count()).select_from(Content)).one()
    roots = _root_counts(connection)
    return Status(
        contents=contents,
        files=sum(root.files for root in roots),
        missing=sum(root.missing for root in roots),
        failed=_failed_files(connection),
        spaces=_space_counts(connection),
        roots=roots,
    )


def _root_counts(connection: Connection) -> tuple[RootCount, ...]:
    counts = {
        (root_id, missing): n
        for root_id, missing, n in connection.execute(
            select(File.root_id, File.missing, func.count()).group_by(File.root_id, File.missing)
        )
    }
    roots = connection.execute(select(Root.id, Root.path, Root.display).order_by(Root.path))
    return tuple(
        RootCount(KnownRoot(*root), counts.get((root.id, False), 0), counts.get((root.id, True), 0)) for root in roots
    )


def _space_counts(connection: Connection) -> tuple[SpaceCount, ...]:
    contents = select(Feature.space_id, func.count()).group_by(Feature.space_id)
    files = contents.join(File, File.content_id == Feature.content_id).where(present())
    contents_in = dict(connection.execute(contents).all())
    files_in = dict(connection.execute(files).all())
    visible_in = visible_pictures(connection)
    return tuple(
        SpaceCount(space, files_in.get(space, 0), contents_in.get(space, 0), visible)
        for space, visible in visible_in.items()
    )


def visible_pictures(connection: Connection) -> dict[int, int]:
    """Space id -> how many pictures with a present file exist in it, for every space, oldest first."""
    seen = Feature.content_id.in_(select(File.content_id).where(present()))
    counts = dict(
        connection.execute(select(Feature.space_id, func.count()).where(seen).group_by(Feature.space_id)).all()
    )
    return {space: counts.get(space, 0) for space in connection.scalars(select(Space.id).order_by(Space.id))}


def _failed_files(connection: Connection) -> tuple[FailedFile, ...]:
    reason = func.coalesce(File.failure, Content.failure)
    statement = (
        select(Root.path, File.path, Root.display, File.display, reason)
        .join(Root, Root.id == File.root_id)
        .join(Content, Content.id == File.content_id, isouter=True)
        .where(File.missing.is_(False), or_(File.failure.is_not(None), Content.failure.is_not(None)))
        .order_by(Root.path, File.path)
    )
    return tuple(
        FailedFile(os.path.join(root, path), os.path.join(root_text, text), why)
        for root, path, root_text, text, why in connection.execute(statement)
    )
