"""Find what is wrong in a catalog, and rebuild it from those rows that can be read and agree with each other.

What is lost in that way comes back with the next `diffsim index`: files are met and hashed again, pictures whose row
was lost are extracted again.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text

from . import sqlite
from .arrays import raw_rows
from .chunks import chunks
from .database import CatalogDamaged, Database
from .files import display_text, read_roots
from .metadata import SEALED
from .seals import content_seal, file_seal, is_sound, metadata_seal, root_seal
from .tables import (
    Base,
    Change,
    Content,
    Feature,
    File,
    Generation,
    Metadata,
    Recall,
    Root,
    SchemaVersion,
    Shard,
    Space,
)

Row = dict[str, Any]

_ROWS_AT_ONCE = 5000
_CAPACITY = 1_000_000
_LARGEST = 2**62
"""Numbers beyond this were never counted up to."""

_SEALED = Content.sha256, Content.size, Content.shard, Content.format, Content.width, Content.height, Content.taken_ns


def mend(database: Database) -> str | None:
    """Check the whole catalog and rebuild it if anything is wrong -> the first fault, None if it is sound.

    Reads every row. Raises CatalogDamaged if the folders or the feature spaces cannot be read, and for any fault of a
    catalog on a server, which cannot be rebuilt here.
    """
    if database.path is None:
        with database.reading() as connection:
            if fault := _contradiction(connection):
                raise database.beyond_repair(fault)
        return None
    fault = _first_fault(database)
    if fault:
        part = database.path.with_name(f"{database.path.name}.part")
        try:
            _remove(part)
            with closing(sqlite.open_tolerant(database.path)) as source:
                _rebuild(source, part, database)
            sqlite.replace_content(database.path, part)
        except sqlite3.Error as error:
            raise database.beyond_repair(f"{fault}; {error}") from error
        finally:
            _remove(part)
    return fault


def _first_fault(database: Database) -> str | None:
    try:
        with database.reading() as connection:
            return sqlite.first_fault(connection) or _wrong_type(connection) or _contradiction(connection)
    except CatalogDamaged as problem:
        return problem.fault


def _wrong_type(connection: Connection) -> str | None:
    kinds = {int: "integer", bool: "integer", str: "text", bytes: "blob"}
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            allowed = (kinds[column.type.python_type], "null")
            found = connection.scalar(select(func.count()).where(func.typeof(column).not_in(allowed)))
            if found:
                return f"{found} rows of {table.name} hold something else than {allowed[0]} as {column.name}"
    return None


def _contradiction(connection: Connection) -> str | None:
    """What no constraint of the database forbids."""
    for rows in raw_rows(connection, select(Content.id, Content.seal, *_SEALED)):
        for content_id, seal, *values in rows:
            if not is_sound(seal, content_seal(*values)):
                return f"the checksum of content {content_id} is wrong"
    of_files = select(File.id, File.seal, Root.path, File.path, Content.id, Content.sha256, File.display)
    of_files = of_files.join(Root, Root.id == File.root_id).join(Content, Content.id == File.content_id, isouter=True)
    for rows in raw_rows(connection, of_files):
        for file_id, seal, root, path, content_id, sha256, display in rows:
            if not is_sound(seal, file_seal(os.path.join(root, path), content_id, sha256)):
                return f"the checksum of file {file_id} is wrong"
            if display != display_text(path):
                return f"the text of the path of file {file_id} is wrong"
    of_metadata = select(Metadata.content_id, Metadata.seal, Content.sha256, *SEALED)
    for rows in raw_rows(connection, of_metadata.join(Content, Content.id == Metadata.content_id)):
        for content_id, seal, sha256, *values in rows:
            if not is_sound(seal, metadata_seal(sha256, values)):
                return f"the checksum of the metadata of content {content_id} is wrong"
    read_roots(connection)  # raises
    if connection.scalar(select(func.count()).where(Content.shard.not_in(select(Shard.number)))):
        return "contents are in a shard that is not known"
    value = connection.scalars(select(Generation.value)).one()
    newest = (func.max(table.generation) for table in (Feature, Change, Recall, Space))
    if any((connection.scalar(select(each)) or 0) > value for each in newest):
        return "rows are of a generation to come"
    return None


def _rebuild(source: sqlite3.Connection, part: Path, database: Database) -> None:
    """Write what is right in `source` to a new catalog at `part`."""
    with closing(Database.open(part, create=True, readonly=False)) as made, made.writing() as target:
        for table in reversed(Base.metadata.sorted_tables):
            if table is not SchemaVersion.__table__:
                target.execute(delete(table))
        spaces = _whole(source, Space, database)
        roots = _whole(source, Root, database)
        contents: dict[int, bytes] = {}
        shards = {0}
        _insert(target, Content, _contents(source, contents, shards))
        _insert(target, Metadata, _metadata(source, contents))
        capacities = {row["number"]: row["capacity"] for row in _rows(source, Shard) if row["capacity"] > 0}
        known = ({"number": number, "capacity": capacities.get(number, _CAPACITY)} for number in sorted(shards))
        _insert(target, Shard, known)
        by_path = {root["path"]: root for root in (_real_root(source, row, contents) for row in roots)}
        _insert(target, Root, by_path.values())
        _insert(target, File, _files(source, {row["id"]: path for path, row in by_path.items()}, contents))
        generation = _next_generation(source)
        _insert(target, Space, [row | {"generation": min(row["generation"], generation)} for row in spaces])
        _insert(target, Feature, _features(source, {row["id"] for row in spaces}, contents, generation))
        # Nothing is said of what changed before this: readers, and the FAISS files to come, take everything anew.
        _insert(target, Generation, [{"id": 1, "value": generation, "oldest": generation}])
        change = text("UPDATE sqlite_sequence SET seq = :last WHERE name = 'contents' AND seq < :last")
        target.execute(change, {"last": _last_id(source)})


def _contents(source: sqlite3.Connection, kept: dict[int, bytes], shards: set[int]) -> Iterator[Row]:
    """The sound ones. kept: receives their hashes by id. shards: receives their shards."""
    hashes: set[bytes] = set()
    for row in _rows(source, Content):
        values = [row[column.key] for column in _SEALED]
        again = row["id"] in kept or row["sha256"] in hashes
        if (
            len(row["sha256"]) == 32
            and row["shard"] >= 0
            and not again
            and is_sound(row["seal"], content_seal(*values))
        ):
            kept[row["id"]] = row["sha256"]
            hashes.add(row["sha256"])
            shards.add(row["shard"])
            yield row


def _metadata(source: sqlite3.Connection, contents: dict[int, bytes]) -> Iterator[Row]:
    for row in _rows(source, Metadata):
        sha256 = contents.get(row["content_id"])
        if sha256 and is_sound(row["seal"], metadata_seal(sha256, [row[column.key] for column in SEALED])):
            yield row


def _files(source: sqlite3.Connection, roots: dict[int, bytes], contents: dict[int, bytes]) -> Iterator[Row]:
    for row in _rows(source, File):
        if row["root_id"] in roots and _is_of_root(row, roots[row["root_id"]], contents):
            yield row | {"display": display_text(row["path"]), "missing": bool(row["missing"])}


def _features(
    source: sqlite3.Connection, spaces: set[int], contents: dict[int, bytes], generation: int
) -> Iterator[Row]:
    for row in _rows(source, Feature):
        if row["space_id"] in spaces and row["content_id"] in contents and row["generation"] <= generation:
            yield row


def _is_of_root(row: Row, root: bytes, contents: dict[int, bytes]) -> bool:
    content_id = row["content_id"]
    if content_id is not None and content_id not in contents:
        return False
    return is_sound(row["seal"], file_seal(os.path.join(root, row["path"]), content_id, contents.get(content_id)))


def _real_root(source: sqlite3.Connection, row: Row, contents: dict[int, bytes]) -> Row:
    """The row of a folder as it was. Where no single bit makes its checksum right, the path is that of its two names
    which the checksums of its files confirm, and what it leaves out is as it can be read."""
    for path, left_out, hidden in _near(source, row):
        if row["seal"] == root_seal(path, left_out, hidden):
            return _root(row, path, left_out, hidden)
    names: list[bytes] = [row["path"]]
    if display_text(names[0]) != row["display"]:
        names.append(row["display"].encode())
    files = [each for each in _rows(source, File) if each["root_id"] == row["id"]] if len(names) > 1 else []
    path = max(names, key=lambda name: sum(_is_of_root(each, name, contents) for each in files))
    return _root(row, path, row["left_out"], bool(row["include_hidden"]))


def _near(source: sqlite3.Connection, row: Row) -> Iterator[tuple[bytes, str, bool]]:
    """What a folder's row says, and all that it may have said before one bit of it was flipped."""
    path, left_out, hidden = row["path"], row["left_out"], bool(row["include_hidden"])
    yield path, left_out, hidden
    yield path, left_out, not hidden
    yield row["display"].encode(), left_out, hidden
    for one in _flipped(path):
        yield one, left_out, hidden
    raw = "SELECT CAST(left_out AS BLOB) FROM roots NOT INDEXED WHERE id = ?"
    for (stored,) in source.execute(raw, (row["id"],)):
        for one in _flipped(stored):
            with suppress(UnicodeDecodeError):
                yield path, one.decode(), hidden


def _flipped(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def _root(row: Row, path: bytes, left_out: str, hidden: bool) -> Row:
    said = {"path": path, "display": display_text(path), "left_out": left_out, "include_hidden": hidden}
    return row | said | {"seal": root_seal(path, left_out, hidden)}


def _next_generation(source: sqlite3.Connection) -> int:
    tables = ((Generation, "value"), (Feature, "generation"), (Change, "generation"), (Recall, "generation"))
    found = (row[name] for table, name in tables for row in _rows(source, table))
    return max((number for number in found if 0 <= number < _LARGEST), default=0) + 1


def _last_id(source: sqlite3.Connection) -> int:
    """The last id that was given to a content: it is never given again."""
    with suppress(sqlite3.Error):
        for (last,) in source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'contents'"):
            if isinstance(last, int) and 0 <= last < _LARGEST:
                return last
    return 0


def _whole(source: sqlite3.Connection, model: type[Base], database: Database) -> list[Row]:
    """All rows of a table that nothing else can tell anything about. Raises CatalogDamaged."""
    rows = list(_rows(source, model))
    name = model.__tablename__
    try:
        if len(rows) == source.execute(f"SELECT count(*) FROM {name} NOT INDEXED").fetchone()[0]:
            return rows
    except sqlite3.Error:
        pass
    raise database.beyond_repair(f"its table {name} cannot be read")


def _rows(source: sqlite3.Connection, model: type[Base]) -> Iterator[Row]:
    """The rows of a table whose values are of the right types, read without any index: from its beginning, and where a
    page is broken, from its end to that page. Some may come twice."""
    table = model.metadata.tables[model.__tablename__]
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{column.name} {direction}" for column in table.primary_key)
        with suppress(sqlite3.DatabaseError):
            for values in source.execute(f"SELECT {names} FROM {table.name} NOT INDEXED ORDER BY {order}"):
                row = dict(zip(table.columns.keys(), values, strict=True))
                if _is_typed(table, row):
                    yield row
            return


def _is_typed(table: Table, row: Row) -> bool:
    for column in table.columns:
        value, kind = row[column.name], column.type.python_type
        if value is None and column.nullable:
            continue
        if not isinstance(value, int if kind is bool else kind):
            return False
    return True


def _insert(target: Connection, model: type[Base], rows: Iterable[Row]) -> None:
    """Of rows that exclude each other, the first stays."""
    for some in chunks(rows, _ROWS_AT_ONCE):
        target.execute(insert(model).prefix_with("OR IGNORE"), some)


def _remove(part: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + ending).unlink(missing_ok=True)
