"""Roots and files: the rows that a scan compares with the folders and rewrites."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, false, func, insert, or_, select, update
from sqlalchemy.sql import ColumnElement

from .arrays import raw_rows
from .changes import record_changes, record_changes_of
from .chunks import chunks
from .database import Database
from .seals import content_seal, file_seal, is_sound, root_seal
from .shards import next_places
from .tables import PRESENT, Content, Feature, File, Root, prefix

Row = dict[str, Any]

_ROWS_AT_ONCE = 5000


@dataclass(frozen=True)
class KnownRoot:
    id: int
    path: bytes  # absolute
    display: str
    left_out: tuple[str, ...] = ()  # patterns
    include_hidden: bool = False


class FileRow(NamedTuple):
    """A tuple, because a run reads every file's row, and a dataclass would double the time of that."""

    id: int
    root_id: int
    path: bytes  # relative to the root
    size: int
    mtime_ns: int | None
    ctime_ns: int | None
    content_id: int | None
    missing: bool
    failure: str | None


@dataclass(frozen=True)
class Holders:
    """A known content and every file row that has it."""

    content_id: int
    files: list[FileRow]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a scan found at a path: the content's hash, or why it could not be read. `row_id` is None for a new path."""

    row_id: int | None
    root_id: int
    path: bytes
    size: int
    mtime_ns: int | None
    ctime_ns: int | None
    sha256: bytes | None
    failure: str | None


@dataclass(frozen=True)
class FileCounts:
    """Files below a folder, each counted once in `missing`, `failed`, `indexed` or `waiting`."""

    missing: int = 0
    failed: int = 0  # there, but it or its content cannot be read
    indexed: int = 0  # there, and in all of the given spaces
    waiting: int = 0  # there, and not in all of them

    @property
    def rows(self) -> int:
        return self.missing + self.failed + self.indexed + self.waiting

    def __add__(self, other: "FileCounts") -> "FileCounts":
        return FileCounts(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "FileCounts") -> "FileCounts":
        return FileCounts(*(one - two for one, two in zip(astuple(self), astuple(other), strict=True)))


FILE_COLUMNS = (
    File.id,
    File.root_id,
    File.path,
    File.size,
    File.mtime_ns,
    File.ctime_ns,
    File.content_id,
    File.missing,
    File.failure,
)


def read_roots(connection: Connection) -> list[KnownRoot]:
    """All roots, by path. Raises ValueError for a damaged row: it may not say any more what is to be left out."""
    columns = Root.id, Root.path, Root.display, Root.left_out, Root.include_hidden, Root.seal
    roots = []
    for root_id, path, display, left_out, hidden, seal in connection.execute(select(*columns).order_by(Root.path)):
        if not is_sound(seal, root_seal(path, left_out, hidden)) or display != display_text(path):
            raise ValueError(f"the row of the folder {display} is damaged")
        roots.append(KnownRoot(root_id, path, display, tuple(str.splitlines(left_out)), hidden))
    return roots


def display_text(path: bytes) -> str:
    """The path as valid text: bytes that are no UTF-8 become backslash escapes."""
    return path.decode("utf-8", "backslashreplace")


def storable_text(text: str) -> str:
    """A text as every database takes it: lone surrogates and NUL become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def present() -> ColumnElement[bool]:
    """Files that are there and could be read."""
    return PRESENT


def inside(root_id: int, folder: bytes) -> ColumnElement[bool]:
    """Files of a root below `folder` (relative; b"" is the root itself)."""
    if not folder:
        return File.root_id == root_id
    # b"0" is the byte after b"/": the paths below a folder are one range, in every database and every language.
    first, last = folder + b"/", folder + b"0"
    between = prefix(File.path) >= prefix(first), prefix(File.path) <= prefix(last)
    return and_(File.root_id == root_id, *between, File.path > first, File.path < last)


def at_path(root_id: int, path: bytes) -> ColumnElement[bool]:
    """The file of a root at a path (relative)."""
    return and_(File.root_id == root_id, prefix(File.path) == prefix(path), File.path == path)


def by_path() -> tuple[ColumnElement[bytes], ...]:
    """The order of the files of one root by the bytes of their paths."""
    return prefix(File.path), File.path.expression


class FileRows:
    """The part of the catalog that a scan reads and writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def roots(self) -> list[KnownRoot]:
        """All roots, by path."""
        with self._database.reading() as connection:
            return read_roots(connection)

    def add_root(self, path: bytes) -> KnownRoot:
        with self._database.writing() as connection:
            display = display_text(path)
            row = insert(Root).values(path=path, display=display, seal=root_seal(path, "", False)).returning(Root.id)
            root_id = connection.scalars(row).one()
            return KnownRoot(root_id, path, display)

    def set_left_out(self, root_id: int, patterns: Sequence[str], include_hidden: bool) -> None:
        """Remember what scans of a root leave out."""
        with self._database.writing() as connection:
            path = connection.scalars(select(Root.path).where(Root.id == root_id)).one()
            left_out = "\n".join(patterns)
            values: Row = {"left_out": left_out, "include_hidden": include_hidden}
            values["seal"] = root_seal(path, left_out, include_hidden)
            connection.execute(update(Root).where(Root.id == root_id).values(values))

    def absorb(self, inner: KnownRoot, outer: KnownRoot) -> None:
        """Make the files of `inner`, a folder below `outer`, files of `outer`; nothing else about them changes."""
        prefix = os.path.relpath(inner.path, outer.path) + b"/"
        change = (
            update(File)
            .where(File.id == bindparam("row"))
            .values(root_id=outer.id, path=bindparam("new_path"), display=bindparam("new_display"))
        )
        with self._database.writing() as connection:
            rows = connection.execute(select(File.id, File.path).where(File.root_id == inner.id)).all()
            longer = [(row, prefix + path) for row, path in rows]
            if longer:
                connection.execute(
                    change,
                    [{"row": row, "new_path": path, "new_display": display_text(path)} for row, path in longer],
                )
            connection.execute(delete(Root).where(Root.id == inner.id))

    def has_files(self, root_id: int, folder: bytes, *, missing_too: bool = False) -> bool:
        """Whether any file is known below a folder that is not missing, or any at all."""
        there = [] if missing_too else [File.missing.is_(False)]
        with self._database.reading() as connection:
            return bool(connection.scalar(select(exists().where(inside(root_id, folder), *there))))

    def below(self, root_id: int, folder: bytes) -> Iterator[FileRow]:
        """The rows of all files below a folder of a root, missing ones too, in byte order of their paths.

        They are read in pieces, each as it is at that moment.
        """
        statement = select(*FILE_COLUMNS).where(inside(root_id, folder)).order_by(*by_path()).limit(_ROWS_AT_ONCE)
        last: list[ColumnElement[bool]] = []
        while True:
            with self._database.reading() as connection:
                rows = [row for some in raw_rows(connection, statement.where(*last)) for row in some]
            for *values, missing, failure in rows:
                yield FileRow._make((*values, bool(missing), failure))
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = [prefix(File.path) >= prefix(rows[-1][2]), File.path > rows[-1][2]]

    def at(self, root_id: int, path: bytes) -> FileRow | None:
        with self._database.reading() as connection:
            statement = select(*FILE_COLUMNS).where(at_path(root_id, path))
            row = connection.execute(statement).one_or_none()
            return FileRow(*row) if row else None

    def holders(self, sha256s: Collection[bytes]) -> dict[bytes, Holders]:
        """The contents known by these hashes, each with its files by id."""
        found: dict[bytes, Holders] = {}
        with self._database.reading() as connection:
            for some in chunks(sha256s):
                known = connection.execute(select(Content.sha256, Content.id).where(Content.sha256.in_(some)))
                for sha256, content_id in known:
                    found[sha256] = Holders(content_id, [])
            by_id = {holders.content_id: holders for holders in found.values()}
            for ids in chunks(by_id):
                statement = select(*FILE_COLUMNS).where(File.content_id.in_(ids)).order_by(File.id)
                for row in connection.execute(statement):
                    by_id[row.content_id].files.append(FileRow(*row))
        return found

    def known_sizes(self, sizes: Collection[int]) -> set[int]:
        """Those of these sizes, in bytes, that some known content has."""
        wanted = frozenset(sizes)
        with self._database.reading() as connection:
            return {size for size in connection.scalars(select(Content.size).distinct()) if size in wanted}

    def write(self, findings: Sequence[Finding], forget: Sequence[int]) -> None:
        """Write what was found, in one commit; unknown contents get their ids in the order of `findings`.

        `forget` are rows of files that moved: their old place.
        """
        with self._database.writing() as connection:
            contents, added = _content_ids(connection, findings)
            record_changes_of(connection, _seen_otherwise(connection, findings, forget, contents) - added)
            for ids in chunks(forget):
                connection.execute(delete(File).where(File.id.in_(ids)))
            roots = dict(connection.execute(select(Root.id, Root.path)).all())
            new, read, unread = [], [], []
            for finding in findings:
                values = {
                    "size": finding.size,
                    "mtime_ns": finding.mtime_ns,
                    "ctime_ns": finding.ctime_ns,
                    "missing": False,
                    "failure": None if finding.failure is None else storable_text(finding.failure),
                }
                content_id = contents[finding.sha256] if finding.sha256 else None
                absolute = os.path.join(roots[finding.root_id], finding.path)
                content: Row = {"content_id": content_id, "seal": file_seal(absolute, content_id, finding.sha256)}
                if finding.row_id is None:
                    place = {"root_id": finding.root_id, "path": finding.path, "display": display_text(finding.path)}
                    new.append(values | place | content)
                elif content_id is None:
                    unread.append(values | {"row": finding.row_id})  # it keeps the content that it last had
                else:
                    read.append(values | {"row": finding.row_id} | content)
            change = update(File).where(File.id == bindparam("row"))
            stat: Row = {name: bindparam(name) for name in ("size", "mtime_ns", "ctime_ns", "missing", "failure")}
            if new:
                connection.execute(insert(File), new)
            if read:
                sealed: Row = {name: bindparam(name) for name in ("content_id", "seal")}
                connection.execute(change.values(**stat, **sealed), read)
            if unread:
                connection.execute(change.values(**stat), unread)

    def set_missing(self, gone: Iterable[int], back: Iterable[int]) -> None:
        """Mark these rows as missing and those as there again, in one commit."""
        with self._database.writing() as connection:
            for ids, missing in ((gone, True), (back, False)):
                for some in chunks(ids):
                    contents = select(File.content_id).where(File.id.in_(some), File.content_id.is_not(None))
                    record_changes(connection, contents)
                    connection.execute(update(File).where(File.id.in_(some)).values(missing=missing))

    def counts(self, root_id: int, folder: bytes, space_ids: Sequence[int], *, or_file: bool = False) -> FileCounts:
        """The numbers of files below a folder. or_file: the path may be that of a file, which counts too."""
        place = inside(root_id, folder)
        if or_file:
            place = or_(place, at_path(root_id, folder))
        failed = func.coalesce(File.failure, Content.failure).is_not(None)
        features = [
            exists().where(Feature.space_id == space, Feature.content_id == File.content_id) for space in space_ids
        ]
        indexed = and_(*features) if features else false()
        kind = case((File.missing.is_(True), "missing"), (failed, "failed"), (indexed, "indexed"), else_="waiting")
        of_files = select(kind.label("kind")).select_from(File).where(place)
        kinds = of_files.join(Content, Content.id == File.content_id, isouter=True).subquery()
        with self._database.reading() as connection:
            counts = connection.execute(select(kinds.c.kind, func.count()).group_by(kinds.c.kind))
            return FileCounts(**dict(counts.all()))

    def failures(self, root_id: int, folder: bytes) -> list[tuple[bytes, str]]:
        """The files below a folder that cannot be read, or whose content cannot: path and reason, by path."""
        statement = (
            select(File.path, func.coalesce(File.failure, Content.failure))
            .join(Content, Content.id == File.content_id, isouter=True)
            .where(inside(root_id, folder), File.missing.is_(False))
            .where(or_(File.failure.is_not(None), Content.failure.is_not(None)))
            .order_by(*by_path())
        )
        with self._database.reading() as connection:
            return [(path, reason) for path, reason in connection.execute(statement)]


def _content_ids(connection: Connection, findings: Sequence[Finding]) -> tuple[dict[bytes, int], set[int]]:
    """The content id of every hash that was found, and those ids that were not known before."""
    wanted = {finding.sha256: finding.size for finding in findings if finding.sha256}
    ids: dict[bytes, int] = {}
    for some in chunks(wanted):
        known = connection.execute(select(Content.sha256, Content.id).where(Content.sha256.in_(some)))
        ids.update((sha256, content_id) for sha256, content_id in known)
    new = [(sha256, size) for sha256, size in wanted.items() if sha256 not in ids]
    if not new:
        return ids, set()
    in_order = insert(Content).returning(Content.sha256, Content.id, sort_by_parameter_order=True)
    shards = next_places(connection, len(new))
    rows = [
        {
            "sha256": sha256,
            "size": size,
            "shard": shard,
            "seal": content_seal(sha256, size, shard, None, None, None),
        }
        for (sha256, size), shard in zip(new, shards, strict=True)
    ]
    added = dict(connection.execute(in_order, rows).all())
    return ids | added, set(added.values())


def _seen_otherwise(
    connection: Connection, findings: Sequence[Finding], forget: Sequence[int], contents: dict[bytes, int]
) -> set[int]:
    """The contents that will have a present file more, or less, when these findings are written."""
    rows = [*forget, *(finding.row_id for finding in findings if finding.row_id is not None)]
    before: dict[int, int] = {}  # row id -> the content that can be seen there
    for some in chunks(rows):
        held = connection.execute(select(File.id, File.content_id).where(File.id.in_(some), present()))
        before.update((row, content_id) for row, content_id in held if content_id is not None)
    changed = {before[row] for row in forget if row in before}
    for finding in findings:
        old = before.get(finding.row_id) if finding.row_id is not None else None
        new = contents[finding.sha256] if finding.sha256 and not finding.failure else None
        if old != new:
            changed |= {content_id for content_id in (old, new) if content_id is not None}
    return changed
