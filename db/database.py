"""One open database: transactions for reading and writing, schema checks, and errors as sentences."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, delete, exc, insert, make_url, select, update

from . import sqlite
from .errors import CatalogError
from .migrations import MIGRATIONS, migrate, schema_version
from .tables import Base, Generation, SchemaVersion

_ROWS_AT_ONCE = 5000


class NoCatalog(CatalogError):
    """There is no catalog at this place."""


class CatalogDamaged(CatalogError):
    """The file is not a database, not a catalog, or broken. fault: what is wrong, without a period."""

    def __init__(self, fault: str, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault


class NotACatalog(CatalogDamaged):
    """The file is a database of another program."""


class CatalogTooNew(CatalogError):
    """A newer program wrote the catalog."""


class CatalogTooOld(CatalogError):
    """An older program wrote the catalog, and it was opened for reading only."""


class CatalogUnavailable(CatalogError):
    """The database did not do what was asked: locked, disk full, not allowed."""


class Database:
    """Hands out transactions on one catalog; `name` is how it is called in messages."""

    def __init__(self, engine: Engine, name: str, path: Path | None, on_close: Callable[[], None]) -> None:
        self._engine = engine
        self._path = path  # of a SQLite file
        self._on_close = on_close
        self.name = name

    @classmethod
    def open(cls, where: str | Path, *, create: bool, readonly: bool) -> "Database":
        """Open the catalog at `where`, a path or a database URL.

        With `create` a missing one is made; an old one is brought up to date unless `readonly`.

        Raises:
            NoCatalog, CatalogDamaged, CatalogTooNew, CatalogTooOld, CatalogUnavailable.
        """
        database = cls._connected(where, create, readonly)
        try:
            if database._path is not None and database._path.is_file():
                # Nothing is written, not even a mode, before it is known to be a catalog.
                with closing(cls._connected(where, create, readonly=True)) as looked_at:
                    looked_at._check_objects()
            database._check_schema(create, readonly)
        except NotACatalog:
            database.close()
            raise
        except CatalogDamaged as problem:
            database.close()
            raise database.beyond_repair(problem.fault) from problem
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def copy(cls, where: str | Path, to: Path) -> None:
        """Copy the catalog at `where`, as it is at this moment, to a new SQLite file. One of an older program stays as
        old as it is; where there is none, nothing is made. Raises CatalogDamaged, CatalogUnavailable, ..."""
        source = cls._connected(where, create=True, readonly=True)
        if source._path is None:
            with closing(source), closing(cls.open(to, create=True, readonly=False)) as target:
                _copy_rows(source, target)
        elif source._path.is_file():
            with source._named_errors():
                sqlite.copy_file(source._path, to)

    @classmethod
    def _connected(cls, where: str | Path, create: bool, readonly: bool) -> "Database":
        if isinstance(where, str) and "://" in where:
            try:
                url = make_url(where)
                if url.get_backend_name() != "sqlite":
                    engine = create_engine(url)
                    return cls(engine, url.render_as_string(hide_password=True), None, lambda: None)
            except (exc.ArgumentError, ImportError) as problem:
                raise CatalogUnavailable(
                    f"The catalog's address cannot be used ({problem}); restore index.toml, which names it, or install"
                    " what it needs."
                ) from problem
            path = Path(url.database or "")
        else:
            path = Path(where)
        if not create and not path.is_file():
            raise _no_catalog(str(path))
        on_close = (lambda: None) if readonly else (lambda: sqlite.leave_wal_mode(path))
        return cls(sqlite.sqlite_engine(path, readonly), str(path), path, on_close)

    def _check_objects(self) -> None:
        """Refuse a SQLite file that holds anything but a catalog's tables; those of other versions are not compared."""
        with self.reading() as connection:
            columns = sqlite.columns(connection)
            if columns is None or (columns and SchemaVersion.__tablename__ not in columns):
                raise self._not_a_catalog()
            if columns and schema_version(connection) == len(MIGRATIONS) and columns != _columns():
                raise self._not_a_catalog()

    def _check_schema(self, create: bool, readonly: bool) -> None:
        with self.reading() as connection:
            version = schema_version(connection)
        newest = len(MIGRATIONS)
        if version is None:
            raise self._not_a_catalog()
        if version == 0 and not create:
            raise _no_catalog(self.name)
        if version > newest:
            raise CatalogTooNew(
                f"The catalog {self.name} has schema version {version} and this program knows versions up to {newest};"
                " update diffsim-search."
            )
        if version < newest and readonly:
            raise CatalogTooOld(
                f"The catalog {self.name} has schema version {version} and this program reads version {newest};"
                " run `diffsim index` on it once, which brings it up to date."
            )
        todo = version < newest
        while todo:
            with self._changing() as connection:
                todo = migrate(connection, MIGRATIONS)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database."""
        with self._named_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or leaves no trace when an exception passes.

        Here, and for every one, so that no kind of change can be overlooked, the generation rises.
        """
        with self._changing() as connection:
            connection.execute(update(Generation).values(value=Generation.value + 1))
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        engine = self._engine.execution_options(writes=True)
        with self._named_errors(), engine.begin() as connection:
            yield connection

    @property
    def path(self) -> Path | None:
        """Of a SQLite file; other databases check and repair themselves."""
        return self._path

    def close(self) -> None:
        self._engine.dispose()
        self._on_close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.OperationalError as error:
            if sqlite.is_damage(error):
                raise self._damaged(str(error.orig)) from error
            raise CatalogUnavailable(
                f"The catalog {self.name} could not be used ({error.orig}); check that the disk has room, that you may"
                " write there and that no other `diffsim index` is running, then try again."
            ) from error
        except exc.DatabaseError as error:
            if isinstance(error, exc.ProgrammingError | exc.NotSupportedError):
                raise  # a wrong statement is a bug
            raise self._damaged(str(error.orig)) from error
        except CatalogError:
            raise
        except (exc.NoResultFound, exc.MultipleResultsFound, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"a row says what cannot be: {error}") from error

    def _damaged(self, fault: str) -> CatalogDamaged:
        return CatalogDamaged(
            fault,
            f"The catalog {self.name} is damaged ({fault}); run `diffsim verify`, which rebuilds it from what can be"
            " read, and then `diffsim index`.",
        )

    def _not_a_catalog(self) -> NotACatalog:
        return NotACatalog(
            "no catalog", f"{self.name} is a database but not a diffsim-search catalog; choose another index folder."
        )

    def beyond_repair(self, fault: str) -> CatalogDamaged:
        return CatalogDamaged(
            fault,
            f"The catalog {self.name} is damaged beyond repair ({fault}); restore it from a backup, or delete the index"
            " folder and run `diffsim index FOLDER` again.",
        )


def _copy_rows(source: Database, target: Database) -> None:
    """Replace all rows of one catalog by those of another, which may be of another kind of database."""
    tables = Base.metadata.sorted_tables
    with source.reading() as reading, target._changing() as writing:
        for table in reversed(tables):
            writing.execute(delete(table))
        for table in tables:
            for rows in reading.execute(select(table)).mappings().partitions(_ROWS_AT_ONCE):
                writing.execute(insert(table), [dict(row) for row in rows])


def _columns() -> dict[str, list[str]]:
    """Of the newest schema, as `sqlite.columns` gives them."""
    return {name: sorted(table.columns.keys()) for name, table in Base.metadata.tables.items()}


def _no_catalog(name: str) -> NoCatalog:
    return NoCatalog(f"There is no catalog at {name}; make one with `diffsim index FOLDER`.")
