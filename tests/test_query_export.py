"""The index as files for other programs, read back by pyarrow, pandas and numpy."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from conftest import TINY, random_picture
from indexing import diffsim, problem
from test_query_metadata import SAID

from diffsim.query import export as exporting
from diffsim.query.export import Exported, export
from diffsim.query.search import Searcher
from diffsim.retrieval.tiers import decode_tokens

NETWORK = ("--model", TINY, "--size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("export")
    (work / "pictures").mkdir()
    for seed, (name, said) in enumerate(SAID.items()):
        random_picture(seed).save(work / "pictures" / f"{name}.jpg", **said)
    shutil.copy(work / "pictures" / "plain.jpg", work / "pictures" / "copy.jpg")
    both = ("--by", "look", "--by", "style")
    ran = diffsim("index", work / "pictures", "--index", work / "index", *NETWORK, *both)
    assert ran.code == 0, ran
    more = os.fsencode(work / "pictures") + b"/b\xff.png"
    with open(more, "wb") as file:
        random_picture(9).save(file, "PNG")
    ran = diffsim("index", "--index", work / "index", *NETWORK, "--by", "look")  # not in `style`
    assert ran.code == 0, ran
    return work


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]


def test_parquet_holds_what_the_index_knows(work, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_WITH_TOKENS", 2)  # several row groups
    done = export(work / "index", parquet=tmp_path / "a.parquet", spaces=["look", "style"], tokens=True)
    assert done == Exported(5, 0) and os.listdir(tmp_path) == ["a.parquet"]
    file = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_row_groups == 3
    rows = {Path(row["path"]).stem: row for row in file.read().to_pylist()}
    assert rows.keys() == {"vienna", "graz", "fiji", "copy", "b\\xff"}
    vienna = rows["vienna"]
    assert (vienna["camera"], vienna["rating"], vienna["keywords"]) == ("Canon EOS R5", 5, ["Vienna", "Äpfel"])
    assert len(rows["copy"]["paths"]) == 2 and rows["copy"]["camera"] == ""
    assert not {"latitude", "longitude", "caption"} & vienna.keys()
    about = json.loads(file.schema_arrow.metadata[b"diffsim-search"])["spaces"]
    with Searcher(work / "index", "cpu") as searcher:
        for name in ("look", "style"):
            known = searcher.choose(name)
            column = next(each for each in about if about[each]["fingerprint"] == known.fingerprint)
            found = searcher.embeddings(name)
            for content_id, descriptor in zip(found.ids, found.descriptors, strict=True):
                (row,) = (row for row in rows.values() if row["id"] == content_id)
                assert np.array_equal(np.array(row[f"descriptor-{column}"], np.float32), descriptor)
                how = about[column]["tokens"]
                taps = decode_tokens([row[f"tokens-{column}"]], how["shapes"], how["tier"])
                assert all(bool(tap.isfinite().all()) for tap in taps)
            absent = [stem for stem, row in rows.items() if row[f"descriptor-{column}"] is None]
            assert absent == (["b\\xff"] if name == "style" else [])
    table = pandas.read_parquet(tmp_path / "a.parquet")
    assert len(table) == 5 and sorted(table["sha256"].str.len()) == [64] * 5


def test_places_and_captions_only_where_they_are_asked_for(work, tmp_path):
    for options in ((), ("--include-private",)):
        ran = diffsim(
            *("export", "--index", work / "index", "--parquet", tmp_path / "a.parquet", "--numpy", tmp_path / "arrays"),
            *options,
        )
        assert ran.code == 0 and "5 pictures written" in ran.err, ran
        written = (tmp_path / "arrays" / "pictures.jsonl").read_text()
        rows = pyarrow.parquet.read_table(tmp_path / "a.parquet")
        assert ("Secret garden" in written) == ("48.208333" in written) == bool(options)
        assert {"latitude", "caption"} <= set(rows.column_names) if options else "caption" not in rows.column_names
    assert rows.filter(pyarrow.compute.equal(rows["caption"], "Secret garden")).num_rows == 1


def test_the_numpy_folder_is_in_one_order(work, tmp_path):
    assert export(work / "index", numpy=tmp_path / "arrays", spaces=["look", "style"]) == Exported(5, 0)
    folder = tmp_path / "arrays"
    about = json.loads((folder / "export.json").read_text())
    assert sorted(about["files"]) == sorted(os.listdir(folder))
    ids, rows = np.load(folder / "ids.npy"), lines(folder)
    assert ids.tolist() == [row["id"] for row in rows] and len(rows) == 5
    with Searcher(work / "index", "cpu") as searcher:
        for column, of in about["spaces"].items():
            found = searcher.embeddings(of["fingerprint"])
            descriptors = np.load(folder / f"descriptor-{column}.npy")
            assert np.array_equal(descriptors[np.isin(ids, found.ids)], found.descriptors)
            assert np.isnan(descriptors[~np.isin(ids, found.ids)]).all()


def test_nothing_goes_over_what_this_program_did_not_write(work, tmp_path):
    command = ("export", "--index", work / "index")
    theirs = tmp_path / "theirs.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), theirs)
    before = theirs.read_bytes()
    assert "--force" in problem(diffsim(*command, "--parquet", theirs)) and theirs.read_bytes() == before
    assert diffsim(*command, "--parquet", theirs, "--force").code == 0
    assert diffsim(*command, "--parquet", theirs).code == 0  # now it is ours
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "did not write" in problem(diffsim(*command, "--numpy", tmp_path / "full", "--force"))
    assert diffsim(*command, "--numpy", tmp_path / "arrays").code == 0
    assert diffsim(*command, "--numpy", tmp_path / "arrays").code == 0
    (tmp_path / "arrays" / "notes.txt").write_text("mine")
    assert "did not write" in problem(diffsim(*command, "--numpy", tmp_path / "arrays"))
    assert (tmp_path / "arrays" / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["arrays", "full", "theirs.parquet"]


def test_bad_input_is_told_in_a_sentence(work, tmp_path):
    command = ("export", "--index", work / "index")
    for options, words in (
        ((), "Nothing says what to write"),
        (("--numpy", tmp_path / "a", "--tokens"), "Parquet alone"),
        (("--parquet", tmp_path / "a.csv"), "end it in .parquet"),
        (("--parquet", tmp_path / "none" / "a.parquet"), "no folder"),
        (("--numpy", tmp_path / "none" / "a"), "No folder can be made"),
        (("--parquet", tmp_path / "a.parquet", "--space", "stile"), "stile"),
    ):
        assert words in problem(diffsim(*command, *options))
    assert os.listdir(tmp_path) == []


def test_pictures_whose_rows_are_damaged_have_no_path(work, tmp_path):
    import sqlite3
    from contextlib import closing

    index = shutil.copytree(work / "index", tmp_path / "index")
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE contents SET width = width + 1 WHERE id = 2")
    assert export(index, numpy=tmp_path / "arrays") == Exported(5, 1)
    rows = lines(tmp_path / "arrays")
    assert [row["id"] for row in rows if row["path"] is None] == [2]
    assert [sorted(row) for row in rows if row["path"] is None] == [["id", "path", "paths"]]
