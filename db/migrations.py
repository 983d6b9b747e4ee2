"""The schema's history: small named functions, run in order, each with its own record in one transaction.

A migration never changes once it is released, so it spells out its tables instead of importing those of `models.py`,
which show only the newest state.
"""

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
)

from .tables import SchemaVersion


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


Migration = Callable[[Connection], None]
MIGRATIONS: tuple[Migration, ...] = (m001_first_tables,)


def schema_version(connection: Connection) -> int | None:
    """The number of migrations that ran here; 0 for an empty database, None for one that is not a catalog."""
    names = inspect(connection).get_table_names()
    if SchemaVersion.__tablename__ in names:
        return connection.scalar(select(func.max(SchemaVersion.version))) or 0
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
