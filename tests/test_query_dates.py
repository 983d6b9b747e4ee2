"""A picture's own date, from the file to the answer: in filters, rows, notes and in an index of before."""

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from indexing import FAST, copy_index, diffsim
from PIL import Image

from diffsim.db.filters import Filters
from diffsim.db.seals import content_seal
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.query import Query
from diffsim.query.search import Searcher
from diffsim.query.web.engine import Engine
from diffsim.query.web.present import details_out

MODIFIED = datetime(2015, 5, 5, 12, tzinfo=UTC)
NETWORK = ("--model", TINY, "--size", "64", "--device", "cpu")
DATES = {
    "old": "2001:02:03 12:00:00",
    "new": "2021:02:03 12:00:00",
    "none": None,
    "zero": "0000:00:00 00:00:00",
    "far": "9999:12:31 23:59:59",
    "garbage": "\0\0garbage\0",
}


def draw_dated(path: Path, seed: int, taken: str | None) -> None:
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(0x8769).update({0x9003: taken, 0x9011: "+00:00"})
    random_picture(seed).save(path, exif=exif.tobytes() if taken is not None else b"")
    os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("dates")
    (work / "pictures").mkdir()
    for seed, (name, taken) in enumerate(DATES.items()):
        draw_dated(work / "pictures" / f"{name}.jpg", seed, taken)
    ran = diffsim("index", work / "pictures", "--index", work / "index", *NETWORK, "--by", "look")
    assert ran.code == 0, ran
    return work


def asked(work: Path, *filters: str, index: str = "index") -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Name -> date and whose it is; the notes."""
    picture = work / "pictures" / "old.jpg"  # an indexed one needs no network
    ran = diffsim("query", picture, "--index", work / index, "--include-self", *filters, "--format", "json")
    assert ran.code == 0, ran
    rows = [json.loads(line) for line in ran.out.splitlines()]
    return {Path(row["path"]).stem: (row["date"], row["date_of"]) for row in rows}, ran.err.splitlines()


def test_filters_go_by_the_pictures_own_date_else_by_the_file(work):
    undated = {"none", "zero", "far", "garbage"}
    for filters, passing in (
        (("--after", "2020-01-01"), {"new"}),
        (("--before", "2010-01-01"), {"old"}),
        (("--after", "2010-01-01", "--before", "2020-01-01"), undated),
        (("--before", "2020-01-01"), undated | {"old"}),
        (("--after", "2022-01-01"), set()),
    ):
        found, notes = asked(work, *filters)
        assert found.keys() == passing
        assert [note for note in notes if "date" in note] == [
            "4 of 6 pictures have no date of their own (EXIF); the date filter took that of their file."
        ]
        assert {name for name, (_, whose) in found.items() if whose == "file"} == passing & undated
    found, notes = asked(work)
    assert len(found) == 6 and not any("date" in note for note in notes)
    assert datetime.fromisoformat(found["old"][0]) == datetime(2001, 2, 3, 12, tzinfo=UTC)
    assert datetime.fromisoformat(found["none"][0]) == MODIFIED


def test_the_note_counts_what_the_other_filters_leave(work):
    with Searcher(work / "index", "cpu") as searcher:
        small = Filters(after=date(2000, 1, 1), formats="png")
        answer = searcher.answer(Query(1, include_self=True, filters=small))
        assert not any("date" in note for note in answer.notes)
        first, last = searcher.answers(Query(1, include_self=True, filters=Filters(after=date(2000, 1, 1))))
        assert first.notes == last.notes and "4 of 6 pictures" in last.notes[0]
        assert {hit.path: hit.date for hit in first.hits} == {hit.path: hit.date for hit in last.hits}


def test_a_damaged_date_is_not_shown_and_found(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE contents SET taken_ns = taken_ns + 1 WHERE taken_ns IS NOT NULL")
    with Searcher(index, "cpu") as searcher:
        answer = searcher.answer(Query(1, include_self=True))
        assert {hit.date_of for hit in answer.hits} == {"file"} and "rows of 2 pictures are damaged" in answer.notes[0]
    ran = diffsim("verify", "--index", index)
    assert ran.code == 1 and b"the checksum of content" in ran.out
    assert diffsim("index", "--index", index, "--device", "cpu").code == 0
    with Searcher(index, "cpu") as searcher:
        assert [hit.date_of for hit in searcher.search(1, include_self=True)].count("picture") == 2


def test_an_index_of_before_goes_on_and_dates_its_pictures(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection, connection:
        connection.execute("ALTER TABLE contents DROP COLUMN taken_ns")
        connection.execute("ALTER TABLE roots DROP COLUMN seal")
        connection.execute("DROP TABLE metadata")
        connection.execute("DROP TABLE index_identity")
        connection.execute("DELETE FROM schema_version WHERE version > 4")
        for row, *values in connection.execute(
            "SELECT id, sha256, size, shard, format, width, height FROM contents"
        ).fetchall():
            connection.execute("UPDATE contents SET seal = ? WHERE id = ?", (content_seal(*values), row))
    more = tmp_path / "more"
    more.mkdir()
    draw_dated(more / "later.jpg", 80, "2021:02:03 12:00:00")
    assert diffsim("index", more, "--index", index, "--device", "cpu").code == 0
    with Searcher(index, "cpu") as searcher:
        hits = searcher.search(1, include_self=True)
        assert {Path(hit.path).stem for hit in hits if hit.date_of == "picture"} == {"later", "old", "new"}
        assert len(hits) == 7
    with IndexFolder.open(index).catalog() as catalog:
        assert catalog.mend() is None


def test_a_copy_counts_as_its_picture_whatever_the_date_of_its_file(work, tmp_path):
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures" / "a.jpg"
    draw_dated(picture, 1, "2001:02:03 12:00:00")
    (tmp_path / "pictures" / "b.jpg").write_bytes(picture.read_bytes())  # modified now
    requests = requested_spaces(str(TINY), ["look"], size=64, tier="fp32")
    index_folders(IndexFolder.create(tmp_path / "index"), [tmp_path / "pictures"], requests, FAST)
    with Searcher(tmp_path / "index", "cpu") as searcher:
        (hit,) = searcher.search(1, include_self=True, filters=Filters(before=date(2002, 1, 1)))
        assert len(hit.paths) == 2 and hit.date_of == "picture"
        assert searcher.search(1, include_self=True, filters=Filters(after=date(2002, 1, 1))) == []


def test_the_pages_details(work):
    with closing(Engine(IndexFolder.open(work / "index"), "cpu")) as engine:
        shown = {}
        for content_id, place in engine.page(0, 10, Filters()).items:
            details = details_out(engine.pictures.known(content_id), place, None)
            shown[Path(details.name).stem] = details.date_of, datetime.fromisoformat(details.date or "").year
    assert shown["old"] == ("picture", 2001) and shown["none"] == shown["zero"] == ("file", 2015)
