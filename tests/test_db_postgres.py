"""What a catalog on a PostgreSQL server must do of its own: everything else about it is in the other tests."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import create_engine, event, select, text
from test_db_catalog import add_files, set_missing, sha

from diffsim.db import database as database_module
from diffsim.db.catalog import Catalog
from diffsim.db.database import CatalogDamaged, CatalogTooNew, CatalogTooOld, CatalogUnavailable, Database, NoCatalog
from diffsim.db.files import Finding
from diffsim.db.migrations import MIGRATIONS
from diffsim.db.postgres import BadAddress, CatalogBusy, server_address
from diffsim.db.tables import Base, File


@pytest.fixture
def catalog(database: str) -> Iterator[Catalog]:
    with Catalog.open(database, create=True) as catalog:
        yield catalog


def shape(url: str, schema: str) -> dict[str, object]:
    """Tables, columns, keys and indexes as the server says them."""
    engine = create_engine(url)
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "SELECT table_name, column_name, data_type, is_nullable, column_default "
                "FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2"
            )
        ).all()
        indexes = connection.execute(
            text("SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()")
        ).scalars()
        keys = connection.execute(
            text(
                "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE connamespace = current_schema()::regnamespace"
            )
        ).all()
        found = {
            "columns": [tuple(row) for row in columns],
            "indexes": sorted(indexes),
            "keys": sorted(map(tuple, keys)),
        }
    engine.dispose()
    return {name: [str(row).replace(schema, "") for row in rows] for name, rows in found.items()}


def schema_of(url: str) -> str:
    return url.rpartition("%3D")[2]


def test_the_migrations_end_at_the_models(server, database: str) -> None:
    Catalog.open(database, create=True).close()
    with server.schema() as other:
        engine = create_engine(other)
        Base.metadata.create_all(engine)
        engine.dispose()
        assert shape(database, schema_of(database)) == shape(other, schema_of(other))


def test_versions(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoCatalog):
        Catalog.open(database, readonly=True)
    monkeypatch.setattr(database_module, "MIGRATIONS", MIGRATIONS[:3])
    with closing(Database.open(database, create=True, readonly=False)) as third, third._changing() as connection:
        for statement in (
            r"INSERT INTO roots VALUES (1, '\x2f70', '/p', 'private/', true)",
            r"INSERT INTO contents VALUES (3, decode(repeat('00', 32), 'hex'), 9, 'JPEG', 4, 4, NULL, 0)",
            r"INSERT INTO files VALUES (1, 1, '\x61', 'a', 9, 1, 1, 3, false, NULL)",
            r"INSERT INTO files VALUES (2, 1, '\x62', 'b', 9, 1, 1, NULL, false, 'closed')",
        ):
            connection.exec_driver_sql(statement)
    monkeypatch.undo()
    with pytest.raises(CatalogTooOld, match="run `diffsim index`"):
        Catalog.open(database, readonly=True)
    with Catalog.open(database) as catalog:
        assert catalog.mend() is None
        assert [file.path for file in catalog.files_of([3])[3]] == [b"/p/a"]
        assert [(root.left_out, root.include_hidden) for root in catalog.roots()] == [(("private/",), True)]
        with catalog._database._changing() as connection:
            connection.exec_driver_sql("INSERT INTO schema_version VALUES (99, 'from the future')")
    with pytest.raises(CatalogTooNew, match="update diffsim-search"):
        Catalog.open(database)


OPENS = """
import sys
from diffsim.db.catalog import Catalog
with Catalog.open(sys.argv[1], create=True) as catalog:
    print(catalog.generation())
"""


def test_four_processes_make_one_catalog(database: str) -> None:
    line = [sys.executable, "-c", OPENS, database]
    children = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    assert [child.communicate() for child in children] == [(b"0\n", b"")] * 4


def test_readonly_writes_nothing(database: str) -> None:
    Catalog.open(database, create=True).close()
    with Catalog.open(database, readonly=True) as reader:
        with pytest.raises(CatalogUnavailable, match="read-only transaction"):
            reader.add_space("style", "style", "mini", "{}")
        with reader._database.reading() as connection, pytest.raises(Exception, match="read-only"):
            connection.exec_driver_sql("DELETE FROM shards")
        assert reader.spaces() == []


def test_a_reader_sees_one_state(catalog: Catalog, database: str) -> None:
    add_files(catalog, {b"a.jpg": 1})
    with Catalog.open(database, readonly=True) as reader, reader._database.reading() as one_state:
        count = select(File.id)
        assert len(one_state.execute(count).all()) == 1
        add_files(catalog, {b"b.jpg": 2})
        assert len(one_state.execute(count).all()) == 1
        assert reader.status().files == 2  # in a transaction of its own


LONG = [os.urandom(size) for size in (1999, 2000, 2001, 2800, 4095)]


def test_paths_of_any_length(catalog: Catalog) -> None:
    """More than an index takes; those that differ only beyond what it holds are different too."""
    bodies = [body.replace(b"/", b"-").replace(b"\0", b"-") for body in LONG]
    names = [b"d/" + body + end for body in bodies for end in (b"", b"x", b"y")]
    add_files(catalog, {name: number for number, name in enumerate(names)}, root=b"/" + bodies[-1])
    (root,) = catalog.roots()
    assert [row.path for row in catalog.files.below(root.id, b"")] == sorted(names)
    assert [row.path for row in catalog.files.below(root.id, b"d")] == sorted(names)
    assert all(catalog.files.at(root.id, name) and catalog.has_file(os.path.join(root.path, name)) for name in names)
    space = catalog.add_space("style", "style", "mini", "{}")
    catalog.mark_indexed([space], [(n, "JPEG", 4, 4) for n in range(1, len(names) + 1)])
    assert len(catalog.picture_order().ids) == len(names)
    for again in (names[-1], names[0]):
        with pytest.raises(CatalogDamaged, match="uq_files_path"):
            add_files(catalog, {again: 99}, root=root.path)
    with pytest.raises(CatalogDamaged, match="uq_roots_path"):
        catalog.files.add_root(root.path)
    deep = b"d/" + bodies[-1]
    add_files(catalog, {deep + b"/in": 50, deep + b"0": 51, deep + b".": 52}, root=root.path)
    assert [row.path for row in catalog.files.below(root.id, deep)] == [deep + b"/in"]


def test_the_index_serves_ranges_in_order(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsim.db.files._ROWS_AT_ONCE", 100)
    add_files(catalog, {b"%02d/%05d.jpg" % (n % 10, n): n for n in range(3000)})
    statements = []
    with catalog._database._changing() as connection:
        connection.exec_driver_sql("ANALYZE files")

    @event.listens_for(catalog._database._engine, "before_cursor_execute")
    def _keep(connection, cursor, statement, parameters, context, many) -> None:
        if "FROM files" in statement and "EXPLAIN" not in statement:
            statements.append((statement, parameters))

    list(catalog.files.below(1, b""))
    catalog.files.at(1, b"03/00003.jpg")
    list(catalog.files.below(1, b"03"))
    with catalog._database.reading() as connection:
        for statement, parameters in list(statements):
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            assert "uq_files_path" in plan and "Seq Scan" not in plan, plan


@pytest.mark.parametrize("reason", ["cut off\0 here", "caf\udce9.png: gone"])
def test_reasons_that_are_no_text(place, reason: str) -> None:
    with Catalog.open(place, create=True) as catalog:
        add_files(catalog, {b"a.jpg": 1})
        (root,) = catalog.roots()
        catalog.files.write([Finding(None, root.id, b"b.jpg", 1, 1, 1, None, reason)], [])
        catalog.mark_failed(1, reason)
        shown = {failed.reason for failed in catalog.status().failed}
        assert len(shown) == 1 and shown <= {"cut off\\x00 here", "caf\\udce9.png: gone"}


def test_two_writers_with_one_new_content(catalog: Catalog, database: str) -> None:
    """The second waits for the first, and then finds the content."""
    add_files(catalog, {b"a.jpg": 1})
    with Catalog.open(database) as other:
        second = threading.Thread(target=add_files, args=(other, {b"c.jpg": 2, b"d.jpg": 3}))
        with catalog._database.writing() as connection:
            second.start()
            connection.exec_driver_sql(
                r"INSERT INTO contents (sha256, size) VALUES (decode(lpad('02', 64, '0'), 'hex'), 10)"
            )
            time.sleep(0.3)
            assert second.is_alive()
        second.join(20)
        held = [catalog.content_by_sha256(sha(number)) for number in (1, 2, 3)]
        assert len(set(held)) == 3 and None not in held
        assert [file.path for file in other.files_of([held[1]])[held[1]]] == [b"/pictures/c.jpg"]


def test_many_writers_at_once(catalog: Catalog, database: str) -> None:
    catalog.files.add_root(b"/pictures")
    with ExitStack() as stack:
        writers = [stack.enter_context(Catalog.open(database)) for _ in range(3)]

        def write(number: int) -> None:
            for step in range(5):
                add_files(writers[number], {b"%d-%d-%d.jpg" % (number, step, n): 10 * step + n for n in range(5)})

        threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    status = catalog.status()
    assert (status.files, status.contents, catalog.generation()) == (75, 25, 16)


def test_one_may_be_the_only_writer(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsim.db.postgres.LOCK_PATIENCE_S", 0.2)
    with Catalog.open(database, create=True, alone=True) as writer:
        with pytest.raises(CatalogBusy, match=f"written by process {os.getpid()} on"):
            Catalog.open(database, alone=True)
        with Catalog.open(database, readonly=True) as reader:
            assert reader.generation() == writer.generation()
    Catalog.open(database, alone=True).close()


def test_a_connection_that_is_cut(catalog: Catalog, server, database: str) -> None:
    """A reader goes on with another; a writer says so, and what it had not committed is not there."""
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    add_files(catalog, {b"a.jpg": 1})
    server.execute(cut)
    assert catalog.status().files == 1
    with pytest.raises(CatalogUnavailable, match="what was committed is kept"):  # noqa: SIM117
        with catalog._database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM files")
            server.execute(cut)
            connection.exec_driver_sql("DELETE FROM roots")
    assert catalog.status().files == 1


def test_a_copy_in_a_file(catalog: Catalog, database: str, tmp_path) -> None:
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"%d.jpg" % n: n for n in range(5)}, root=b"/p\xff")
    catalog.mark_indexed([space], [(n, "JPEG", 4, 4) for n in (1, 3)], {1: 7})
    set_missing(catalog, b"3.jpg")
    Catalog.copy(database, tmp_path / "copy.sqlite")
    with Catalog.open(tmp_path / "copy.sqlite", readonly=True) as copy:
        for table in Base.metadata.sorted_tables:
            with catalog._database.reading() as ours, copy._database.reading() as theirs:
                rows = (sorted(map(repr, each.execute(select(table)))) for each in (ours, theirs))
                assert next(rows) == next(rows), table


def test_a_copy_of_nothing_and_of_what_is_old(database: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    Catalog.copy(database, tmp_path / "copy.sqlite")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(database_module, "MIGRATIONS", MIGRATIONS[:5])
    Catalog.open(database, create=True).close()
    monkeypatch.undo()
    with pytest.raises(CatalogTooOld):
        Catalog.copy(database, tmp_path / "copy.sqlite")


def test_addresses() -> None:
    kept = "postgresql+psycopg://me@db:5433/photos"
    assert server_address("postgresql://me@db:5433/photos") == server_address("postgres://me@db:5433/photos") == kept
    assert server_address(kept) == kept
    for wrong in (
        "",
        "photos",
        "sqlite:///x",
        "postgresql://me@db",
        "postgresql://me:pw@db/x",
        "postgresql://h:port/x",
        "\udcff",
    ):
        with pytest.raises(BadAddress):
            server_address(wrong)
