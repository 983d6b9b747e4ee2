"""Damage of every kind: answers stay right, `verify` finds it, the next run mends it."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
from indexing import FAST, build, copy_index, diffsim, draw

from diffsim.db.catalog import KnownSpace
from diffsim.db.database import CatalogDamaged
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import SpaceCheck, prune_index, verify_index
from diffsim.query.search import Answer, Query, Searcher
from diffsim.retrieval.kit import DamagedKit

MEMORY = 2**30


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "pictures"
    draw(folder, range(12))
    return folder


@pytest.fixture(scope="module")
def built(gallery: Path) -> Path:
    build(gallery.parent / "index", gallery)
    return gallery.parent / "index"


@pytest.fixture
def index(built: Path, tmp_path: Path) -> IndexFolder:
    return IndexFolder.open(copy_index(built, tmp_path / "index"))


def ask(index: IndexFolder | Path, picture: Path, **settings: object) -> Answer:
    path = index.path if isinstance(index, IndexFolder) else index
    with Searcher(path, "cpu") as searcher:
        return searcher.answer(Query(picture, k=100, include_self=True, **settings))  # type: ignore[arg-type]


def check(index: IndexFolder) -> SpaceCheck:
    (checked,) = verify_index(index, MEMORY).spaces
    return checked


def recall_file(index: IndexFolder) -> Path:
    (space,) = Searcher(index.path).spaces()
    (file,) = index.shard(space.fingerprint, 0).glob("recall-*.faiss")
    return file


def test_a_sound_index_is_clean(index):
    checked = check(index)
    assert (checked.pictures, checked.damaged, checked.orphans, checked.rebuilt) == (12, [], 0, False)


# ------------------------------------------------------------------------------------------- the FAISS file


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-30] ^= 1
    file.write_bytes(data)


def replace_by_anothers(file: Path) -> None:
    other = file.parents[5] / "other"
    draw(other, range(30, 42))
    build(other / "index", other)
    shutil.copy(recall_file(IndexFolder.open(other / "index")), file)


@pytest.mark.parametrize(
    "harm", [Path.unlink, flip_a_byte, lambda file: file.write_bytes(file.read_bytes()[:100]), replace_by_anothers]
)
def test_a_bad_faiss_file_changes_no_answer(index, gallery, harm):
    picture = gallery / "03.png"
    before = ask(index, picture)
    assert before.notes == []
    harm(recall_file(index))
    after = ask(index, picture)
    assert after.hits == before.hits and after.scored == before.scored
    assert len(after.notes) == 1 and "diffsim verify" in after.notes[0]
    checked = check(index)
    assert checked.rebuilt and checked.damaged == []
    mended = ask(index, picture)
    assert mended.hits == before.hits and mended.notes == []


def test_the_next_run_rebuilds_a_bad_faiss_file_too(index, gallery):
    recall_file(index).unlink()
    assert len(build(index.path, gallery).recall) == 1
    assert ask(index, gallery / "03.png").notes == []


# ------------------------------------------------------------------------------------------- the feature store


def spoil(index: IndexFolder, table: bytes, content_id: int, space: KnownSpace | None = None, shard: int = 0) -> None:
    """Alter a record; in the only space where none is given."""
    if space is None:
        (space,) = Searcher(index.path).spaces()
    folder = index.shard(space.fingerprint, shard)
    with lmdb.open(str(folder), max_dbs=2) as environment, environment.begin(write=True) as transaction:
        records = environment.open_db(table, txn=transaction)
        key = content_id.to_bytes(8, "big")
        record = bytearray(transaction.get(key, db=records))
        record[-1] ^= 0xFF
        transaction.put(key, bytes(record), db=records)


@pytest.mark.parametrize("table", [b"tokens", b"descriptors"])
def test_a_damaged_record_is_left_out_found_and_extracted_again(index, gallery, table):
    picture = gallery / "03.png"
    before = ask(index, picture)
    spoiled = before.hits[3]
    spoil(index, table, spoiled.content_id)
    damaged = ask(index, picture)
    hidden = 1 if table == b"tokens" else 0  # the FAISS file still has the descriptor
    assert len(damaged.hits) == 12 - hidden and len(damaged.notes) == hidden
    itself = ask(index, Path(spoiled.path)).hits  # its features are extracted for the question
    assert (itself[0].path == spoiled.path) == (table == b"descriptors")
    assert check(index).damaged == [spoiled.content_id]
    assert len(ask(index, picture).hits) == 11
    assert build(index.path, gallery).extracted == 1
    mended = ask(index, picture)
    assert mended.notes == [] and [hit.path for hit in mended.hits] == [hit.path for hit in before.hits]
    checked = check(index)
    assert (checked.pictures, checked.damaged) == (12, [])


def test_a_lost_feature_store_is_extracted_again(index, gallery):
    before = ask(index, gallery / "03.png")
    (space,) = Searcher(index.path).spaces()
    shutil.rmtree(index.space(space.fingerprint) / "shards")
    assert len(check(index).damaged) == 12
    assert build(index.path, gallery).extracted == 12
    assert [hit.path for hit in ask(index, gallery / "03.png").hits] == [hit.path for hit in before.hits]


def test_a_kit_that_was_altered_is_refused(index, gallery):
    (space,) = Searcher(index.path).spaces()
    flip_a_byte(index.space(space.fingerprint) / "space.safetensors")
    (index.space(space.fingerprint) / "space.json").write_text("{}")
    for use in (lambda: ask(index, gallery / "03.png"), lambda: check(index), lambda: build(index.path, gallery)):
        with pytest.raises(DamagedKit):
            use()


# ------------------------------------------------------------------------------------------- the catalog


def test_an_older_catalog_makes_orphans_that_are_never_read(index, gallery, tmp_path):
    """The ids that the older copy gives again belong to other pictures now."""
    older = (index.path / "catalog.sqlite").read_bytes()
    before = ask(index, gallery / "03.png").hits
    more = tmp_path / "more"
    draw(more, range(40, 46))
    build(index.path, more)
    (index.path / "catalog.sqlite").write_bytes(older)
    assert ask(index, gallery / "03.png").hits == before
    checked = check(index)
    assert (checked.pictures, checked.damaged, checked.orphans) == (12, [], 6)
    shutil.rmtree(more)
    draw(more, range(50, 54))
    assert build(index.path, more).extracted == 4
    hits = ask(index, more / "50.png").hits
    assert hits[0].path == str(more / "50.png") and len(hits) == 16
    assert check(index).orphans == 2
    prune_index(index, MEMORY)
    checked = check(index)
    assert (checked.pictures, checked.damaged, checked.orphans) == (16, [], 0)


def test_records_of_other_pictures_under_the_same_ids_are_never_read(index, gallery, tmp_path):
    """A newer catalog comes back after an older one had its ids given to other pictures."""
    older = (index.path / "catalog.sqlite").read_bytes()
    draw(tmp_path / "first", range(40, 46))
    build(index.path, tmp_path / "first")
    newer = (index.path / "catalog.sqlite").read_bytes()
    (index.path / "catalog.sqlite").write_bytes(older)
    draw(tmp_path / "second", range(50, 54))
    build(index.path, tmp_path / "second")
    (index.path / "catalog.sqlite").write_bytes(newer)
    lost = [str(tmp_path / "first" / f"{number}.png") for number in range(40, 44)]
    hits = ask(index, tmp_path / "first" / "44.png").hits
    assert hits[0].path == str(tmp_path / "first" / "44.png") and len(hits) == 14
    assert not {hit.path for hit in hits} & set(lost)
    assert len(check(index).damaged) == 4
    assert build(index.path, tmp_path / "first").extracted == 4
    assert ask(index, Path(lost[0])).hits[0].path == lost[0]


def test_a_catalog_that_lost_its_folders_is_said_so(index):
    path = index.path / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(CatalogDamaged, match="restore it from a backup"):
        verify_index(index, MEMORY)


def root_page(path: Path, name: str) -> int:
    """Where the first page of a table or an index begins."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return (page - 1) * 4096


@pytest.mark.parametrize(
    "broken", ["ix_files_content_id", "sqlite_autoindex_files_1", "files", "contents", "features", "changes", "shards"]
)
def test_verify_rebuilds_a_catalog_with_a_broken_page(index, gallery, broken):
    before = ask(index, gallery / "03.png").hits
    path = index.path / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    place = root_page(path, broken)
    data[place : place + 40] = b"\x7f" * 40
    path.write_bytes(data)
    assert verify_index(index, MEMORY).fault
    build(index.path, gallery)
    assert [(hit.path, hit.score) for hit in ask(index, gallery / "03.png").hits] == [
        (hit.path, pytest.approx(hit.score, abs=2e-6)) for hit in before
    ]
    assert verify_index(index, MEMORY).fault is None
    assert not list(index.path.glob("*.part*"))


def change_row(index: IndexFolder, statement: str, *indexes: str) -> None:
    """Change rows while these indexes keep what they said before: what a flipped bit does."""
    with closing(sqlite3.connect(index.path / "catalog.sqlite")) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        kept = [
            connection.execute("SELECT * FROM sqlite_master WHERE name = ?", (name,)).fetchone() for name in indexes
        ]
        connection.executemany("DELETE FROM sqlite_master WHERE name = ?", [(name,) for name in indexes])
    with closing(sqlite3.connect(index.path / "catalog.sqlite")) as connection, connection:
        connection.execute(statement)
        connection.execute("PRAGMA writable_schema = ON")
        connection.executemany("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", kept)


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        ("UPDATE files SET content_id = 2 WHERE content_id = 5", ["ix_files_content_id", "ix_files_present"]),
        ("UPDATE files SET content_id = 2 WHERE content_id = 5", []),
        ("UPDATE files SET path = CAST('nowhere.png' AS BLOB) WHERE content_id = 2", []),
        ("UPDATE contents SET width = 1 WHERE id = 3", []),
        ("UPDATE contents SET shard = 7 WHERE id = 3", []),
        ("UPDATE generation SET value = 1", []),
        ("UPDATE generation SET value = 'one'", []),
        ("UPDATE shards SET number = 4", []),
        ("UPDATE roots SET path = CAST('/elsewhere' AS BLOB)", []),
        ("DELETE FROM features WHERE content_id = 3", ["ix_features_content_id"]),
    ],
)
def test_a_row_that_was_altered_is_found_and_mended(index, gallery, statement, indexes):
    before = {hit.path: hit.score for hit in ask(index, gallery / "03.png").hits}
    change_row(index, statement, *indexes)
    try:
        answer = ask(index, gallery / "03.png")
    except CatalogDamaged as problem:
        assert "run `diffsim verify`" in str(problem)
    else:
        for hit in answer.hits:
            assert hit.score == pytest.approx(before[hit.path], abs=2e-6)
    assert verify_index(index, MEMORY).fault
    build(index.path, gallery)
    assert {hit.path: pytest.approx(hit.score, abs=2e-6) for hit in ask(index, gallery / "03.png").hits} == before
    assert verify_index(index, MEMORY).fault is None


def test_a_hit_of_which_the_row_is_damaged_is_noted(index, gallery):
    change_row(index, "UPDATE files SET content_id = 2 WHERE content_id = 5")
    answer = ask(index, gallery / "03.png")
    assert len(answer.hits) == 11  # one lost its file, the other has two of which one is damaged
    (note,) = answer.notes
    assert "rows of 1 pictures are damaged" in note and "diffsim verify" in note
    ran = diffsim("verify", "--index", index.path)
    assert ran.code == 1 and ran.out.startswith(b"catalog: damaged (the checksum of file ")
    assert diffsim("index", "--index", index.path).code == 0
    assert diffsim("verify", "--index", index.path).out.endswith(b"clean\n")


def test_the_damaged_row_of_a_copy_is_noted_too(index, gallery, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.copy(gallery / "03.png", tmp_path / "more" / "copy.png")
    build(index.path, tmp_path / "more")
    change_row(index, "UPDATE files SET path = CAST('nowhere.png' AS BLOB) WHERE path = CAST('copy.png' AS BLOB)")
    with Searcher(index.path, "cpu") as searcher:
        answer = searcher.answer(Query(gallery / "03.png", k=100))
    assert len(answer.hits) == 11
    assert ["rows of 1 pictures are damaged" in note for note in answer.notes] == [True]


def test_what_a_folder_leaves_out_stays_when_the_catalog_is_rebuilt(index, gallery):
    exclusive = replace(FAST, exclude=["private/", "*.gif"], include_hidden=True)
    build(index.path, gallery, options=exclusive)
    with index.catalog(readonly=True) as catalog:
        before = catalog.roots()
    change_row(index, "UPDATE contents SET width = 1 WHERE id = 3")
    assert verify_index(index, MEMORY).fault
    with index.catalog(readonly=True) as catalog:
        assert catalog.roots() == before
    assert (before[0].left_out, before[0].include_hidden) == (("private/", "*.gif"), True)


def test_what_a_folder_leaves_out_is_read_by_verify_too(index, gallery):
    change_row(index, "UPDATE roots SET left_out = CAST(x'ff' AS TEXT)")
    with pytest.raises(CatalogDamaged, match="run `diffsim verify`"):
        build(index.path, gallery)
    assert verify_index(index, MEMORY).fault
    assert verify_index(index, MEMORY).fault is None


def test_a_hash_that_leads_to_another_content_is_no_answer(index, gallery):
    """Else a question by an indexed picture would be asked with another one's features."""
    path, picture = index.path / "catalog.sqlite", gallery / "03.png"
    data = bytearray(path.read_bytes())
    place = data.index(hashlib.sha256(picture.read_bytes()).digest(), root_page(path, "contents"))
    assert place < root_page(path, "contents") + 4096  # in the row, not in its index
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CatalogDamaged, match=r"another hash.* run `diffsim verify`"):
        ask(index, picture)
