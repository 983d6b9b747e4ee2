import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect

from diffsim.db import database
from diffsim.db.catalog import Catalog
from diffsim.db.database import CatalogDamaged, CatalogTooNew, CatalogTooOld, Database, NoCatalog
from diffsim.db.migrations import MIGRATIONS
from diffsim.db.seals import content_seal, file_seal, root_seal
from diffsim.db.shards import KnownShard
from diffsim.db.tables import Base


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def _shape(connection: Connection) -> dict[str, object]:
    """Tables, columns, keys and indexes as the database sees them."""
    look = inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(table)],
            look.get_pk_constraint(table)["constrained_columns"],
            sorted((f["constrained_columns"], f["referred_table"]) for f in look.get_foreign_keys(table)),
            sorted(u["column_names"] for u in look.get_unique_constraints(table)),
            sorted(i["column_names"] for i in look.get_indexes(table)),
            look.get_table_options(table),
        )
        for table in sorted(look.get_table_names())
    }


def _statements(path: Path) -> Iterator[str]:
    """All but how they are broken into lines: a column that was added later stands in the line of the one before."""
    with closing(sqlite3.connect(path)) as connection:
        for (statement,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"):
            yield " ".join(statement.split())


def test_the_migrations_end_at_the_models(path: Path, tmp_path: Path) -> None:
    Catalog.open(path, create=True).close()
    by_models = create_engine(f"sqlite:///{tmp_path / 'models.sqlite'}")
    by_migrations = create_engine(f"sqlite:///{path}")
    with by_models.begin() as connection:
        Base.metadata.create_all(connection)
        expected = _shape(connection)
    with by_migrations.begin() as connection:
        assert _shape(connection) == expected
    by_models.dispose()
    by_migrations.dispose()
    assert any("AUTOINCREMENT" in statement for statement in _statements(path))
    assert sorted(_statements(path)) == sorted(_statements(tmp_path / "models.sqlite"))


def test_opening_again_changes_nothing(path: Path) -> None:
    Catalog.open(path, create=True).close()
    before = path.read_bytes()
    Catalog.open(path, create=True, readonly=False).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version, name FROM schema_version").fetchall() == [
            (number, migration.__name__) for number, migration in enumerate(MIGRATIONS, start=1)
        ]
    assert len(path.read_bytes()) == len(before)


def test_a_newer_catalog_is_refused(path: Path) -> None:
    Catalog.open(path, create=True).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 'from the future')")
    for readonly in (False, True):
        with pytest.raises(CatalogTooNew, match=rf"version 99 .* up to {len(MIGRATIONS)}; update diffsim-search"):
            Catalog.open(path, readonly=readonly)


def test_a_migration_that_breaks_leaves_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (x INTEGER)")
        raise RuntimeError("power cut")

    def works(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE whole (x INTEGER)")

    Catalog.open(path, create=True).close()
    before = list(_statements(path))

    def set_migrations(next_one: object) -> None:
        migrations = (*MIGRATIONS, next_one)
        monkeypatch.setattr(database, "MIGRATIONS", migrations)

    set_migrations(breaks)
    with pytest.raises(CatalogTooOld, match=rf"version {len(MIGRATIONS)} .* reads version {len(MIGRATIONS) + 1}"):
        Catalog.open(path, readonly=True)
    with pytest.raises(RuntimeError):
        Catalog.open(path)
    assert list(_statements(path)) == before
    set_migrations(works)
    Catalog.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT max(version) FROM schema_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT count(*) FROM whole").fetchone() == (0,)


def test_what_is_no_catalog(path: Path) -> None:
    with pytest.raises(NoCatalog, match="diffsim index FOLDER"):
        Catalog.open(path)
    assert not path.exists()
    path.write_bytes(b"")
    with pytest.raises(NoCatalog):
        Catalog.open(path, readonly=True)
    path.write_bytes(b"these are the notes of last tuesday" * 100)
    with pytest.raises(CatalogDamaged, match="is damaged"):
        Catalog.open(path, create=True)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE recipes (x)")
    with pytest.raises(CatalogDamaged, match="not a diffsim-search catalog"):
        Catalog.open(path, create=True)


def test_the_fourth_migration_seals_every_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:3])
    with closing(Database.open(path, create=True, readonly=False)) as third, third._changing() as connection:
        for statement in (
            "INSERT INTO roots VALUES (1, x'2f70', '/p', 'private/', 1)",
            "INSERT INTO contents VALUES (3, zeroblob(32), 9, 'JPEG', 4, 4, NULL, 0)",
            "INSERT INTO files VALUES (1, 1, x'61', 'a', 9, 1, 1, 3, 0, NULL)",
            "INSERT INTO files VALUES (2, 1, x'62', 'b', 9, 1, 1, NULL, 0, 'closed')",
        ):
            connection.exec_driver_sql(statement)
    monkeypatch.undo()
    with Catalog.open(path) as catalog:
        assert catalog.mend() is None
        assert [file.path for file in catalog.files_of([3])[3]] == [b"/p/a"]
        assert [(root.left_out, root.include_hidden) for root in catalog.roots()] == [(("private/",), True)]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT seal FROM contents").fetchall() == [
            (content_seal(bytes(32), 9, 0, "JPEG", 4, 4),)
        ]
        assert connection.execute("SELECT seal FROM files ORDER BY id").fetchall() == [
            (file_seal(b"/p/a", 3, bytes(32)),),
            (file_seal(b"/p/b", None, None),),
        ]
        assert connection.execute("SELECT seal FROM roots").fetchall() == [(root_seal(b"/p", "private/", True),)]


def test_the_fifth_migration_leaves_pictures_without_a_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:4])
    seal = content_seal(bytes(32), 9, 0, "JPEG", 4, 4)
    with closing(Database.open(path, create=True, readonly=False)) as fourth, fourth._changing() as connection:
        connection.exec_driver_sql(f"INSERT INTO contents VALUES (3, zeroblob(32), 9, 'JPEG', 4, 4, NULL, 0, {seal})")
    monkeypatch.undo()
    with Catalog.open(path) as catalog:
        assert catalog.mend() is None and catalog.own_dates([3], set()) == {}
        assert catalog.pictures([3])[3].taken_ns is None
        space = catalog.add_space("f", "look", "mini", "{}")
        catalog.mark_indexed([space], [(3, "JPEG", 4, 4)], {3: 7})
        assert catalog.mend() is None and catalog.own_dates([3], set()) == {3: 7}


def test_the_second_migration_keeps_what_the_first_version_wrote(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:1])
    with Catalog.open(path, create=True) as first, first._database._changing() as connection:
        for statement in (
            "INSERT INTO roots VALUES (1, x'2f70', '/p')",
            "INSERT INTO contents VALUES (3, zeroblob(32), 9, 'JPEG', 4, 4, NULL)",
            "INSERT INTO contents VALUES (8, x'02', 9, NULL, NULL, NULL, 'broken')",
            "INSERT INTO files VALUES (1, 1, x'61', 'a', 9, 1, 1, 3, 0, NULL), (2, 1, x'62', 'b', 9, 1, 1, 8, 0, NULL)",
            "INSERT INTO spaces VALUES (1, 'f', 'look', 'mini', '', '{}', '2026-01-01')",
            "INSERT INTO features VALUES (1, 3, 5)",
            "INSERT INTO recall VALUES (1, 6, 'abc')",
            "UPDATE generation SET value = 7",
        ):
            connection.exec_driver_sql(statement)
    monkeypatch.undo()
    with Catalog.open(path) as catalog:
        assert (catalog.generation(), catalog.shards()) == (7, [KnownShard(0, 1_000_000)])
        found = catalog.space_changes(1, 6)
        assert found.complete and (found.ids.tolist(), found.shards.tolist()) == ([3], [0])
        assert (found.generations.tolist(), found.visible.tolist()) == ([5], [True])
        assert not catalog.space_changes(1, 7).complete
        assert catalog.recall_files(1) == {} and [failed.reason for failed in catalog.status().failed] == ["broken"]
