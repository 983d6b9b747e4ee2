"""Forgetting what is named: a feature space, or a folder that is gone for good; also when that is broken off."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import TINY
from indexing import FAST, build, copy_index, diffsim, draw, problem

from benchmarks.kills import in_child
from diffsim.indexer.build import index_folders
from diffsim.indexer.choose import UnknownSpace
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import UnknownFolder, prune_index, verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Searcher

MEMORY = 2**30
REQUESTS = requested_spaces(str(TINY), ["style", "look"], size=64, tier="fp32")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with six pictures each, one of them in both, in two spaces."""
    work = tmp_path_factory.mktemp("prune")
    draw(work / "first", range(6))
    draw(work / "second", range(5, 11))
    index_folders(IndexFolder.create(work / "index"), [work / "first", work / "second"], REQUESTS, FAST)
    return work


@pytest.fixture
def index(built: Path, tmp_path: Path) -> IndexFolder:
    return IndexFolder.open(copy_index(built / "index", tmp_path / "index"))


def fingerprints(index: IndexFolder) -> dict[str, str]:
    with Searcher(index.path) as searcher:
        return {space.name.partition("/")[2]: space.fingerprint for space in searcher.spaces()}


def folders_of(index: IndexFolder) -> set[str]:
    return set(os.listdir(index.path / "spaces"))


def found(index: IndexFolder, picture: Path, space: str) -> list[str]:
    with Searcher(index.path, "cpu") as searcher:
        return [hit.path for hit in searcher.search(picture, spaces=space, k=100, include_self=True)]


# ------------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize("by", ["name", "last part", "fingerprint", "beginning"])
def test_a_space_is_forgotten(index, built, by):
    names = fingerprints(index)
    style, look = names["style"], names["look"]
    before = found(index, built / "first" / "03.png", "look")
    wanted = {"name": "tiny-sd15/style", "last part": "style", "fingerprint": style, "beginning": style[:7]}[by]
    pruned = prune_index(index, MEMORY, [wanted, style])
    assert [(gone.space.fingerprint, gone.pictures) for gone in pruned.spaces] == [(style, 11)]
    assert (pruned.files, pruned.pictures, pruned.folders) == (0, 0, [])
    assert fingerprints(index) == {"look": look} and folders_of(index) == {look}
    assert found(index, built / "first" / "03.png", "look") == before
    (checked,) = verify_index(index, MEMORY).spaces
    assert (checked.pictures, checked.damaged, checked.orphans, checked.rebuilt) == (11, [], 0, False)
    assert index_folders(index, [], REQUESTS[:1], FAST).extracted == 11
    assert len(found(index, built / "first" / "03.png", "style")) == 11


def test_a_space_whose_files_are_damaged_can_be_forgotten(index):
    style = fingerprints(index)["style"]
    (index.space(style) / "space.json").write_text("{}")
    shutil.rmtree(index.space(style) / "shards")
    prune_index(index, MEMORY, ["style"])
    assert len(verify_index(index, MEMORY).spaces) == 1


def test_missing_files_are_not_forgotten_by_the_way(index, built, tmp_path):
    gallery = Path(shutil.copytree(built / "first", tmp_path / "gallery"))
    build(index.path, gallery)
    (gallery / "00.png").unlink()
    build(index.path, gallery)
    assert prune_index(index, MEMORY, ["style"]).files == 0
    pruned = prune_index(index, MEMORY)
    assert (pruned.files, pruned.spaces, pruned.folders) == (1, [], [])


def test_what_is_unknown_is_listed_and_nothing_is_forgotten(index, built):
    with pytest.raises(UnknownSpace, match=r"'looks' is no feature space .*tiny-sd15/style \(.*tiny-sd15/look \("):
        prune_index(index, MEMORY, ["style", "looks"])
    with pytest.raises(UnknownFolder, match=f"{built}/third is no folder .*: {built}/first, {built}/second"):
        prune_index(index, MEMORY, ["style"], [built / "third"])
    with pytest.raises(UnknownFolder):
        prune_index(index, MEMORY, [], [built / "first", built])
    assert len(fingerprints(index)) == 2 and len(found(index, built / "first" / "03.png", "look")) == 11


def test_of_two_spaces_of_one_name_the_fingerprint_must_be_given(index, built):
    index_folders(index, [], requested_spaces(str(TINY), ["look"], size=64, tier="int8"), FAST)
    with pytest.raises(UnknownSpace, match="several feature spaces"):
        prune_index(index, MEMORY, ["tiny-sd15/look"])
    assert len(folders_of(index)) == 3


# ------------------------------------------------------------------------------------------- folders


def test_a_folder_that_is_gone_for_good(built, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(built / name, tmp_path / name)
    index = IndexFolder.create(tmp_path / "index")
    index_folders(index, [tmp_path / "first", tmp_path / "second"], REQUESTS, FAST)
    shutil.rmtree(tmp_path / "second")
    assert index_folders(index, [], [], FAST).account.offline == 6
    (gone,) = prune_index(index, MEMORY, folders=[tmp_path / "second"]).folders
    assert (gone.root.path, gone.files, gone.pictures) == (os.fsencode(tmp_path / "second"), 6, 5)
    report = index_folders(index, [], [], FAST)
    assert (report.account.offline, report.account.indexed, report.offline) == (0, 6, [])
    for space in ("style", "look"):
        assert len(found(index, tmp_path / "first" / "05.png", space)) == 6
    assert [(space.pictures, space.orphans) for space in verify_index(index, MEMORY).spaces] == [(6, 0), (6, 0)]


def test_the_command_says_what_it_forgot(index, built, monkeypatch):
    monkeypatch.chdir(built)
    style = fingerprints(index)["style"]
    ran = diffsim("prune", "--space", "style", "--folder", "second/", "--index", index.path)
    assert ran.out.decode().splitlines() == [
        f"forgot the space tiny-sd15/style ({style}) with 11 pictures",
        f"forgot the folder {built}/second with 6 files and 5 pictures",
    ]
    assert "choose one of: tiny-sd15/look (" in problem(diffsim("prune", "--space", "style", "--index", index.path))
    text = problem(diffsim("prune", "--folder", "second", "--index", index.path))
    assert text == f"second is no folder of this index; choose one of: {built}/first."
    assert len(list((built / "second").iterdir())) == 6


# ------------------------------------------------------------------------------------------- broken off


def killed_at(index: IndexFolder, step: str, spaces: list[str], folders: list[Path]) -> None:
    def on_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    child = in_child(lambda: prune_index(index, MEMORY, spaces, folders, on_step=on_step))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_killed_between_the_catalog_and_the_folder_of_a_space(index, built):
    names = fingerprints(index)
    before = found(index, built / "first" / "03.png", "look")
    killed_at(index, "catalog committed", ["style"], [])
    assert folders_of(index) == set(names.values()) and fingerprints(index) == {"look": names["look"]}
    assert found(index, built / "first" / "03.png", "look") == before
    assert verify_index(index, MEMORY).strays == [index.space(names["style"])]
    ran = diffsim("verify", "--index", index.path)
    assert ran.code == 0 and b"1 forgotten spaces or shards on disk (harmless); `diffsim prune` removes them" in ran.out
    own_copy = shutil.copytree(index.space(names["look"]), index.path / "spaces" / "my backup")
    prune_index(index, MEMORY)
    assert folders_of(index) == {names["look"], own_copy.name}
    assert verify_index(index, MEMORY).strays == []


def test_a_space_that_was_half_forgotten_can_be_made_again(index, built):
    names = fingerprints(index)
    before = found(index, built / "first" / "03.png", "style")
    killed_at(index, "catalog committed", ["style"], [])
    assert index_folders(index, [], REQUESTS[:1], FAST).extracted == 11
    assert fingerprints(index) == names and found(index, built / "first" / "03.png", "style") == before
    found_now = verify_index(index, MEMORY)
    assert found_now.strays == [] and all(not space.damaged and not space.orphans for space in found_now.spaces)


@pytest.mark.parametrize("step", ["catalog committed", "store cleaned"])
def test_killed_while_a_folder_is_forgotten(index, built, step):
    killed_at(index, step, [], [built / "second"])
    assert len(found(index, built / "first" / "03.png", "look")) == 6
    assert any(space.orphans == 5 for space in verify_index(index, MEMORY).spaces)
    prune_index(index, MEMORY)
    assert [(space.pictures, space.orphans) for space in verify_index(index, MEMORY).spaces] == [(6, 0), (6, 0)]
