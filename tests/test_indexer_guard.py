"""An index folder that somebody altered, deleted or made to reach elsewhere: one sentence, and nothing outside it."""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from indexing import build, copy_index, diffsim, draw, problem

from diffsim.db.database import CatalogDamaged, CatalogUnavailable
from diffsim.indexer.index_folder import IndexAltered, IndexFolder, IndexGone, NoIndex
from diffsim.indexer.maintain import verify_index
from diffsim.query.search import Searcher
from diffsim.retrieval.kit import DamagedKit, SpaceKit
from diffsim.retrieval.shard.snapshot import Rows, build_snapshot

MEMORY = 2**30
NESTED = "[" * 100_000


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "pictures"
    draw(folder, range(6))
    return folder


@pytest.fixture(scope="module")
def built(gallery: Path) -> Path:
    build(gallery.parent / "index", gallery)
    return gallery.parent / "index"


@pytest.fixture
def index(built: Path, tmp_path: Path) -> IndexFolder:
    return IndexFolder.open(copy_index(built, tmp_path / "index"))


def space_of(index: IndexFolder) -> str:
    with index.catalog(readonly=True) as catalog:
        (space,) = catalog.spaces()
        return space.fingerprint


# ------------------------------------------------------------------------------------------- index.toml and JSON


@pytest.mark.parametrize(
    "text",
    [
        'format = 1\ncatalog = "sqlite:///catalpg.sqlite"\n',
        'format = 1\ncatalog = "sqlite:///./catalog.sqlite"\n',
        'format = 1\ncatalog = "sqlite:////etc/catalog.sqlite"\n',
        'format = 1\ncatalog = "sqlite:///../catalog.sqlite"\n',
        'format = 1\ncatalog = "sqlite+pysqlite:///catalog.sqlite"\n',
        'format = 1\ncatalog = "sqlitf:///catalog.sqlite"\n',
        'format = 1\ncatalog = "no address"\n',
        'format = 0\ncatalog = "sqlite:///catalog.sqlite"\n',
        'format = "one"\n',
        'fprmat = 1\ncatalog = "sqlite:///catalog.sqlite"\n',
        f"format = {NESTED}",
        "",
    ],
)
def test_an_altered_index_toml_is_one_sentence_and_begins_nothing_new(index, gallery, text):
    before = sorted(path.name for path in index.path.iterdir())
    (index.path / "index.toml").write_text(text)
    for use in (lambda: Searcher(index.path), lambda: build(index.path, gallery)):
        with pytest.raises((NoIndex, CatalogUnavailable), match=r"index\.toml"):
            use()
    assert {path.name for path in index.path.iterdir()} <= {*before, "writer.lock", "writer.json"}
    (index.path / "index.toml").write_text('format = 1\ncatalog = "sqlite:///catalog.sqlite"\n')  # as the sentence says
    assert build(index.path, gallery).extracted == 0


@pytest.mark.parametrize("text", ["[1]", "{}", "null", NESTED, '{"pid": ', ""])
def test_a_strange_writer_json_names_nobody(index, text):
    (index.path / "writer.json").write_text(text)
    assert index.writer() == "another process"


@pytest.mark.parametrize("text", ["[]", "{}", "7", NESTED, '{"space": 1, "tensors": 2, "shapes": 3}'])
def test_a_strange_space_json_is_a_damaged_kit(index, text):
    folder = index.space(space_of(index))
    (folder / "space.json").write_text(text)
    with pytest.raises(DamagedKit, match="restore that folder from a backup, or forget the space"):
        SpaceKit.load(folder)


def test_what_space_json_says_of_the_projections_is_checked(index):
    folder = index.space(space_of(index))
    details = json.loads((folder / "space.json").read_text())
    details["projections"][0]["heads"] = 1
    (folder / "space.json").write_text(json.dumps(details))
    with pytest.raises(DamagedKit, match="was altered"):
        SpaceKit.load(folder)


# ------------------------------------------------------------------------------------------- reaching elsewhere


LINKED = ["index.toml", "writer.json", "writer.lock", "catalog.sqlite", "catalog.sqlite-wal", "thumbnails", "spaces"]
LINKED += ["thumbnails/ab", "spaces/SPACE", "spaces/SPACE/space.json", "spaces/SPACE/space.json.part"]
LINKED += ["spaces/SPACE/recall.faiss", "spaces/SPACE/shards", "spaces/SPACE/shards/0000", "spaces/SPACE/shards/0001"]
LINKED += [f"spaces/SPACE/shards/0000/{name}" for name in ("data.mdb", "lock.mdb", "recall.faiss.part", "compact")]


@pytest.mark.parametrize("name", LINKED)
def test_a_link_anywhere_in_an_index_is_refused(index, tmp_path, gallery, name):
    place = index.path / name.replace("SPACE", space_of(index))
    elsewhere = tmp_path / "elsewhere"
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(elsewhere)
    else:
        elsewhere.write_text("mine")
    place.symlink_to(elsewhere)
    before = None if elsewhere.is_dir() else elsewhere.read_bytes()
    for use in (lambda: Searcher(index.path), lambda: build(index.path, gallery)):
        with pytest.raises(IndexAltered, match="symbolic link"):
            use()
    assert before is None or elsewhere.read_bytes() == before


@pytest.mark.parametrize("name", ["index.toml", "writer.json", "spaces/pipe"])
def test_a_pipe_in_an_index_is_refused_and_not_waited_for(index, name):
    (index.path / name).unlink(missing_ok=True)
    os.mkfifo(index.path / name)
    with pytest.raises(IndexAltered, match="pipe"):
        IndexFolder.open(index.path)


def test_a_part_that_was_left_as_a_link_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "index.toml.part").symlink_to(tmp_path / "mine")
    IndexFolder.create(tmp_path / "index")
    assert (tmp_path / "mine").read_text() == "mine"


def test_an_index_may_itself_be_reached_by_a_link(index, tmp_path):
    (tmp_path / "link").symlink_to(index.path)
    assert IndexFolder.open(tmp_path / "link")


def test_a_feature_space_cannot_be_named_as_a_path(index, tmp_path, gallery):
    victim = tmp_path / "victim"
    victim.mkdir()
    with closing(sqlite3.connect(index.path / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE spaces SET fingerprint = '../../victim'")
    for use in (lambda: build(index.path, gallery), lambda: verify_index(index, MEMORY)):
        with pytest.raises(IndexAltered, match=r"names a feature space '\.\./\.\./victim'"):
            use()
    assert not list(victim.iterdir())


def endless(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE changes")
    connection.execute(
        "CREATE VIEW changes AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        "SELECT x AS content_id, 0 AS shard, x AS generation FROM n"
    )


def another_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE files ADD COLUMN salary")


def another_program(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE letters (text)")


def with_a_trigger(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TRIGGER t AFTER UPDATE ON generation BEGIN DELETE FROM files; END")


@pytest.mark.parametrize("change", [endless, another_column, another_program, with_a_trigger])
def test_a_catalog_of_another_shape_is_refused_before_anything_is_written(index, gallery, change: Callable):
    path = index.path / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        change(connection)
    before = path.read_bytes()
    for use in (
        lambda: Searcher(index.path).spaces(),
        lambda: build(index.path, gallery),
        lambda: verify_index(index, MEMORY),
    ):
        with pytest.raises(CatalogDamaged, match="not a diffsim-search catalog; choose another index folder"):
            use()
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------- deleted, and full disks


@pytest.mark.parametrize("step", ["files committed", "features stored", "features committed"])
@pytest.mark.parametrize("gone", ["index", "index/catalog.sqlite"])
def test_an_index_that_is_deleted_during_a_run_is_an_error(gallery, tmp_path, step, gone):
    def delete(name: str) -> None:
        place = tmp_path / gone
        if name == step and place.exists():
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    with pytest.raises(IndexGone, match="run the same command again"):
        build(tmp_path / "index", gallery, on_step=delete)
    if gone == "index":
        assert not (tmp_path / "index").exists()
        assert build(tmp_path / "index", gallery).extracted == 6


def test_an_index_that_was_deleted_is_not_cleared_away_as_a_blank_one(tmp_path):
    with pytest.raises(IndexGone), IndexFolder.begin(tmp_path / "index") as index, index.writing():
        shutil.rmtree(index.path)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("part", ["recall.faiss.part", "recall.npy.part"])
def test_a_full_disk_at_the_faiss_file_is_a_full_disk(tmp_path, part):
    """/dev/full takes nothing."""
    (tmp_path / part).symlink_to("/dev/full")
    rows = Rows(np.arange(4), np.zeros((4, 32), np.uint8), np.ones(4, np.bool_))
    with pytest.raises(OSError) as full:
        build_snapshot(tmp_path, rows, np.ones((4, 8), np.float16), MEMORY)
    assert full.value.errno == errno.ENOSPC


def test_a_full_disk_at_the_kit_is_a_full_disk(index, tmp_path):
    kit = SpaceKit.load(index.space(space_of(index)))
    for name in ("space.safetensors.part", "space.json.part"):
        (tmp_path / "kit").mkdir()
        (tmp_path / "kit" / name).symlink_to("/dev/full")
        with pytest.raises(OSError) as full:
            kit.save(tmp_path / "kit")
        assert full.value.errno == errno.ENOSPC
        shutil.rmtree(tmp_path / "kit")


# ------------------------------------------------------------------------------------------- advice that is true


@pytest.mark.parametrize("length", [0, 5000, 20_000])
def test_a_store_that_was_cut_short_is_mended_as_the_sentence_says(index, gallery, length):
    data = index.shard(space_of(index), 0) / "data.mdb"
    with Searcher(index.path, "cpu") as searcher:
        before = {hit.path: pytest.approx(hit.score, abs=2e-6) for hit in searcher.search(gallery / "00.png")}
    os.truncate(data, length)
    for command in (("query", gallery / "00.png"), ("index",)):
        said = diffsim(*command, "--index", index.path)
        if command[0] == "query":
            assert "run `diffsim verify`" in problem(said) and "then `diffsim index`" in said.err
    assert diffsim("verify", "--index", index.path).code == 1
    assert diffsim("index", "--index", index.path).code == 0
    assert diffsim("verify", "--index", index.path).out.endswith(b"clean\n")
    with Searcher(index.path, "cpu") as searcher:
        assert {hit.path: hit.score for hit in searcher.search(gallery / "00.png")} == before


def test_a_snapshot_that_claims_to_know_more_than_it_does_is_built_again(index, gallery, tmp_path):
    draw(tmp_path / "one more", [30])
    build(index.path, tmp_path / "one more")
    with closing(sqlite3.connect(index.path / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE recall SET generation = (SELECT value FROM generation)")
    with Searcher(index.path, "cpu") as searcher:
        seen = len(searcher.search(gallery / "00.png", k=100, include_self=True))
    checked = verify_index(index, MEMORY).spaces[0]
    with Searcher(index.path, "cpu") as searcher:
        assert len(searcher.search(gallery / "00.png", k=100, include_self=True)) == 7
    assert seen == 7 or checked.rebuilt
