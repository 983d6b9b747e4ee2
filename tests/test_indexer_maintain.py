"""Damage of every kind: answers stay right, `verify` finds it, the next run mends it."""

import shutil
import sqlite3
from pathlib import Path

import lmdb
import pytest
from indexing import build, copy_index, draw

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
    other = file.parents[3] / "other"
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


def test_a_broken_catalog_is_said_so(index):
    path = index.path / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(CatalogDamaged, match="restore it from a backup"):
        verify_index(index, MEMORY)


def test_quick_check_finds_what_queries_pass_over(index):
    """A page that no query of `verify` reads: an index of the files table."""
    path = index.path / "catalog.sqlite"
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_files_content_id'").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 + 8 : (page - 1) * 4096 + 40] = b"\x7f" * 32
    path.write_bytes(data)
    with pytest.raises(CatalogDamaged, match="restore it from a backup"):
        verify_index(index, MEMORY)
