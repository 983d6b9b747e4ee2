"""Everything that only SQLite needs: how its file is opened, its PRAGMAs and its transactions.

While a writer is at work the database is in WAL mode, so that readers never wait. The last writer to close takes it
back to a rollback journal, which leaves ONE file: a read-only connection to a database at rest in WAL mode would have
to create `-wal` and `-shm` files beside it, and a reader must write nothing.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.pool import NullPool, QueuePool

BUSY_TIMEOUT_S = 30.0


def sqlite_engine(path: Path, readonly: bool) -> Engine:
    """An engine on the SQLite file `path`; a read-only one opens the file anew for every read and keeps no lock."""

    def connect() -> sqlite3.Connection:
        return _connect_readonly(path) if readonly else _connect(path)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool if readonly else QueuePool)

    # Python's sqlite3 would begin transactions late and none at all for DDL: it is switched off (isolation_level=None).
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that starts as a reader cannot wait for it later.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def leave_wal_mode(path: Path) -> None:
    """Leave WAL mode if nobody else is connected; otherwise the next writer to close will."""
    # Of a damaged schema SQLite may say something that is not UTF-8.
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(_open(path, "mode=rw", timeout=0)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def copy_file(path: Path, to: Path) -> None:
    """Copy the database at `path`, as it is at this moment, to a new file; also while others write to it."""
    try:
        with closing(_connect_readonly(path)) as source, closing(_open(to, "mode=rwc", BUSY_TIMEOUT_S)) as target:
            source.backup(target)
    except sqlite3.DatabaseError as error:
        raise exc.DBAPIError.instance("BACKUP", None, error, sqlite3.Error) from error


def first_fault(connection: Connection) -> str | None:
    """The first thing that SQLite finds wrong in the whole file, indexes and references too; None where it is sound."""
    found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
    if found != "ok":
        return " ".join(found.split())
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    return f"a row of {dangling[0]} refers to a row of {dangling[2]} that is not there" if dangling else None


def is_damage(error: exc.DBAPIError) -> bool:
    """Whether an operational error comes from what the file holds, not from the disk, its rights or another process."""
    name = getattr(error.orig, "sqlite_errorname", None)  # None: text that is not UTF-8
    return isinstance(error.orig, sqlite3.Error) and name in (None, "SQLITE_ERROR")


def columns(connection: Connection) -> dict[str, list[str]] | None:
    """The columns of each table; None if there is anything but plain tables and indexes: a view may never end."""
    objects = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
    found: dict[str, list[str]] = {}
    for kind, name, statement in objects:
        if kind not in ("table", "index") or str(statement).upper().startswith("CREATE VIRTUAL"):
            return None
        if kind == "table" and not name.startswith("sqlite_"):
            rows = connection.exec_driver_sql("SELECT name FROM pragma_table_xinfo(?) ORDER BY name", (name,))
            found[name] = [column for (column,) in rows]
    return found


def replace_content(path: Path, by: Path) -> None:
    """Replace all that the database at `path` holds by another database, in one transaction."""
    with closing(_open(by, "mode=ro", BUSY_TIMEOUT_S)) as source, closing(_connect(path)) as target:
        source.backup(target)


def open_tolerant(path: Path) -> sqlite3.Connection:
    """For reading what is left in a damaged file: text that is not UTF-8 is read as far as it is."""
    connection = _open(path, "mode=ro", BUSY_TIMEOUT_S)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = _open(path, "mode=rwc", BUSY_TIMEOUT_S)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _connect_readonly(path: Path) -> sqlite3.Connection:
    connection = _open(path, "mode=ro", BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        # Left in WAL mode on a folder where -wal and -shm cannot be made. Without a -wal everything is in the one file,
        # and since nobody can make one, nothing changes under a reader that looks at the file alone.
        connection.close()
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size > 0:
            raise
        connection = _open(path, "immutable=1", BUSY_TIMEOUT_S)
    return connection


def _open(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path))}?{mode}"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
