"""An open Searcher: it reads the catalog's pictures again when something changed, and only then."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from indexing import FAST, build, draw
from sqlalchemy import event

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import prune_index, verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Query, Searcher

MEMORY = 2**30


@contextmanager
def statements(searcher: Searcher) -> Iterator[list[str]]:
    """The SQL that a searcher runs."""
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        seen.append(statement)

    engine = searcher.catalog._database._engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def full_reads(seen: list[str]) -> int:
    """How often all pictures of a space were read, not only those of later commits."""
    return sum("FROM features" in statement and "generation >" not in statement for statement in seen)


def changes_read(seen: list[str]) -> bool:
    return any("FROM features" in statement and "generation >" in statement for statement in seen)


@pytest.fixture
def index(pictures: Path, tmp_path: Path) -> Path:
    build(tmp_path / "index", pictures)
    return tmp_path / "index"


def test_an_unchanged_catalog_costs_no_full_read(index, pictures, tmp_path):
    random_picture(77).save(tmp_path / "outside.png")
    with Searcher(index, "cpu") as searcher:
        with statements(searcher) as seen:
            first = searcher.search(pictures / "03.png")
        assert changes_read(seen) and not full_reads(seen)
        for picture in (pictures / "03.png", pictures / "04.png", tmp_path / "outside.png"):
            with statements(searcher) as seen:
                searcher.search(picture)
            assert not changes_read(seen) and not full_reads(seen) and len(seen) > 0
        assert searcher.search(pictures / "03.png") == first


def test_names_shared_by_two_spaces_are_counted_once_too(index, pictures):
    folder = IndexFolder.open(index)
    index_folders(folder, [], requested_spaces(str(TINY), ["look"], size=64, tier="int8"), FAST)
    with Searcher(index) as searcher:
        searcher.search(pictures / "03.png", spaces="look")
        with statements(searcher) as seen:
            searcher.search(pictures / "04.png", spaces="look")
        assert not changes_read(seen) and not full_reads(seen)


def test_a_change_elsewhere_is_read_once_and_keeps_what_was_loaded(index, pictures):
    folder = IndexFolder.open(index)
    with Searcher(index) as searcher:
        searcher.search(pictures / "03.png")
        (space,) = searcher.spaces()
        (loaded,) = searcher.collection.parts(space.fingerprint)
        index_folders(folder, [], requested_spaces(str(TINY), ["style"], size=64, tier="fp32"), FAST)
        with statements(searcher) as seen:
            for _ in range(2):
                searcher.search(pictures / "03.png", spaces=[space.fingerprint])
        assert changes_read(seen) and not full_reads(seen)
        (after,) = searcher.collection.parts(space.fingerprint)
        assert after.blocks == loaded.blocks


def add(index: Path, pictures: Path) -> int:
    draw(pictures, range(30, 33))
    build(index, pictures)
    return 15


def lose(index: Path, pictures: Path) -> int:
    (pictures / "00.png").unlink()
    build(index, pictures)
    return 11


def come_back(index: Path, pictures: Path) -> int:
    shutil.move(pictures / "hidden.png", pictures / "01.png")
    build(index, pictures)
    return 12


def change(index: Path, pictures: Path) -> int:
    random_picture(50).save(pictures / "02.png")
    build(index, pictures)
    return 12


def spoil(index: Path, pictures: Path) -> int:
    (pictures / "02.png").write_text("no picture any more")
    build(index, pictures)
    return 11


def prune(index: Path, pictures: Path) -> int:
    lose(index, pictures)
    prune_index(IndexFolder.open(index), MEMORY)
    return 11


def forget_folder(index: Path, pictures: Path) -> int:
    more = pictures.with_name("more")
    draw(more, range(40, 44))
    build(index, more)
    prune_index(IndexFolder.open(index), MEMORY, folders=[pictures])
    return 4


def lose_the_store(index: Path, pictures: Path) -> int:
    shutil.rmtree(next((index / "spaces").iterdir()) / "shards")
    verify_index(IndexFolder.open(index), MEMORY)
    return 0


def by_another_process(index: Path, pictures: Path) -> int:
    draw(pictures, range(30, 32))
    # A fresh one: a forked one may not open the store that its parent has open.
    command = [sys.executable, "-m", "diffsim.query.cli", "index", "--index", str(index), "--device", "cpu"]
    subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, capture_output=True)
    return 14


def make_the_space_again(index: Path, pictures: Path) -> int:
    (pictures / "00.png").unlink()
    prune_index(IndexFolder.open(index), MEMORY, ["look"])
    build(index, pictures)
    return 11


@pytest.mark.parametrize(
    "what_happens",
    [
        add,
        lose,
        come_back,
        change,
        spoil,
        prune,
        forget_folder,
        lose_the_store,
        by_another_process,
        make_the_space_again,
    ],
)
def test_a_changed_catalog_is_noticed(pictures, tmp_path, what_happens: Callable[[Path, Path], int]):
    index = tmp_path / "index"
    build(index, pictures)
    if what_happens is come_back:
        shutil.move(pictures / "01.png", tmp_path / "hidden")
        build(index, pictures)
        shutil.move(tmp_path / "hidden", pictures / "hidden.png")
    with Searcher(index, "cpu") as warm:
        picture = Path(shutil.copy(pictures / "05.png", tmp_path / "asked.png"))
        warm.search(picture)
        expected = what_happens(index, pictures)
        with Searcher(index, "cpu") as fresh:
            query = Query(picture, k=100, include_self=True)
            ours, theirs = warm.answer(query), fresh.answer(query)
        assert ours == theirs and ours.pictures == expected


def test_a_rebuilt_faiss_file_is_noticed(index, pictures):
    with Searcher(index) as searcher:
        (space,) = searcher.spaces()
        next(searcher.index.space(space.fingerprint).glob("shards/*/recall-*.faiss")).unlink()
        assert len(searcher.answer(Query(pictures / "03.png")).notes) == 1
        verify_index(searcher.index, MEMORY)
        assert searcher.answer(Query(pictures / "03.png")).notes == []
