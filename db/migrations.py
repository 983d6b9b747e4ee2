"""The schema's history: small named functions, run in order, each with its own record in one transaction.

A migration never changes once it is released, so it spells out its tables instead of importing those of `tables.py`,
which show only the newest state.
"""

import os
from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    func,
    insert,
    inspect,
    select,
    text,
)

from .seals import content_seal, file_seal, root_seal
from .tables import SchemaVersion

_ROWS_AT_ONCE = 5000


def m001_first_tables(connection: Connection) -> None:
    """Roots, contents, files, spaces, features, the generation counter and the valid FAISS files."""
    tables = MetaData()
    row_id = BigInteger().with_variant(Integer(), "sqlite")
    Table(
        "schema_version",
        tables,
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("name", Text, nullable=False),
    )
    Table(
        "roots",
        tables,
        Column("id", row_id, primary_key=True),
        Column("path", LargeBinary, nullable=False, unique=True),
        Column("display", Text, nullable=False),
    )
    Table(
        "contents",
        tables,
        Column("id", row_id, primary_key=True),
        Column("sha256", LargeBinary, nullable=False, unique=True),
        Column("size", BigInteger, nullable=False),
        Column("format", Text),
        Column("width", Integer),
        Column("height", Integer),
        Column("failure", Text),
        sqlite_autoincrement=True,
    )
    Table(
        "files",
        tables,
        Column("id", row_id, primary_key=True),
        Column("root_id", ForeignKey("roots.id"), nullable=False),
        Column("path", LargeBinary, nullable=False),
        Column("display", Text, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("mtime_ns", BigInteger),
        Column("ctime_ns", BigInteger),
        Column("content_id", ForeignKey("contents.id"), index=True),
        Column("missing", Boolean, nullable=False),
        Column("failure", Text),
        UniqueConstraint("root_id", "path"),
    )
    Table(
        "spaces",
        tables,
        Column("id", row_id, primary_key=True),
        Column("fingerprint", Text, nullable=False, unique=True),
        Column("name", Text, nullable=False),
        Column("network", Text, nullable=False),
        Column("adapter", Text, nullable=False),
        Column("record", Text, nullable=False),
        Column("created", Text, nullable=False),
    )
    Table(
        "features",
        tables,
        Column("space_id", ForeignKey("spaces.id"), primary_key=True, autoincrement=False),
        Column("content_id", ForeignKey("contents.id"), primary_key=True, autoincrement=False, index=True),
        Column("generation", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    generation = Table(
        "generation",
        tables,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("value", BigInteger, nullable=False),
    )
    Table(
        "recall",
        tables,
        Column("space_id", ForeignKey("spaces.id"), primary_key=True, autoincrement=False),
        Column("generation", BigInteger, nullable=False),
        Column("digest", Text, nullable=False),
    )
    tables.create_all(connection, checkfirst=False)
    connection.execute(insert(generation).values(id=1, value=0))


def m002_shards_and_changes(connection: Connection) -> None:
    """Contents in shards, a FAISS file for each shard of a space, and what changed in which commit.

    All contents are of shard 0. The FAISS files had another place, so none of them is valid any more.
    """
    row_id = BigInteger().with_variant(Integer(), "sqlite")
    for change in (
        "ALTER TABLE contents ADD COLUMN shard INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE spaces ADD COLUMN generation BIGINT DEFAULT 0 NOT NULL",
        "ALTER TABLE generation ADD COLUMN oldest BIGINT DEFAULT 0 NOT NULL",
        "UPDATE generation SET oldest = value",  # nothing is recorded of changes before this
        "DROP TABLE recall",
    ):
        connection.execute(text(change))
    old = MetaData()
    contents = Table("contents", old, Column("shard", Integer))
    files = Table(
        "files", old, Column("missing", Boolean), Column("failure", Text), Column("content_id", row_id, nullable=True)
    )
    features = Table("features", old, Column("space_id", row_id), Column("generation", BigInteger))
    present = and_(files.c.missing.is_(False), files.c.failure.is_(None), files.c.content_id.is_not(None))
    for index in (
        Index("ix_contents_shard", contents.c.shard),
        Index("ix_files_present", files.c.content_id, sqlite_where=present, postgresql_where=present),
        Index("ix_features_generation", features.c.space_id, features.c.generation),
    ):
        index.create(connection)
    tables = MetaData()
    Table("spaces", tables, Column("id", row_id, primary_key=True))
    shards = Table(
        "shards",
        tables,
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("capacity", BigInteger, nullable=False),
    )
    changes = Table(
        "changes",
        tables,
        Column("content_id", row_id, primary_key=True, autoincrement=False),
        Column("shard", Integer, nullable=False),
        Column("generation", BigInteger, nullable=False, index=True),
    )
    recall = Table(
        "recall",
        tables,
        Column("space_id", ForeignKey("spaces.id"), primary_key=True, autoincrement=False),
        Column("shard", Integer, primary_key=True, autoincrement=False),
        Column("generation", BigInteger, nullable=False),
        Column("digest", Text, nullable=False),
    )
    tables.create_all(connection, [shards, changes, recall])
    connection.execute(insert(shards).values(number=0, capacity=1_000_000))


def m003_what_roots_leave_out(connection: Connection) -> None:
    """Patterns of what a scan leaves out of a root, and whether it takes in hidden files."""
    connection.execute(text("ALTER TABLE roots ADD COLUMN left_out TEXT DEFAULT '' NOT NULL"))
    connection.execute(text("ALTER TABLE roots ADD COLUMN include_hidden BOOLEAN DEFAULT false NOT NULL"))


def m004_seals(connection: Connection) -> None:
    """A checksum in every row of files and contents."""
    for table in ("contents", "files"):
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN seal BIGINT"))
    of_contents = "SELECT id, sha256, size, shard, format, width, height FROM contents"
    for rows in connection.execute(text(of_contents)).partitions(_ROWS_AT_ONCE):
        _set_seals(connection, "contents", [(row, content_seal(*values)) for row, *values in rows])
    of_files = (
        "SELECT files.id, roots.path, files.path, contents.id, contents.sha256 FROM files "
        "JOIN roots ON roots.id = files.root_id LEFT JOIN contents ON contents.id = files.content_id"
    )
    for rows in connection.execute(text(of_files)).partitions(_ROWS_AT_ONCE):
        seals = [(row, file_seal(os.path.join(root, path), *content)) for row, root, path, *content in rows]
        _set_seals(connection, "files", seals)


def m005_own_dates(connection: Connection) -> None:
    """The dates of pictures themselves; those that were decoded before have none until they are decoded again."""
    connection.execute(text("ALTER TABLE contents ADD COLUMN taken_ns BIGINT"))


def m006_seals_of_roots(connection: Connection) -> None:
    """A checksum in every row of roots."""
    connection.execute(text("ALTER TABLE roots ADD COLUMN seal BIGINT"))
    rows = connection.execute(text("SELECT id, path, left_out, include_hidden FROM roots")).all()
    seals = [(row, root_seal(path, left_out, bool(hidden))) for row, path, left_out, hidden in rows]
    if seals:
        _set_seals(connection, "roots", seals)


def m007_on_a_server(connection: Connection) -> None:
    """Which index a catalog on a server belongs to; and on PostgreSQL, whose indexes take 2,704 bytes at most, paths of
    any length."""
    tables = MetaData()
    Table("index_identity", tables, Column("identity", Text, primary_key=True))
    tables.create_all(connection, checkfirst=False)
    if connection.dialect.name == "postgresql":
        rest = "(CASE WHEN length(path) > 2000 THEN sha256(path) ELSE ''::bytea END)"
        for change in (
            "ALTER TABLE files DROP CONSTRAINT files_root_id_path_key",
            "ALTER TABLE roots DROP CONSTRAINT roots_path_key",
            f"CREATE UNIQUE INDEX uq_files_path ON files (root_id, substr(path, 1, 2000), {rest})",
            f"CREATE UNIQUE INDEX uq_roots_path ON roots (substr(path, 1, 2000), {rest})",
        ):
            connection.exec_driver_sql(change)


def m008_metadata(connection: Connection) -> None:
    """What files say of their pictures; of those that were decoded before, the next run reads it."""
    tables = MetaData()
    row_id = BigInteger().with_variant(Integer(), "sqlite")
    Table("contents", tables, Column("id", row_id, primary_key=True))
    metadata = Table(
        "metadata",
        tables,
        Column("content_id", ForeignKey("contents.id"), primary_key=True, autoincrement=False),
        Column("camera", Text, nullable=False),
        Column("lens", Text, nullable=False),
        Column("rating", Integer),
        Column("x_cm", BigInteger),
        Column("y_cm", BigInteger),
        Column("z_cm", BigInteger),
        Column("keywords", Text, nullable=False),
        Column("caption", Text, nullable=False),
        Column("camera_key", Text, nullable=False),
        Column("keywords_key", Text, nullable=False),
        Column("seal", BigInteger, nullable=False),
    )
    metadata.create(connection)


def _set_seals(connection: Connection, table: str, seals: Sequence[tuple[int, int]]) -> None:
    change = text(f"UPDATE {table} SET seal = :seal WHERE id = :row")
    connection.execute(change, [{"row": row, "seal": seal} for row, seal in seals])


Migration = Callable[[Connection], None]
MIGRATIONS: tuple[Migration, ...] = (
    m001_first_tables,
    m002_shards_and_changes,
    m003_what_roots_leave_out,
    m004_seals,
    m005_own_dates,
    m006_seals_of_roots,
    m007_on_a_server,
    m008_metadata,
)


def schema_version(connection: Connection) -> int | None:
    """The number of migrations that ran here; 0 for an empty database, None for one that is not a catalog."""
    names = inspect(connection).get_table_names()
    if SchemaVersion.__tablename__ in names:
        version = connection.scalar(select(func.max(SchemaVersion.version))) or 0
        if not isinstance(version, int):
            raise ValueError(f"the version of its schema is {version!r}")
        return version
    return None if names else 0


def migrate(connection: Connection, migrations: tuple[Migration, ...]) -> bool:
    """Run the next migration with its record, in the transaction that `connection` is in; False when none is left."""
    done = schema_version(connection)
    if done is None or done >= len(migrations):
        return False
    migration = migrations[done]
    migration(connection)
    connection.execute(insert(SchemaVersion).values(version=done + 1, name=migration.__name__))
    return True
