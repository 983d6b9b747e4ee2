"""The catalog's tables. Features, FAISS ids and token records belong to contents, never to files."""

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, Text, UniqueConstraint, and_, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

# SQLite numbers rows by itself only when the type is spelt INTEGER; elsewhere an id is 64 bits wide.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    pass


class prefix(FunctionElement[bytes]):
    """The beginning of a path, where the database's index holds no more than that; else the path. In a condition or an
    order it comes before the path itself: it lets the database use the index."""

    type = LargeBinary()
    inherit_cache = True


class rest_hash(FunctionElement[bytes]):
    """On PostgreSQL: tells apart paths that begin with the same bytes."""

    type = LargeBinary()
    inherit_cache = True


PREFIX_BYTES = 2000


@compiles(prefix)
def _path(element: prefix, compiler: Any, **how: Any) -> str:
    return str(compiler.process(element.clauses, **how))


@compiles(prefix, "postgresql")
def _prefix(element: prefix, compiler: Any, **how: Any) -> str:
    return f"substr({compiler.process(element.clauses, **how)}, 1, {PREFIX_BYTES})"


@compiles(rest_hash, "postgresql")
def _rest_hash(element: rest_hash, compiler: Any, **how: Any) -> str:
    path = compiler.process(element.clauses, **how)
    return f"(CASE WHEN length({path}) > {PREFIX_BYTES} THEN sha256({path}) ELSE ''::bytea END)"


class SchemaVersion(Base):
    """One row per migration that ran; the highest version is the schema's."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)


class Root(Base):
    """A folder that was asked for. `path` is absolute, symlinks resolved, as `os.fsencode` gives it.

    `left_out`: patterns of what a scan leaves out, one a line; `include_hidden`: whether it takes in hidden files.
    """

    __tablename__ = "roots"
    __table_args__ = (UniqueConstraint("path").ddl_if("sqlite"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    path: Mapped[bytes] = mapped_column(LargeBinary)
    display: Mapped[str] = mapped_column(Text)
    left_out: Mapped[str] = mapped_column(Text, server_default=text("''"))
    include_hidden: Mapped[bool] = mapped_column(server_default=text("false"))
    seal: Mapped[int | None] = mapped_column(BigInteger)  # seals.root_seal


class Content(Base):
    """One sequence of bytes, however many files hold it. AUTOINCREMENT: an id is never given twice."""

    __tablename__ = "contents"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str | None] = mapped_column(Text)
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    failure: Mapped[str | None] = mapped_column(Text)  # why it is no picture; null while nothing went wrong
    # The shard of its features, the same in every space. Indexed: shards are counted, and read one at a time.
    shard: Mapped[int] = mapped_column(Integer, server_default=text("0"), index=True)
    seal: Mapped[int | None] = mapped_column(BigInteger)  # seals.content_seal
    # Its own date, as in times.py; null where it has none, or where it was decoded before dates were read.
    taken_ns: Mapped[int | None] = mapped_column(BigInteger)


class Metadata(Base):
    """What the file of a content says of it; see metadata.py. Texts are empty and numbers null where it says nothing.

    `keywords`: one a line. `x_cm`, `y_cm`, `z_cm`: its place on a sphere of the earth's size. The keys are what filters
    look for, folded; each keyword between two line breaks.
    """

    __tablename__ = "metadata"

    content_id: Mapped[int] = mapped_column(ForeignKey("contents.id"), primary_key=True, autoincrement=False)
    camera: Mapped[str] = mapped_column(Text)
    lens: Mapped[str] = mapped_column(Text)
    rating: Mapped[int | None]
    x_cm: Mapped[int | None] = mapped_column(BigInteger)
    y_cm: Mapped[int | None] = mapped_column(BigInteger)
    z_cm: Mapped[int | None] = mapped_column(BigInteger)
    keywords: Mapped[str] = mapped_column(Text)
    caption: Mapped[str] = mapped_column(Text)
    camera_key: Mapped[str] = mapped_column(Text)
    keywords_key: Mapped[str] = mapped_column(Text)
    seal: Mapped[int] = mapped_column(BigInteger)  # seals.metadata_seal


class Shard(Base):
    """A part of every space's features. New contents go to the highest number until it holds `capacity` of them."""

    __tablename__ = "shards"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    capacity: Mapped[int] = mapped_column(BigInteger)


class File(Base):
    """One path. `path` is relative to its root; `display` is the same as valid text.

    `mtime_ns` and `ctime_ns` are null where an equal stat would prove nothing: the next scan reads the file again.
    A file that cannot be read has a `failure` and keeps the content it last had.
    """

    __tablename__ = "files"
    __table_args__ = (UniqueConstraint("root_id", "path").ddl_if("sqlite"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    root_id: Mapped[int] = mapped_column(ForeignKey("roots.id"))
    path: Mapped[bytes] = mapped_column(LargeBinary)
    display: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int | None] = mapped_column(BigInteger)
    ctime_ns: Mapped[int | None] = mapped_column(BigInteger)
    content_id: Mapped[int | None] = mapped_column(ForeignKey("contents.id"), index=True)
    missing: Mapped[bool]
    failure: Mapped[str | None] = mapped_column(Text)
    seal: Mapped[int | None] = mapped_column(BigInteger)  # seals.file_seal


PRESENT = and_(File.missing.is_(False), File.failure.is_(None), File.content_id.is_not(None))
"""Files that are there and could be read."""

# Whether a content can be seen is one look-up here.
Index("ix_files_present", File.content_id, sqlite_where=PRESENT, postgresql_where=PRESENT)


# PostgreSQL's indexes take no more than 2,704 bytes, and a path may have 4,096.
Index("uq_files_path", File.root_id, prefix(File.path), rest_hash(File.path), unique=True).ddl_if("postgresql")
Index("uq_roots_path", prefix(Root.path), rest_hash(Root.path), unique=True).ddl_if("postgresql")


class Space(Base):
    """A feature space; `record` is its whole definition as JSON, `network` and `adapter` where these came from.

    `generation` is that of the commit that added it: an id may be that of a space that was forgotten before.
    """

    __tablename__ = "spaces"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    network: Mapped[str] = mapped_column(Text)
    adapter: Mapped[str] = mapped_column(Text)
    record: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(Text)  # ISO 8601, UTC
    generation: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class Feature(Base):
    """This row is what makes a picture exist in a space. `generation` is that of the commit that wrote its features."""

    __tablename__ = "features"
    __table_args__ = (
        Index("ix_features_generation", "space_id", "generation"),
        {"sqlite_with_rowid": False},
    )

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True, autoincrement=False)
    content_id: Mapped[int] = mapped_column(
        ForeignKey("contents.id"), primary_key=True, autoincrement=False, index=True
    )
    generation: Mapped[int] = mapped_column(BigInteger)


class Change(Base):
    """The last commit that changed whether a content can be seen, or by which files; not that wrote its features.

    A content that was forgotten keeps its row here, so there is no foreign key.
    """

    __tablename__ = "changes"

    content_id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    shard: Mapped[int] = mapped_column(Integer)
    generation: Mapped[int] = mapped_column(BigInteger, index=True)


class Generation(Base):
    """One row: a number that rises with every commit to the catalog. `changes` is whole after generation `oldest`."""

    __tablename__ = "generation"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)
    oldest: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class Recall(Base):
    """Which FAISS file of a shard of a space is the valid one: its digest, and the generation that it covers."""

    __tablename__ = "recall"

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True, autoincrement=False)
    shard: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(Text)


class IndexIdentity(Base):
    """One row in a catalog on a server: which index it belongs to, as its index.toml says. None in a file."""

    __tablename__ = "index_identity"

    identity: Mapped[str] = mapped_column(Text, primary_key=True)
