"""Every hostile or odd file through the real command: nothing is lost, nothing is shown that is not there."""

import csv
import json
import os
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from indexing import Ran, diffsim, unpack_nasty

from diffsim.query.search import BadQuery, Searcher
from diffsim.retrieval.pictures.images import UnreadableImage


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_nasty(tmp_path_factory.mktemp("nasty"))


@pytest.fixture(scope="module")
def indexed(nasty: Path) -> Ran:
    options = ("--index", nasty.parent / "index", "--model", TINY, "--size", "64", "--tier", "fp32", "--device", "cpu")
    return diffsim("index", nasty, *options)


@pytest.fixture(scope="module")
def searcher(nasty: Path, indexed: Ran) -> Searcher:
    assert indexed.code == 0, indexed
    return Searcher(nasty.parent / "index", "cpu")


def expectations(nasty: Path) -> dict[str, str]:
    with open(nasty / "expected.csv", encoding="utf-8", newline="") as file:
        rows = {row["file"]: row["should_index"] for row in csv.DictReader(file)}
    return {name.replace("\\xe9\\xff", "\udce9\udcff"): expected for name, expected in rows.items()}


def found_paths(searcher: Searcher, picture: Path) -> set[str]:
    return {path for hit in searcher.search(picture, include_self=True, k=1000) for path in hit.paths}


def test_every_entry_ends_as_expected(nasty, searcher):
    found = found_paths(searcher, nasty / "good.jpg")
    expected = expectations(nasty)
    assert len(expected) == 99
    for name, should in expected.items():
        if name == "unreadable.jpg" and os.geteuid() == 0:
            continue
        if should in ("yes", "no"):
            assert (str(nasty / name) in found) == (should == "yes"), name


def test_the_account_adds_up(nasty, indexed):
    first = indexed.out.decode().splitlines()[0]
    total, _, parts = first.removeprefix("on disk  ").partition(" = ")
    assert int(total) == sum(int(part.split()[0]) for part in parts.split(" + "))
    known = indexed.out.decode().splitlines()[1]
    assert known.endswith(" indexed + 0 missing + 0 offline")


def test_every_picture_can_be_asked_for(nasty, searcher):
    for path in sorted(found_paths(searcher, nasty / "good.jpg")):
        first = searcher.search(path, include_self=True, k=1)[0]
        assert path in first.paths and first.score == pytest.approx(1, abs=1e-5), path


def test_the_command_prints_them_all(nasty, searcher):
    found = found_paths(searcher, nasty / "good.jpg")
    ask = ("query", nasty / "good.jpg", "--index", nasty.parent / "index", "--include-self", "-k", "1000", "--format")
    searcher.close()
    lines = diffsim(*ask, "json").out.splitlines()
    assert {path for line in lines for path in json.loads(line)["paths"]} == found
    table = diffsim(*ask, "table").out.decode().splitlines()
    assert len([line for line in table[1:] if not line.startswith("--")]) == len(lines)
    sheet = diffsim(*ask, "paths", "--sheet", nasty.parent / "sheet.png")
    assert sheet.code == 0 and (nasty.parent / "sheet.png").stat().st_size > 10_000


def test_the_eight_orientations_are_near_identical_neighbours(nasty, searcher):
    eight = {f"orientation_{number}.jpg" for number in range(1, 9)}
    for name in eight:
        hits = searcher.search(nasty / "exif" / name, include_self=True, k=12)
        like = {Path(path).name: hit.score for hit in hits for path in hit.paths}
        assert eight <= like.keys() and all(like[other] > 0.98 for other in eight)


def test_hostile_pictures_leave_the_searcher_and_its_decoder_alive(nasty, searcher, children, tmp_path):
    """All of them in one searcher, whose one decoding process is kept between the questions."""
    random_picture(5).save(tmp_path / "outside.png")
    searcher.close()  # the tests before may have left it a decoder
    expected = searcher.search(tmp_path / "outside.png", k=5)
    (decoder,) = children()
    asked = 0
    for name, should in expectations(nasty).items():
        path = nasty / name
        if should == "no" and os.path.lexists(path) and name != "unreadable.jpg":
            with pytest.raises((UnreadableImage, BadQuery), match=r"\.$"):
                searcher.search(path)
            assert searcher.search(tmp_path / "outside.png", k=5) == expected, name
            asked += 1
    assert asked > 20
    assert children() == {decoder}
    searcher.close()
    assert not children()
    assert searcher.search(tmp_path / "outside.png", k=5) == expected


def test_copies_and_hard_links_are_one_hit(nasty, searcher):
    (hit,) = searcher.search(nasty / "dup_a.jpg", include_self=True, k=1)
    assert {"dup_a.jpg", "dup_b.jpg", "dup_hardlink.jpg"} <= {Path(path).name for path in hit.paths}
