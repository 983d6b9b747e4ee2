"""`diffsim duplicates`, and what it needs in the index: sketches that are made, checked, made again and forgotten."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import random_picture
from indexing import FAST, build, diffsim, draw, problem
from PIL import ImageOps

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import prune_index, verify_index
from diffsim.query.duplicates import find_duplicates
from diffsim.query.search import Searcher


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures; of 03 a small, a mirrored and a cropped copy, of 04 the same bytes again."""
    work = tmp_path_factory.mktemp("duplicates")
    folder = work / "pictures"
    draw(folder, range(10))
    picture = random_picture(3, 192, 144)
    picture.save(folder / "03.png")
    picture.resize((96, 72)).save(folder / "03-small.png")
    ImageOps.mirror(picture).save(folder / "03-mirrored.jpg", quality=95)
    picture.crop((10, 10, 170, 130)).save(folder / "03-cropped.png")
    shutil.copy(folder / "04.png", folder / "04\n-again.png")
    os.utime(folder / "03-small.png", (1, 1))
    build(work / "index", folder)
    return work


def run(work: Path, *options: str | Path):
    return diffsim("duplicates", "--index", work / "index", *options)


def test_groups_as_json_and_csv(work: Path) -> None:
    ran = run(work, "--format", "json")
    first, second = map(json.loads, ran.out.splitlines())
    found = {Path(file["path"]).name: file["kind"] for file in first["files"]}
    assert found == {
        "03.png": None,
        "03-mirrored.jpg": "mirrored",
        "03-cropped.png": "cropped",
        "03-small.png": "resized",
    }
    assert first["files"][0]["kind"] is None and first["files"][0]["largest"]
    assert [Path(file["path"]).name for file in first["files"] if file["oldest"]] == ["03-small.png"]
    assert [file["kind"] for file in second["files"]] == [None, "exact"]
    rows = list(csv.DictReader(io.StringIO(run(work, "--format", "csv").out.decode(), newline="")))
    assert [(row["group"], row["path"]) for row in rows] == [
        (str(group["group"]), file["path"]) for group in (first, second) for file in group["files"]
    ]


def test_the_table_and_a_list_for_other_tools(work: Path) -> None:
    before = sorted(path.name for path in (work / "pictures").iterdir())
    ran = run(work, "--list", work / "copies.txt", "--null")
    assert ran.code == 0 and ran.out.startswith(b"group 1: 4 files\n") and b"mirrored" in ran.out, ran
    assert "6 files in 2 groups; 13 pictures looked at." in ran.err
    paths = (work / "copies.txt").read_bytes().split(b"\0")
    assert paths.pop() == b"" and len(paths) == 4 and all(map(os.path.exists, paths))
    assert sorted(path.name for path in (work / "pictures").iterdir()) == before
    lines = run(work, "--list", work / "lines.txt")
    assert ("line break" in lines.err) == (b"again" in (work / "lines.txt").read_bytes())


def test_only_some_kinds(work: Path) -> None:
    rows = [json.loads(line) for line in run(work, "--kind", "exact", "--format", "json").out.splitlines()]
    assert len(rows) == 1 and {Path(file["path"]).name for file in rows[0]["files"]} == {"04.png", "04\n-again.png"}
    rows = [json.loads(line) for line in run(work, "--kind", "mirrored", "--format", "json").out.splitlines()]
    assert "03-mirrored.jpg" in {Path(file["path"]).name for row in rows for file in row["files"]}
    assert {file["kind"] for row in rows for file in row["files"]} == {None, "mirrored"}


def test_bad_input_is_one_sentence(work: Path, tmp_path: Path) -> None:
    assert "did you mean cropped?" in run(work, "--kind", "crop").err
    assert "give --list FILE too" in run(work, "--null").err
    assert "no folder" in problem(run(work, "--list", tmp_path / "nowhere" / "list.txt"))
    assert "end it in .txt" in problem(run(work, "--list", tmp_path / "list"))
    photo = work / "pictures" / "05.png"
    assert problem(run(work, "--list", photo)) and photo.stat().st_size > 100
    assert "no index" in problem(diffsim("duplicates", "--index", tmp_path / "none"))
    assert "nosuch" in problem(run(work, "--space", "nosuch"))


def test_an_index_without_sketches_answers_alike_and_gets_them(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "index", tmp_path / "index")
    with Searcher(tmp_path / "index", "cpu") as searcher:
        whole = find_duplicates(searcher).groups
        folded = searcher.search(work / "pictures" / "04.png", k=20, fold=True)
    shutil.rmtree(tmp_path / "index" / "sketches")
    with Searcher(tmp_path / "index", "cpu") as searcher:
        groups = find_duplicates(searcher).groups
        again = searcher.search(work / "pictures" / "04.png", k=20, fold=True)
    assert [[file.path for file in group] for group in groups] == [[file.path for file in group] for group in whole]
    assert [len(hit.duplicates) for hit in again] == [len(hit.duplicates) for hit in folded]
    assert sum(len(hit.duplicates) for hit in folded) == 3
    index = IndexFolder.open(tmp_path / "index")
    index_folders(index, [], options=FAST)
    with index.sketches(0, readonly=True) as store:
        assert len(store.ids()) == 13


def test_damaged_sketches_are_found_and_made_again(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "index", tmp_path / "index")
    index = IndexFolder.open(tmp_path / "index")
    file = index.sketches_folder(0) / "data.mdb"
    data = bytearray(file.read_bytes())
    with index.sketches(0, readonly=True) as store, index.catalog(readonly=True) as catalog:
        sha256 = catalog.pictures([5])[5].sha256
        assert 5 in store.ids()
    data[data.rindex(sha256) + 40] ^= 1
    file.write_bytes(data)
    found = verify_index(index, 2**30)
    assert found.sketches == 1 and verify_index(index, 2**30).sketches == 0
    index_folders(index, [], options=FAST)
    with index.sketches(0, readonly=True) as store:
        assert 5 in store.ids()


def test_sketches_of_forgotten_pictures_go(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    draw(folder, range(3))
    build(tmp_path / "index", folder)
    (folder / "01.png").unlink()
    index = IndexFolder.open(tmp_path / "index")
    index_folders(index, [], options=FAST)
    prune_index(index, 2**30)
    with index.sketches(0, readonly=True) as store:
        assert len(store.ids()) == 2
