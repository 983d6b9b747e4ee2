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
    with suppress(sqlite3.Error), closing(_open(path, "mode=rw", timeout=0)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def copy_file(path: Path, to: Path) -> None:
    """Copy the database at `path`, as it is at this moment, to a new file; also while others write to it."""
    try:
        with closing(_connect_readonly(path)) as source, closing(_open(to, "mode=rwc", BUSY_TIMEOUT_S)) as target:
            source.backup(target)
    except sqlite3.DatabaseError as error:
        raise exc.DBAPIError.instance("BACKUP", None, error, sqlite3.Error) from error


def quick_check(connection: Connection) -> str | None:
    """The first thing that SQLite finds wrong in the whole file, None where it is sound."""
    found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    return None if found == "ok" else found


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
