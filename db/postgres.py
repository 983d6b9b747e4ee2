"""Everything that only PostgreSQL needs: addresses, connections, the lock of the one writer, and its errors.

Readers see one state (REPEATABLE READ) and can write nothing. Writers use one connection, READ COMMITTED: each of their
transactions first waits for the row of the generation, and then sees all that others committed before it.
"""

import os
import socket
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url

from .errors import CatalogError

LOCK_PATIENCE_S = 10.0
"""A server may need a moment to notice that the process that held the lock is gone."""

_DRIVERS = ("postgres", "postgresql", "postgresql+psycopg")
_SECRETS = ("password", "passfile", "sslpassword")
_ALLOWED = {
    *("host", "hostaddr", "port", "options", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout"),
    *("channel_binding", "gssencmode", "krbsrvname", "target_session_attrs"),
}
_FORM = "postgresql://USER@HOST/DATABASE"

# A server that is switched off says nothing: without these a client waits for hours.
_CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_SESSION = (
    "SET lock_timeout = '30s'",
    "SET tcp_keepalives_idle = 30",  # and here the server notices that a client was switched off
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)

# Advisory locks are those of a database, which may hold a catalog in each of its schemas.
_KEY = "{key}, hashtext(current_schema()) & 2147483647"
_WRITER_KEY, _SCHEMA_KEY = 1_684_628_070, 1_684_628_071
_TRY_LOCK = f"SELECT pg_try_advisory_lock({_KEY.format(key=_WRITER_KEY)})"
_LOCK_SCHEMA = f"SELECT pg_advisory_xact_lock({_KEY.format(key=_SCHEMA_KEY)})"
_HOLDER = f"""
    SELECT application_name, to_char(backend_start, 'YYYY-MM-DD HH24:MI:SS')
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = {_WRITER_KEY}
    AND objid = (hashtext(current_schema()) & 2147483647)::oid
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class BadAddress(CatalogError, ValueError):
    """A text is no address of a PostgreSQL database, or holds a password."""


class CatalogBusy(CatalogError):
    """Another process is the writer. writer: who, in words."""

    def __init__(self, name: str, writer: str) -> None:
        super().__init__(f"The catalog {name} is being written by {writer}; try again when it is done.")
        self.writer = writer


def server_address(text: str) -> str:
    """The address of a database as it is kept: a URL with its driver. Raises BadAddress, which does not show the text:
    there may be a password in it."""
    try:
        url = make_url(text)
        text.encode()
    except (exc.ArgumentError, ValueError):
        url = URL.create("nothing")
    if url.drivername not in _DRIVERS:
        raise BadAddress(
            f"The catalog's address is none of a PostgreSQL database; write it as {_FORM}, or leave --catalog out, and "
            "the catalog is a file in the index folder."
        )
    if url.password is not None or any(secret in url.query for secret in _SECRETS):
        raise BadAddress(
            "The catalog's address holds a password, which others could read in the list of processes and in "
            "index.toml; leave it out, and put it into ~/.pgpass or $PGPASSWORD, where PostgreSQL's programs look for "
            "it."
        )
    if not url.database:
        raise BadAddress(f"The catalog's address names no database; write it as {_FORM}.")
    if unknown := sorted(set(url.query) - _ALLOWED):
        raise BadAddress(
            f"The catalog's address has the parameter {unknown[0]!r}; leave it out, or choose among "
            f"{', '.join(sorted(_ALLOWED))}."
        )
    return url.set(drivername=_DRIVERS[-1]).render_as_string(hide_password=False)


def engines(address: str, readonly: bool, alone: bool) -> tuple[Engine, Engine]:
    """For reading and for writing; where `readonly`, both are for reading.

    alone: the writing one connects only as the one writer of this catalog, in any process on any machine, and raises
    CatalogBusy if there is another; it is the writer for as long as its connection lives.
    Raises BadAddress, and ImportError without the driver.
    """
    url = make_url(server_address(address))
    name = f"process {os.getpid()} on {socket.gethostname()}"
    arguments = {
        "client_encoding": "utf8",
        "application_name": name.encode("ascii", "replace").decode()[:63],
        **{key: value for key, value in _CONNECTION.items() if key not in url.query},
    }
    reader = create_engine(url, connect_args=arguments, isolation_level="REPEATABLE READ", pool_pre_ping=True)

    @event.listens_for(reader, "connect")
    def _read(connection: Any, _record: object) -> None:
        _set_up(connection)
        connection.read_only = True

    if readonly:
        return reader, reader
    writer = create_engine(
        url, connect_args=arguments, isolation_level="READ COMMITTED", pool_size=1, max_overflow=0, pool_timeout=60
    )

    @event.listens_for(writer, "connect")
    def _write(connection: Any, _record: object) -> None:
        _set_up(connection)
        if alone:
            _be_the_writer(connection, url.render_as_string())

    return reader, writer


def _set_up(connection: Any) -> None:
    for statement in _SESSION:
        connection.execute(statement)
    connection.commit()


def _be_the_writer(connection: Any, name: str) -> None:
    until = time.monotonic() + LOCK_PATIENCE_S
    while not connection.execute(_TRY_LOCK).fetchone()[0]:
        if time.monotonic() > until:
            holder = connection.execute(_HOLDER).fetchone()
            connection.close()
            raise CatalogBusy(name, f"{holder[0]} since {holder[1]}" if holder else "another process")
        connection.commit()
        time.sleep(0.1)
    connection.commit()


def lock_schema(connection: Connection) -> None:
    """Wait until no other process changes the tables, and keep them off until this transaction ends."""
    connection.exec_driver_sql(_LOCK_SCHEMA)


def unfit(connection: Connection) -> str | None:
    """Why no catalog can be in this database, as the end of a sentence; None where it can."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        return f"its encoding is {encoding}; make one with: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
    if connection.exec_driver_sql("SELECT current_schema()").scalar_one() is None:
        return "the schema that its address names is not there; make it with: CREATE SCHEMA ..."
    return None


def columns(connection: Connection) -> dict[str, list[str]]:
    """The columns of each table of the schema."""
    of_tables = inspect(connection).get_multi_columns()
    return {name: sorted(column["name"] for column in found) for (_, name), found in of_tables.items()}


def is_trouble(error: exc.DBAPIError) -> bool:
    """Whether an error comes from the server, the network, the disk or rights, not from what the database holds."""
    if isinstance(error, exc.OperationalError | exc.InterfaceError):
        return True
    state = getattr(error.orig, "sqlstate", None)
    # No right to do this, a schema that is gone, a database for reading only; without a state, the driver itself.
    return state in (None, "42501", "3F000", "25006")


def is_damage(error: exc.DBAPIError) -> bool:
    """Whether an error that is no trouble comes from what the database holds; otherwise the statement was wrong."""
    gone = getattr(error.orig, "sqlstate", None) in ("42P01", "42703")  # a table, a column
    return gone or not isinstance(error, exc.ProgrammingError | exc.NotSupportedError)
