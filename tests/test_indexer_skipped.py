"""A network that changed or is gone costs its own feature space new pictures, and nothing else."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from indexing import FAST, build, copy_index, diffsim, draw, problem
from safetensors.torch import load_file, save_file

from diffsim.db.catalog import KnownSpace
from diffsim.indexer.build import IndexReport, index_folders
from diffsim.indexer.estimate import estimate
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.indexer.skipped import reason
from diffsim.query.search import Query, Searcher
from diffsim.retrieval.families import UnknownModel
from diffsim.retrieval.networks import BadNetwork
from diffsim.retrieval.space import SpaceMismatch


def change_weights(network: Path) -> None:
    weights = network / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 0.1
    save_file(tensors, weights)


def cut_weights(network: Path) -> None:
    weights = network / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


REASONS = {
    change_weights: "the weights of the network {} are not those that it was made with",
    shutil.rmtree: "the network {} is not on this machine",
    cut_weights: "the network {} cannot be loaded (",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, an index with two spaces of two networks, and the second network."""
    work = tmp_path_factory.mktemp("skipped")
    draw(work / "pictures", range(12))
    shutil.copytree(TINY, work / "other")
    time.sleep(2.1)  # else the files are too young for a dry run to trust their stat
    build(work / "index", work / "pictures")
    requests = requested_spaces(str(work / "other"), ["look"], size=64)
    index_folders(IndexFolder.open(work / "index"), [work / "pictures"], requests, FAST)
    return work


@pytest.fixture
def network(built: Path) -> Iterator[Path]:
    yield built / "other"
    shutil.rmtree(built / "other", ignore_errors=True)
    shutil.copytree(TINY, built / "other")


@pytest.fixture
def gallery(built: Path) -> Iterator[Path]:
    """The pictures, and three more that nobody has indexed."""
    draw(built / "pictures", range(20, 23))
    yield built / "pictures"
    for new in (built / "pictures").glob("2?.png"):
        new.unlink()


@pytest.fixture
def index(built: Path, gallery: Path, network: Path, tmp_path: Path) -> IndexFolder:
    return IndexFolder.open(copy_index(built / "index", tmp_path / "index"))


def run(index: IndexFolder) -> IndexReport:
    return index_folders(index, [], (), FAST)


@pytest.mark.parametrize("harm", REASONS)
def test_the_space_is_skipped_and_the_others_go_on(index, network, gallery, harm):
    harm(network)
    dry = estimate(index.path, [], [], FAST)
    report = run(index)
    (skipped,) = report.skipped
    text = str(skipped)
    assert text.startswith(f"other/look ({skipped.space.fingerprint}) was left out and lacks 3 pictures: ")
    assert REASONS[harm].format(network) in text
    for way_out in ("searchable", "`diffsim index --by ...`", f"`diffsim prune --space {skipped.space.fingerprint}`"):
        assert way_out in text
    assert report.extracted == 3 and len(report.spaces) == 2
    assert (report.account.on_disk, report.account.indexed, report.account.waiting) == (15, 12, 3)
    searcher = Searcher(index.path, "cpu")
    assert searcher.answer(Query(gallery / "21.png", "tiny-sd15/look")).pictures == 15
    assert searcher.answer(Query(gallery / "03.png", "other/look")).pictures == 12
    assert dry.skipped == report.skipped and (dry.pictures, dry.todo) == (15, 3)


@pytest.mark.parametrize("harm", REASONS)
def test_a_space_that_lacks_nothing_is_no_matter(index, network, harm):
    assert run(index).skipped == []
    harm(network)
    report = run(index)
    assert report.skipped == [] and (report.account.indexed, report.account.waiting) == (15, 0)


def test_only_the_lacking_one_of_two_spaces_of_a_network_is_named(index, network, gallery):
    for new in gallery.glob("2?.png"):
        new.unlink()
    with pytest.raises(KeyboardInterrupt):
        index_folders(
            index,
            [],
            requested_spaces(str(network), ["style"], size=64),
            replace(FAST, commit_seconds=0),
            on_progress=lambda done, total: (_ for _ in ()).throw(KeyboardInterrupt) if done >= 8 else None,
        )
    change_weights(network)
    dry = estimate(index.path, [], [], FAST)
    for skipped in (dry.skipped, run(index).skipped):
        assert [each.space.name for each in skipped] == ["other/style"]


def test_where_every_space_is_skipped_the_scan_is_still_whole(pictures, tmp_path):
    network = shutil.copytree(TINY, tmp_path / "network")
    alone = IndexFolder.create(tmp_path / "alone")
    index_folders(alone, [pictures], requested_spaces(str(network), ["look"], size=64), FAST)
    change_weights(network)
    (pictures / "00.png").unlink()
    (pictures / "01.png").rename(pictures / "moved.png")
    random_picture(90).save(pictures / "new.png")
    report = run(alone)
    assert report.extracted == 0 and [skipped.waiting for skipped in report.skipped] == [1]
    account = report.account
    assert (account.new, account.moved, account.missing, account.indexed, account.waiting) == (1, 1, 1, 11, 1)
    with Searcher(alone.path) as searcher:
        assert str(pictures / "moved.png") in [hit.path for hit in searcher.search(pictures / "02.png", k=100)]


def test_a_network_that_moved_is_found_again_where_it_is_given(index, network, tmp_path):
    elsewhere = shutil.move(network, tmp_path / "elsewhere")
    assert [skipped.waiting for skipped in run(index).skipped] == [3]
    report = index_folders(index, [], requested_spaces(str(elsewhere), ["look"], size=64), FAST)
    assert [space.known.name for space in report.spaces] == ["other/look"] and report.extracted == 3
    again = run(index)
    assert again.skipped == [] and again.account.indexed == 15 and len(again.spaces) == 2
    random_picture(77).save(tmp_path / "outside.png")
    assert len(Searcher(index.path, "cpu").search(tmp_path / "outside.png", spaces="other/look")) == 10


def test_a_space_with_an_ip_adapter_names_it():
    space = KnownSpace(1, "f1", "sd15/look-C", "sd15", "plus", "{}", "2025-01-01")
    both = "the network sd15 with the IP-Adapter plus"
    assert reason(space, SpaceMismatch("f1", "/sd15")) == (f"the weights of {both} are not those that it was made with")
    assert reason(space, UnknownModel("There is none.")) == (
        f"{both} is not on this machine (fetch it, or give a copy with --model FOLDER --ip-adapter FOLDER)"
    )
    assert reason(space, BadNetwork("A is bad.")) == f"{both} cannot be loaded (A is bad)"


def test_a_space_that_is_asked_for_is_not_skipped(index, network):
    cut_weights(network)
    for run_it in (
        lambda: index_folders(index, [], requested_spaces(str(network), ["look"], size=64), FAST),
        lambda: estimate(index.path, [], requested_spaces(str(network), ["look"], size=64), FAST),
    ):
        with pytest.raises(BadNetwork):
            run_it()


def test_the_whole_way_out_through_the_command(index, network, tmp_path):
    random_picture(77).save(tmp_path / "outside.png")
    change_weights(network)
    cpu = ("--index", index.path, "--device", "cpu")
    dry = diffsim("index", "--dry-run", *cpu).out.decode().splitlines()
    ran = diffsim("index", *cpu)
    assert ran.code == 0, ran
    lines = ran.out.decode().splitlines()
    assert lines[:3] == [
        "on disk  15 = 3 new + 12 unchanged",
        "known    12 = 12 indexed + 0 missing + 0 offline",
        "waiting  3 files are not in every feature space",
    ]
    assert lines[3].startswith("skipped  other/look (") and lines[3] == dry[2] and len(dry) == 3

    old = lines[3].split("(")[1].split(")")[0]
    text = problem(diffsim("query", tmp_path / "outside.png", "--space", old, *cpu))
    assert text.startswith(
        f"The weights of the network {network} differ from those that the feature space {old} was made"
    )
    assert text.count(". ") == 0 and "indexed picture" in text and "diffsim index --by" in text

    assert diffsim("index", "--model", network, "--size", "64", *cpu).code == 0
    asked = diffsim("query", tmp_path / "outside.png", "--space", "other/look", *cpu)
    assert asked.code == 0 and "other/look: 15 pictures" in asked.err
    status = diffsim("status", "--index", index.path).out.decode()
    assert f"replaced by {newest(index)}; `diffsim prune --space {old}` forgets it" in status
    assert f"({newest(index)}): 15 files, 15 pictures\n         answers for the name other/look" in status

    assert diffsim("prune", "--space", old, *cpu[:2]).out.decode() == (
        f"forgot the space other/look ({old}) with 12 pictures\n"
    )
    again = diffsim("index", *cpu).out
    assert b"15 indexed" in again and b"skipped" not in again and b"waiting" not in again


def newest(index: IndexFolder) -> str:
    with index.catalog(readonly=True) as catalog:
        return catalog.spaces()[-1].fingerprint
