"""One open database: transactions for reading and writing, schema checks, and errors as sentences."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, exc, exists, insert, make_url, or_, select, update

from . import postgres, sqlite
from .errors import CatalogError
from .migrations import MIGRATIONS, migrate, schema_version
from .tables import Base, Generation, IndexIdentity, Root, SchemaVersion, Space

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


class CatalogTaken(CatalogError):
    """The database on a server holds the catalog of another index."""


class Database:
    """Hands out transactions on one catalog; `name` is how it is called in messages."""

    def __init__(
        self, engine: Engine, writer: Engine, name: str, path: Path | None, on_close: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._path = path  # of a SQLite file
        self._on_close = on_close
        self.name = name

    @classmethod
    def open(cls, where: str | Path, *, create: bool, readonly: bool, alone: bool = False) -> "Database":
        """Open the catalog at `where`, a path or a database URL.

        With `create` a missing one is made; an old one is brought up to date unless `readonly`.
        alone: on a server, be its one writer until it is closed.

        Raises:
            NoCatalog, CatalogDamaged, CatalogTooNew, CatalogTooOld, CatalogUnavailable, BadAddress, CatalogBusy.
        """
        database = cls._connected(where, create, readonly, alone)
        try:
            if database._path is None:
                database._check_server()
            elif database._path.is_file():
                # Nothing is written, not even a mode, before it is known to be a catalog.
                with closing(cls._connected(where, create, readonly=True)) as looked_at:
                    looked_at._check_objects()
            if alone:
                with database._changing():
                    pass  # connected as the writer before the tables are looked at
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
            with closing(source), suppress(NoCatalog):
                source._check_server()
                source._check_schema(create=False, readonly=True)
                with closing(cls.open(to, create=True, readonly=False)) as target:
                    _copy_rows(source, target)
        elif source._path.is_file():
            with source._named_errors():
                sqlite.copy_file(source._path, to)

    @classmethod
    def _connected(cls, where: str | Path, create: bool, readonly: bool, alone: bool = False) -> "Database":
        if isinstance(where, str) and "://" in where and not where.startswith("sqlite"):
            try:
                reader, writer = postgres.engines(where, readonly, alone)
            except ImportError as problem:
                raise CatalogUnavailable(
                    "The catalog is in a PostgreSQL database, and what speaks with it is not installed; install it "
                    "with: pip install 'diffsim-search[postgres]'."
                ) from problem
            return cls(reader, writer, writer.url.render_as_string(), None, lambda: None)
        path = Path(make_url(where).database or "") if isinstance(where, str) and "://" in where else Path(where)
        if not create and not path.is_file():
            raise _no_catalog(str(path))
        on_close = (lambda: None) if readonly else (lambda: sqlite.leave_wal_mode(path))
        engine = sqlite.sqlite_engine(path, readonly)
        return cls(engine, engine.execution_options(writes=True), str(path), path, on_close)

    def _check_server(self) -> None:
        """Refuse a database that cannot hold a catalog, or holds tables that are none of ours."""
        with self.reading() as connection:
            if unfit := postgres.unfit(connection):
                raise CatalogUnavailable(f"The database {self.name} cannot hold a catalog: {unfit}.")
            columns = postgres.columns(connection)
            if not columns:
                return
            if columns.get(SchemaVersion.__tablename__) != ["name", "version"]:
                raise self._not_a_catalog()
            ran = connection.execute(select(SchemaVersion.version, SchemaVersion.name).order_by(SchemaVersion.version))
            ours = [(number, migration.__name__) for number, migration in enumerate(MIGRATIONS, start=1)]
            done = [(number, name) for number, name in ran]
            if not done or done[: len(ours)] != ours[: len(done)]:
                raise self._not_a_catalog()
            expected = _columns()
            if len(done) == len(ours) and any(columns.get(name) != expected[name] for name in expected):
                raise self._not_a_catalog()

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
                if self._path is None:
                    postgres.lock_schema(connection)
                todo = migrate(connection, MIGRATIONS)

    def claim(self, identity: str, *, blank: bool) -> None:
        """See that this catalog, on a server, belongs to this index. blank: one in which there is nothing becomes its
        own. Raises CatalogTaken."""
        with self.reading() as connection:
            if connection.scalar(select(IndexIdentity.identity)) == identity:
                return
            if not blank or _is_filled(connection):
                raise self._taken()
        with self._changing() as connection:
            connection.execute(delete(IndexIdentity))
            connection.execute(insert(IndexIdentity).values(identity=identity))

    @classmethod
    def check_free(cls, where: str) -> None:
        """See that a new index can have its catalog in this database on a server; writes nothing. Raises as `open`, and
        CatalogTaken."""
        with closing(cls._connected(where, create=True, readonly=True)) as database:
            database._check_server()
            with suppress(NoCatalog):
                database._check_schema(create=False, readonly=True)
                with database.reading() as connection:
                    if _is_filled(connection):
                        raise database._taken()

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
        with self._named_errors(), self._writer.begin() as connection:
            yield connection

    @property
    def path(self) -> Path | None:
        """Of a SQLite file; other databases check and repair themselves."""
        return self._path

    def close(self) -> None:
        self._engine.dispose()
        self._writer.dispose()
        self._on_close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            named = self._of_sqlite(error) if self._path else self._of_server(error)
            if named is None:
                raise  # a wrong statement is a bug
            raise named from error
        except CatalogError:
            raise
        except (exc.NoResultFound, exc.MultipleResultsFound, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"a row says what cannot be: {error}") from error

    def _of_sqlite(self, error: exc.DBAPIError) -> CatalogError | None:
        if isinstance(error, exc.OperationalError) and not sqlite.is_damage(error):
            return CatalogUnavailable(
                f"The catalog {self.name} could not be used ({error.orig}); check that the disk has room, that you may"
                " write there and that no other `diffsim index` is running, then try again."
            )
        bug = exc.ProgrammingError | exc.NotSupportedError | exc.InterfaceError
        return None if isinstance(error, bug) else self._damaged(str(error.orig))

    def _of_server(self, error: exc.DBAPIError) -> CatalogError | None:
        fault = " ".join(str(error.orig).split())
        if postgres.is_trouble(error):
            return CatalogUnavailable(
                f"The catalog {self.name} could not be used ({fault}); see that the server runs, that it has room and "
                "that the user may write there (the password is read from $PGPASSWORD or ~/.pgpass), then run the same "
                "command again: what was committed is kept."
            )
        return self._damaged(fault) if postgres.is_damage(error) else None

    def _damaged(self, fault: str) -> CatalogDamaged:
        if self._path is None:
            return self.beyond_repair(fault)
        return CatalogDamaged(
            fault,
            f"The catalog {self.name} is damaged ({fault}); run `diffsim verify`, which rebuilds it from what can be"
            " read, and then `diffsim index`.",
        )

    def _not_a_catalog(self) -> NotACatalog:
        if self._path is None:
            return NotACatalog(
                "no catalog",
                f"The database {self.name} holds tables that are none of a diffsim-search catalog; give --catalog a "
                "database of its own, or a schema: ...?options=-csearch_path%3DSCHEMA.",
            )
        return NotACatalog(
            "no catalog", f"{self.name} is a database but not a diffsim-search catalog; choose another index folder."
        )

    def _taken(self) -> CatalogTaken:
        return CatalogTaken(
            f"The database {self.name} holds the catalog of another index; give each index a database of its own, or a "
            "schema: ...?options=-csearch_path%3DSCHEMA."
        )

    def beyond_repair(self, fault: str) -> CatalogDamaged:
        if self._path is None:
            return CatalogDamaged(
                fault,
                f"The catalog {self.name} is damaged ({fault}), and only catalogs in files can be rebuilt here; try "
                "REINDEX DATABASE there, else restore the database from a backup or begin a new index.",
            )
        return CatalogDamaged(
            fault,
            f"The catalog {self.name} is damaged beyond repair ({fault}); restore it from a backup, or delete the index"
            " folder and run `diffsim index FOLDER` again.",
        )


def _is_filled(connection: Connection) -> bool:
    """Whether any folder or feature space is in a catalog."""
    return bool(connection.scalar(select(or_(exists(select(Root.id)), exists(select(Space.id))))))


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
