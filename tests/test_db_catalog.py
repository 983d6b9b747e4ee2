import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from diffsim.db.catalog import Catalog
from diffsim.db.database import CatalogDamaged, CatalogUnavailable, _copy_rows
from diffsim.db.files import Finding, display_text
from diffsim.db.shards import RecordedRecall
from diffsim.db.tables import Base


@pytest.fixture
def catalog(place: Path | str) -> Iterator[Catalog]:
    with Catalog.open(place, create=True) as catalog:
        yield catalog


def sha(number: int) -> bytes:
    return number.to_bytes(32, "big")


def add_files(catalog: Catalog, files: dict[bytes, int], root: bytes = b"/pictures") -> None:
    """Files by path, each with the number of its content."""
    known = {root.path: root for root in catalog.roots()}
    root_id = (known.get(root) or catalog.files.add_root(root)).id
    findings = [Finding(None, root_id, path, 10, 1, 1, sha(content), None) for path, content in files.items()]
    catalog.files.write(findings, [])


def set_missing(catalog: Catalog, *paths: bytes) -> None:
    (root,) = catalog.roots()
    rows = [catalog.files.at(root.id, path) for path in paths]
    catalog.files.set_missing([row.id for row in rows if row], [])


def test_contents_get_ids_in_order_and_copies_share_one(catalog: Catalog) -> None:
    add_files(catalog, {b"a.jpg": 9, b"b.jpg": 3, b"c.jpg": 9, b"d.jpg": 5})
    assert [catalog.content_by_sha256(sha(number)) for number in (9, 3, 5)] == [1, 2, 3]
    assert catalog.content_by_sha256(sha(4)) is None
    assert [file.path for file in catalog.files_of([1])[1]] == [b"/pictures/a.jpg", b"/pictures/c.jpg"]
    assert catalog.files_of([77]) == {77: []}


def test_many_contents_get_ids_in_order(catalog: Catalog) -> None:
    add_files(catalog, {b"%05d.jpg" % n: 10_000 - n for n in range(3000)})
    assert [catalog.content_by_sha256(sha(10_000 - n)) for n in (0, 999, 1000, 2999)] == [1, 1000, 1001, 3000]


def test_ids_are_never_given_twice(catalog: Catalog) -> None:
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2, b"c.jpg": 3})
    set_missing(catalog, b"b.jpg", b"c.jpg")
    assert catalog.prune() == [2, 3]
    add_files(catalog, {b"d.jpg": 4, b"c.jpg": 3})
    assert [catalog.content_by_sha256(sha(number)) for number in (4, 3)] == [4, 5]
    set_missing(catalog, b"a.jpg", b"c.jpg", b"d.jpg")
    catalog.prune()
    add_files(catalog, {b"e.jpg": 1})
    assert catalog.content_by_sha256(sha(1)) == 6


def test_a_transaction_that_fails_leaves_nothing(catalog: Catalog) -> None:
    add_files(catalog, {b"a.jpg": 1})
    with pytest.raises(CatalogDamaged, match=r"(?i)unique"):
        add_files(catalog, {b"new.jpg": 2, b"a.jpg": 3})
    assert catalog.content_by_sha256(sha(2)) is None
    assert catalog.status().files == 1


def test_paths_need_not_be_text(catalog: Catalog) -> None:
    add_files(catalog, {b"caf\xe9\n.jpg": 1, "ü.jpg".encode(): 2}, root=b"/p\xff")
    (strange,) = catalog.files_of([1])[1]
    assert strange.path == b"/p\xff/caf\xe9\n.jpg"
    assert strange.display == "/p\\xff/caf\\xe9\n.jpg"
    strange.display.encode("utf-8")
    assert catalog.files_of([2])[2][0].display == "/p\\xff/ü.jpg"
    assert display_text("日本.png".encode()) == "日本.png"


def test_spaces(catalog: Catalog) -> None:
    style = catalog.add_space("f1", "style", "/models/sd15", '{"timestep": 101}')
    look = catalog.add_space("f2", "look", "/models/sd15", "{}")
    assert catalog.add_space("f1", "other name", "/moved/sd15", "{}") == style
    first, second = catalog.spaces()
    assert (first.id, second.id) == (style, look)
    assert (first.name, first.network, first.record) == ("style", "/moved/sd15", '{"timestep": 101}')


def test_pending_until_indexed_in_every_space(catalog: Catalog) -> None:
    style, look = (catalog.add_space(name, name, "mini", "{}") for name in ("style", "look"))
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2, b"c.jpg": 1, b"d.jpg": 3})
    pending = list(catalog.pending([style, look]))
    assert [(item.content_id, item.sha256) for item in pending] == [(1, sha(1)), (2, sha(2)), (3, sha(3))]
    assert pending[0].paths == [b"/pictures/a.jpg", b"/pictures/c.jpg"]
    catalog.mark_indexed([style, look], [(1, "JPEG", 30, 20)])
    catalog.mark_indexed([style], [(2, "PNG", 30, 20)])
    catalog.mark_failed(3, "not an image")
    assert [item.content_id for item in catalog.pending([style, look])] == [2]
    assert catalog.count_pending([style, look]) == 1
    assert list(catalog.pending([style])) == [] == list(catalog.pending([]))
    assert catalog.count_pending([style]) == catalog.count_pending([]) == 0
    catalog.clear_failures()
    set_missing(catalog, b"b.jpg")
    assert [item.content_id for item in catalog.pending([style, look])] == [3]
    (root,) = catalog.roots()
    assert list(catalog.pending([style, look], skip_roots=[root.id])) == []
    assert catalog.count_pending([style, look], skip_roots=[root.id]) == 0


def test_generations_rise_and_tell_what_changed(catalog: Catalog) -> None:
    space, other = (catalog.add_space(name, name, "mini", "{}") for name in ("style", "look"))
    add_files(catalog, {b"%d.jpg" % n: n for n in range(1, 6)})
    assert catalog.indexed(space).ids.shape == (0,)
    first = catalog.mark_indexed([space, other], [(n, "JPEG", 4, 4) for n in (5, 1, 3)])
    second = catalog.mark_indexed([space], [(2, "JPEG", 4, 4)])
    again = catalog.mark_indexed([space], [(3, "JPEG", 4, 4)])
    assert first < second < again
    set_missing(catalog, b"1.jpg")
    found = catalog.indexed(space)
    np.testing.assert_array_equal(found.ids, np.array([1, 2, 3, 5]))
    assert found.ids.dtype == np.int64
    assert [row.tobytes() for row in found.sha256] == [sha(n) for n in (1, 2, 3, 5)] == list(found.hashes().values())
    assert found.shards.tolist() == [0] * 4 and found.complete and found.gone.shape == (0,)
    assert found.generations.tolist() == [first, second, again, first]
    assert found.visible.tolist() == [False, True, True, True]
    assert found.generation == catalog.generation() > again
    assert catalog.indexed(other).generations.tolist() == [first, first, first]
    assert catalog.unindex(space, [1, 2]) > again
    assert catalog.indexed(space).ids.tolist() == [3, 5]
    assert catalog.indexed(other).ids.tolist() == [1, 3, 5]
    assert [item.content_id for item in catalog.pending([space])] == [2, 4]


def test_the_generation_rises_with_every_commit_and_with_nothing_else(catalog: Catalog) -> None:
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2})
    (root,) = catalog.roots()
    commits = [
        lambda: catalog.mark_indexed([space], [(1, "JPEG", 4, 4)]),
        lambda: catalog.set_recall_file(space, 0, 4, "abc"),
        lambda: catalog.set_recall_generation(space, [0], 5),
        lambda: catalog.forget_recall_file(space, 0),
        lambda: catalog.set_shard_capacity(7),
        lambda: set_missing(catalog, b"a.jpg"),
        lambda: catalog.files.write([Finding(None, root.id, b"c.jpg", 1, 1, 1, sha(1), None)], []),
        lambda: catalog.mark_failed(2, "truncated"),
        catalog.clear_failures,
        lambda: catalog.unindex(space, [1]),
        catalog.prune,
        lambda: catalog.add_space("look", "look", "mini", "{}"),
        lambda: catalog.forget_space(space),
        lambda: catalog.forget_root(root.id),
    ]
    for commit in commits:
        before = catalog.generation()
        commit()
        assert catalog.generation() == before + 1
    catalog.status(), catalog.indexed(space), catalog.spaces(), catalog.visible_pictures()
    assert catalog.generation() == before + 1


def test_a_space_is_forgotten_and_its_pictures_stay(catalog: Catalog) -> None:
    style, look = (catalog.add_space(name, name, "mini", "{}") for name in ("style", "look"))
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2})
    catalog.mark_indexed([style, look], [(1, "JPEG", 4, 4), (2, "JPEG", 4, 4)])
    catalog.set_recall_file(style, 0, 1, "abc")
    assert catalog.forget_space(style) == 2
    assert [space.id for space in catalog.spaces()] == [look]
    assert catalog.indexed(look).ids.tolist() == [1, 2] and catalog.indexed(style).ids.tolist() == []
    assert catalog.recall_files(style) == {} and catalog.status().files == 2


def test_a_folder_is_forgotten_with_what_only_it_holds(catalog: Catalog) -> None:
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2, b"c.jpg": 3})
    add_files(catalog, {b"x.jpg": 2, b"y.jpg": 4}, root=b"/other")
    catalog.mark_indexed([space], [(n, "JPEG", 4, 4) for n in (1, 2, 3, 4)])
    rows = catalog.files.below(catalog.roots()[0].id, b"")
    catalog.files.set_missing([row.id for row in rows if row.path == b"y.jpg"], [])
    pictures = catalog.roots()[1]
    assert catalog.forget_root(pictures.id) == (3, [1, 3])
    assert [root.path for root in catalog.roots()] == [b"/other"]
    assert catalog.indexed(space).ids.tolist() == [2, 4]
    assert catalog.visible_pictures() == {space: 1}


def test_one_copy_is_enough_to_be_visible(catalog: Catalog) -> None:
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 1})
    catalog.mark_indexed([space], [(1, "JPEG", 4, 4)])
    set_missing(catalog, b"a.jpg")
    assert catalog.indexed(space).visible.tolist() == [True]
    set_missing(catalog, b"b.jpg")
    assert catalog.indexed(space).visible.tolist() == [False]


def test_recall_files(catalog: Catalog) -> None:
    space, other = (catalog.add_space(name, name, "mini", "{}") for name in ("style", "look"))
    assert catalog.recall_files(space) == {}
    catalog.set_recall_file(space, 0, 4, "abc")
    catalog.set_recall_file(space, 0, 7, "def")
    catalog.set_recall_file(space, 3, 5, "ghi")
    catalog.set_recall_file(other, 0, 5, "jkl")
    assert catalog.recall_files(space) == {0: RecordedRecall(7, "def"), 3: RecordedRecall(5, "ghi")}
    catalog.set_recall_generation(space, [3], 9)
    catalog.forget_recall_file(space, 0)
    assert catalog.recall_files(space) == {3: RecordedRecall(9, "ghi")}
    assert catalog.recall_files(other) == {0: RecordedRecall(5, "jkl")}


def test_prune_forgets_contents_without_files(catalog: Catalog) -> None:
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2, b"c.jpg": 1})
    add_files(catalog, {b"x.jpg": 2}, root=b"/other")
    before = catalog.mark_indexed([space], [(1, "JPEG", 4, 4), (2, "JPEG", 4, 4)])
    rows = catalog.files.below(catalog.roots()[1].id, b"")
    catalog.files.set_missing([row.id for row in rows], [])
    assert catalog.prune() == [1]
    assert catalog.indexed(space).ids.tolist() == [2]
    assert catalog.indexed(space).generation > before
    assert [root.path for root in catalog.roots()] == [b"/other"]
    assert catalog.prune() == []


def test_status(catalog: Catalog) -> None:
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 2, b"c.jpg": 1, b"d.jpg": 3})
    (root,) = catalog.roots()
    catalog.files.write([Finding(None, root.id, b"e.jpg", 1, 1, 1, None, "permission denied")], [])
    catalog.mark_indexed([space], [(1, "JPEG", 4, 4)])
    catalog.mark_failed(2, "truncated")
    set_missing(catalog, b"c.jpg")
    status = catalog.status()
    assert (status.contents, status.files, status.missing) == (3, 4, 1)
    assert [(file.display, file.reason) for file in status.failed] == [
        ("/pictures/b.jpg", "truncated"),
        ("/pictures/e.jpg", "permission denied"),
    ]
    assert [(count.space_id, count.files, count.contents, count.visible) for count in status.spaces] == [
        (space, 1, 1, 1)
    ]
    assert [(count.root.path, count.files, count.missing) for count in status.roots] == [(b"/pictures", 4, 1)]


# Readers


def filled(path: Path) -> Path:
    with Catalog.open(path, create=True) as catalog:
        add_files(catalog, {b"a.jpg": 1})
    return path


def contents_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_closed_catalog_is_one_file_and_reading_it_writes_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "catalog.sqlite")
    before = contents_of(tmp_path)
    assert set(before) == {"catalog.sqlite"}
    with Catalog.open(path, readonly=True) as reader:
        assert reader.content_by_sha256(sha(1)) == 1
        assert contents_of(tmp_path) == before
        with pytest.raises(CatalogUnavailable, match="readonly"):
            reader.mark_failed(1, "no")
    assert contents_of(tmp_path) == before


def test_a_reader_sees_what_a_writer_commits(tmp_path: Path) -> None:
    path = filled(tmp_path / "catalog.sqlite")
    with Catalog.open(path, readonly=True) as reader:
        assert reader.status().files == 1
        with Catalog.open(path) as writer:
            add_files(writer, {b"b.jpg": 2})
            assert reader.status().files == 2
            with writer._database.writing():
                assert reader.status().files == 2
            with reader._database.reading() as one_state:
                one_state.exec_driver_sql("SELECT * FROM files")
                add_files(writer, {b"c.jpg": 3})
                assert one_state.exec_driver_sql("SELECT count(*) FROM files").scalar() == 2
        assert reader.status().files == 3
    assert set(contents_of(tmp_path)) == {"catalog.sqlite"}


def test_a_url_names_the_same_catalog(tmp_path: Path) -> None:
    path = filled(tmp_path / "catalog.sqlite")
    with Catalog.open(f"sqlite:///{path}", readonly=True) as reader:
        assert reader.status().files == 1


UNPRIVILEGED = """
import os, sys
import sqlalchemy.dialects.sqlite
from diffsim.db.catalog import Catalog
from diffsim.db.errors import CatalogError
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with Catalog.open(sys.argv[1], readonly=True) as reader:
        print(reader.status().files)
except CatalogError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def read_without_rights(path: Path) -> str:
    """What a user reads who may not write there."""
    path.parent.chmod(0o555)
    for file in path.parent.iterdir():
        file.chmod(0o444)
    command = [sys.executable, "-W", "error", "-c", UNPRIVILEGED, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def set_journal(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_read_only_folder(open_folder: Path, journal: str) -> None:
    path = filled(open_folder / "catalog.sqlite")
    set_journal(path, journal)
    before = contents_of(open_folder)
    assert read_without_rights(path) == "1"
    assert contents_of(open_folder) == before


def test_a_read_only_folder_with_commits_in_its_wal(open_folder: Path, tmp_path: Path) -> None:
    """As after a kill, copied without the -shm: the file alone would be an older state, which is not shown."""
    path = filled(tmp_path / "catalog.sqlite")
    with Catalog.open(path) as writer:
        add_files(writer, {b"b.jpg": 2})
        for name in ("catalog.sqlite", "catalog.sqlite-wal"):
            (open_folder / name).write_bytes((tmp_path / name).read_bytes())
    assert read_without_rights(open_folder / "catalog.sqlite").startswith("CatalogUnavailable The catalog")


def test_a_catalog_that_breaks_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "catalog.sqlite")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    with pytest.raises(CatalogDamaged, match="damaged"), Catalog.open(path, readonly=True) as reader:
        reader.status()


# Copies


def test_a_copy_is_the_catalog_as_it_is(tmp_path: Path) -> None:
    path, copy = filled(tmp_path / "catalog.sqlite"), tmp_path / "copy.sqlite"
    with Catalog.open(path) as writer:
        add_files(writer, {b"b.jpg": 2})  # in the WAL
        with writer._database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM files")
            Catalog.copy(path, copy)
            connection.rollback()
        add_files(writer, {b"c.jpg": 3})
    with Catalog.open(copy) as copied:
        assert [copied.content_by_sha256(sha(number)) for number in (1, 2, 3)] == [1, 2, None]
        add_files(copied, {b"d.jpg": 4})
    with Catalog.open(path) as original:
        assert [original.content_by_sha256(sha(number)) for number in (3, 4)] == [3, None]


def test_a_copy_of_nothing_and_of_what_is_broken(tmp_path: Path) -> None:
    Catalog.copy(tmp_path / "none.sqlite", tmp_path / "copy.sqlite")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "broken.sqlite").write_bytes(b"these are the notes of last tuesday" * 100)
    with pytest.raises(CatalogDamaged, match=r"broken.sqlite is damaged"):
        Catalog.copy(tmp_path / "broken.sqlite", tmp_path / "copy.sqlite")


def test_rows_are_copied_from_any_database(tmp_path: Path) -> None:
    """As those of a server are, into a file."""
    with (
        Catalog.open(tmp_path / "from.sqlite", create=True) as source,
        Catalog.open(tmp_path / "to.sqlite", create=True) as target,
    ):
        source.set_shard_capacity(2)
        space = source.add_space("style", "style", "mini", "{}")
        add_files(source, {b"%d.jpg" % n: n for n in range(5)}, root=b"/p\xff")
        source.mark_indexed([space], [(n, "JPEG", 4, 4) for n in (1, 3)])
        set_missing(source, b"3.jpg")
        source.set_recall_file(space, 0, 4, "abc")
        add_files(target, {b"other.jpg": 9})
        _copy_rows(source._database, target._database)
        tables = Base.metadata.sorted_tables
        with source._database.reading() as ours, target._database.reading() as theirs:
            for table in tables:
                assert ours.execute(select(table)).all() == theirs.execute(select(table)).all(), table
