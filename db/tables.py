"""The catalog's tables. Features, FAISS ids and token records belong to contents, never to files."""

from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite numbers rows by itself only when the type is spelt INTEGER; elsewhere an id is 64 bits wide.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    pass


class SchemaVersion(Base):
    """One row per migration that ran; the highest version is the schema's."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)


class Root(Base):
    """A folder that was asked for. `path` is absolute, symlinks resolved, as `os.fsencode` gives it."""

    __tablename__ = "roots"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    path: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    display: Mapped[str] = mapped_column(Text)


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


class File(Base):
    """One path. `path` is relative to its root; `display` is the same as valid text.

    `mtime_ns` and `ctime_ns` are null where an equal stat would prove nothing: the next scan reads the file again.
    A file that cannot be read has a `failure` and keeps the content it last had.
    """

    __tablename__ = "files"
    __table_args__ = (UniqueConstraint("root_id", "path"),)

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


class Space(Base):
    """A feature space; `record` is its whole definition as JSON, `network` and `adapter` where these came from."""

    __tablename__ = "spaces"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    network: Mapped[str] = mapped_column(Text)
    adapter: Mapped[str] = mapped_column(Text)
    record: Mapped[str] = mapped_column(Text)
    created: Mapped[str] = mapped_column(Text)  # ISO 8601, UTC


class Feature(Base):
    """This row is what makes a picture exist in a space."""

    __tablename__ = "features"
    __table_args__ = ({"sqlite_with_rowid": False},)

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True, autoincrement=False)
    content_id: Mapped[int] = mapped_column(
        ForeignKey("contents.id"), primary_key=True, autoincrement=False, index=True
    )
    generation: Mapped[int] = mapped_column(BigInteger)


class Generation(Base):
    """One row: a number that rises with every commit to the catalog."""

    __tablename__ = "generation"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)


class Recall(Base):
    """Which FAISS file of a space is the valid one: its digest, and the generation that it covers."""

    __tablename__ = "recall"

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(Text)
