"""An index of several shards: each has its own store and its own FAISS file, and is kept on its own."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from indexing import FAST, build, copy_index, diffsim, draw, problem
from test_indexer_maintain import spoil

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.shards import KnownShard
from diffsim.indexer import hashing, recall_files
from diffsim.indexer.build import IndexReport, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import prune_index, verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Query, Searcher

MEMORY = 2**30
REQUESTS = requested_spaces(str(TINY), ["style", "look"], size=64, tier="fp32")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, five a shard, in two spaces."""
    work = tmp_path_factory.mktemp("shards")
    draw(work / "pictures", range(12))
    index_folders(IndexFolder.create(work / "index"), [work / "pictures"], REQUESTS, replace(FAST, shard_pictures=5))
    return work


@pytest.fixture
def pictures(built: Path, tmp_path: Path) -> Path:
    """A copy of the folder, which may be changed. The index knows these pictures by another path."""
    return Path(shutil.copytree(built / "pictures", tmp_path / "pictures"))


@pytest.fixture
def index(built: Path, pictures: Path, tmp_path: Path) -> IndexFolder:
    """A copy of the index, of these pictures and no others."""
    index = IndexFolder.open(copy_index(built / "index", tmp_path / "index"))
    assert run(index, pictures).extracted == 0
    prune_index(index, MEMORY, folders=[built / "pictures"])
    return index


def run(index: IndexFolder, *folders: Path) -> IndexReport:
    return index_folders(index, folders, (), FAST)


def spaces_of(index: IndexFolder) -> list[KnownSpace]:
    with index.catalog(readonly=True) as catalog:
        return catalog.spaces()


def files_of(index: IndexFolder) -> dict[tuple[str, int], tuple[int, int]]:
    """Every FAISS file by space and shard, with what tells whether it was written anew."""
    files = {}
    for path in sorted(index.path.glob("spaces/*/shards/*/recall-*.faiss")):
        files[path.parents[2].name, int(path.parent.name)] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return files


def recorded(index: IndexFolder) -> dict[tuple[str, int], int]:
    """The generation that each FAISS file covers."""
    with index.catalog(readonly=True) as catalog:
        spaces = catalog.spaces()
        return {
            (space.fingerprint, shard): file.generation
            for space in spaces
            for shard, file in catalog.recall_files(space.id).items()
        }


def generation(index: IndexFolder) -> int:
    with index.catalog(readonly=True) as catalog:
        return catalog.generation()


@pytest.mark.parametrize("capacity", [1, 5])
def test_every_picture_lies_in_its_shard_in_every_space(built, tmp_path, capacity):
    index = IndexFolder.create(tmp_path / "index")
    report = index_folders(index, [built / "pictures"], REQUESTS, replace(FAST, shard_pictures=capacity))
    numbers = range(-(-12 // capacity))
    assert report.extracted == 12 and len(report.recall) == 2 * len(numbers)
    assert sum(file.pictures for file in report.recall) == 24
    assert sorted({file.shard for file in report.recall}) == list(numbers)
    with index.catalog(readonly=True) as catalog:
        assert catalog.shards() == [KnownShard(number, capacity) for number in numbers]
    for space in spaces_of(index):
        for number in numbers:
            with index.store(space.fingerprint, number, readonly=True) as store:
                assert store.ids().tolist() == [n + 1 for n in range(12) if n // capacity == number]
        assert not (index.space(space.fingerprint) / "recall.faiss").exists()
    assert files_of(index).keys() == recorded(index).keys()
    for checked in verify_index(index, MEMORY).spaces:
        assert (checked.pictures, checked.damaged, checked.orphans, checked.rebuilt) == (12, [], 0, False)


def test_answers_are_those_of_one_shard(built, tmp_path):
    build(tmp_path / "one", built / "pictures")
    with Searcher(built / "index", "cpu") as several, Searcher(tmp_path / "one", "cpu") as one:
        for number in (0, 4, 11):
            query = Query(built / "pictures" / f"{number:02d}.png", spaces="look", k=100, include_self=True)
            ours, theirs = several.answer(query).hits, one.answer(query).hits
            assert [hit.path for hit in ours] == [hit.path for hit in theirs]
            assert np.allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=1e-5)


# ------------------------------------------------------------------------------------------- FAISS files


def test_a_sealed_shard_keeps_its_file_while_others_grow(index, pictures):
    before = files_of(index)
    draw(pictures, range(20, 30))
    report = run(index)
    assert report.extracted == 10
    assert sorted((file.space.id, file.shard, file.pictures) for file in report.recall) == [
        (space, shard, pictures) for space in (1, 2) for shard, pictures in ((2, 5), (3, 5), (4, 2))
    ]
    after = files_of(index)
    assert all(after[file] == before[file] for file in before if file[1] < 2)
    assert all(after[file] != before[file] for file in before if file[1] == 2)


def test_a_run_with_nothing_to_do_commits_nothing_and_reads_no_picture(index, monkeypatch):
    monkeypatch.setattr(hashing, "RACY_NS", 0)  # as if all files were old
    run(index)
    before, files = generation(index), files_of(index)

    def read(*_: object) -> None:
        raise AssertionError("the pictures of a space were read")

    monkeypatch.setattr(Catalog, "space_changes", read)
    for _ in range(2):
        report = run(index)
        assert report.extracted == 0 and report.recall == []
        assert (generation(index), files_of(index)) == (before, files)


def test_the_generation_of_an_untouched_shard_moves_on(index, pictures):
    """Else readers would look through all that came since, to find that none of it is of this shard."""
    before = recorded(index)
    draw(pictures, range(20, 24))
    run(index)
    after = recorded(index)
    assert all(after[file] > generation for file, generation in before.items())
    with index.catalog(readonly=True) as catalog:
        for (fingerprint, shard), since in after.items():
            (space,) = (space.id for space in catalog.spaces() if space.fingerprint == fingerprint)
            found = catalog.space_changes(space, since, shard)
            assert not found.complete and len(found.ids) == len(found.gone) == 0


def test_what_changed_in_a_shard_is_not_said_to_be_covered(index, pictures, monkeypatch):
    """A single missing picture makes no file stale, but readers must hear of it."""
    monkeypatch.setattr(recall_files, "STALE_SHARE", 0.5)
    draw(pictures, range(20, 24))
    (pictures / "01.png").unlink()
    run(index)
    (space, _) = spaces_of(index)
    with index.catalog(readonly=True) as catalog:
        since = catalog.recall_files(space.id)[0].generation
        found = catalog.space_changes(space.id, since, 0)
        assert (found.ids.tolist(), found.visible.tolist()) == ([2], [False])


def test_a_shard_that_lost_a_tenth_of_its_own_is_built_anew(index, pictures):
    before = files_of(index)
    for number in (0, 11):  # in the first shard, of five pictures, and in the last, of two
        (pictures / f"{number:02d}.png").unlink()
    run(index)
    prune_index(index, MEMORY)
    after = files_of(index)
    assert {shard for (space, shard), file in after.items() if before[space, shard] != file} == {0, 2}
    checked, _ = verify_index(index, MEMORY).spaces
    assert (checked.pictures, checked.orphans, checked.rebuilt) == (10, 0, False)


def test_a_shard_that_lost_everything_has_no_file(index, pictures):
    for number in range(5):
        (pictures / f"{number:02d}.png").unlink()
    run(index)
    prune_index(index, MEMORY)
    assert {shard for _, shard in files_of(index)} == {shard for _, shard in recorded(index)} == {1, 2}
    assert run(index).recall == []
    draw(pictures, range(5))  # they get new ids, in the newest shard
    assert run(index).extracted == 5
    assert {shard for _, shard in files_of(index)} == {1, 2, 3}


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x")])
def test_only_a_bad_file_is_built_anew(index, harm):
    style, _ = spaces_of(index)
    before = files_of(index)
    (file,) = index.shard(style.fingerprint, 1).glob("recall-*.faiss")
    harm(file)
    report = run(index)
    assert [(file.space, file.shard) for file in report.recall] == [(style, 1)]
    after = files_of(index)
    assert {file for file in after if before[file] != after[file]} == {(style.fingerprint, 1)}


def test_the_memory_is_shared_by_the_shards(built, tmp_path):
    """A budget that has room for all descriptors at half precision, and each shard takes its part of it."""
    index = IndexFolder.create(tmp_path / "index")
    (request,) = requested_spaces(str(TINY), ["look"], size=64)
    options = replace(FAST, shard_pictures=5)
    report = index_folders(index, [built / "pictures"], [request], options)
    (dimensions,) = {2 * sum(channels for _, channels in space.kit.shapes) for space in report.spaces}
    for bytes_each, factory in ((2 * dimensions + 8, "SQfp16"), (2 * dimensions + 7, "SQ8")):
        index = IndexFolder.create(tmp_path / factory)
        report = index_folders(index, [built / "pictures"], [request], replace(options, memory=12 * bytes_each))
        assert [file.snapshot.factory for file in report.recall] == [factory] * 3


# ------------------------------------------------------------------------------------------- upkeep


def test_damage_is_found_in_its_shard(index):
    _, look = spaces_of(index)
    spoil(index, b"tokens", 7, space=look, shard=1)
    first, second = verify_index(index, MEMORY).spaces
    assert (first.damaged, second.damaged, second.pictures) == ([], [7], 11)
    assert run(index).extracted == 1
    assert [space.damaged for space in verify_index(index, MEMORY).spaces] == [[], []]


def test_orphans_are_counted_and_removed_shard_by_shard(index, pictures):
    for number in (0, 6, 11):
        (pictures / f"{number:02d}.png").unlink()
    run(index)
    with index.catalog() as catalog:  # as if prune had been broken off
        assert catalog.prune() == [1, 7, 12]
    assert [space.orphans for space in verify_index(index, MEMORY).spaces] == [3, 3]
    prune_index(index, MEMORY)
    assert [space.orphans for space in verify_index(index, MEMORY).spaces] == [0, 0]
    for space in spaces_of(index):
        held = []
        for shard in range(3):
            with index.store(space.fingerprint, shard, readonly=True) as store:
                held.append(store.ids().tolist())
        assert held == [[2, 3, 4, 5], [6, 8, 9, 10], [11]]


def test_shards_of_a_newer_catalog_are_strays(index, pictures, tmp_path):
    older = (index.path / "catalog.sqlite").read_bytes()
    draw(pictures, range(20, 30))
    run(index)
    (index.path / "catalog.sqlite").write_bytes(older)
    found = verify_index(index, MEMORY)
    strays = [index.shard(space.fingerprint, number) for space in spaces_of(index) for number in (3, 4)]
    assert found.strays == sorted(strays) and [space.orphans for space in found.spaces] == [3, 3]
    own_copy = shutil.copytree(strays[0], strays[0].with_name("my copy"))
    ran = diffsim("verify", "--index", index.path)
    assert ran.code == 0 and b"4 forgotten spaces or shards on disk (harmless)" in ran.out
    prune_index(index, MEMORY)
    assert verify_index(index, MEMORY).strays == [] and own_copy.exists()
    assert run(index).extracted == 10
    assert [(space.pictures, space.damaged) for space in verify_index(index, MEMORY).spaces] == [(22, []), (22, [])]


def test_a_new_space_of_an_index_with_several_shards(index, pictures):
    report = index_folders(index, [], requested_spaces(str(TINY), ["instance"], size=64), FAST)
    assert report.extracted == 12 and [file.shard for file in report.recall] == [0, 1, 2]
    assert [space.pictures for space in verify_index(index, MEMORY).spaces] == [12, 12, 12]


# ------------------------------------------------------------------------------------------- the size of a shard


def test_the_command_sets_the_size_and_it_is_remembered(pictures, tmp_path):
    index = tmp_path / "by command"
    made = ("index", "--model", TINY, "--size", "64", "--index", index, "--device", "cpu")
    text = diffsim(*made, pictures, "--shard-pictures", "0").err
    assert "0 is not in the range x>=1" in text and not index.exists()
    assert diffsim(*made, pictures, "--shard-pictures", "4").code == 0
    draw(pictures, range(40, 43))
    assert diffsim(*made).code == 0
    with IndexFolder.open(index).catalog(readonly=True) as catalog:
        assert catalog.shards() == [KnownShard(number, 4) for number in range(4)]
    random_picture(50).save(pictures / "50.png")
    assert diffsim(*made, "--shard-pictures", "2").code == 0
    with IndexFolder.open(index).catalog(readonly=True) as catalog:
        assert catalog.shards()[3:] == [KnownShard(3, 2), KnownShard(4, 2)]
        before = catalog.generation()
    assert diffsim(*made, "--shard-pictures", "2").code == 0
    with IndexFolder.open(index).catalog(readonly=True) as catalog:
        assert catalog.generation() <= before + 1  # the file that was too young is read once more
    assert os.listdir(index / "spaces") and problem(diffsim("index", tmp_path / "typo", "--index", index))
