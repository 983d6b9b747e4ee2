"""What files say of their pictures, from the file to the answer: filters, rows, notes, the page, an index of before."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from indexing import copy_index, diffsim
from test_retrieval_metadata import R, exif, place, subject, xmp

from diffsim.db.filters import Filters
from diffsim.db.metadata import PictureMetadata
from diffsim.indexer.index_folder import IndexFolder
from diffsim.query.query import Query
from diffsim.query.search import Searcher

NETWORK = ("--model", TINY, "--size", "64", "--device", "cpu")
VIENNA = place((R(48), R(12), R(30)), (R(16), R(22), R(12)))
SAID = {
    "vienna": {
        "exif": exif("Canon", "Canon EOS R5", "RF24-70mm", VIENNA),
        "xmp": xmp(subject("Vienna", "Äpfel") + "<dc:description>Secret garden</dc:description>", 'xmp:Rating="5"'),
    },
    "graz": {
        "exif": exif("NIKON", "NIKON D850", gps=place((R(47), R(4), R(0)), (R(15), R(26), R(0)))),
        "xmp": xmp(subject("Graz", "100%_fun"), 'xmp:Rating="3"'),
    },
    "fiji": {"exif": exif("Canon", "EOS 5D", gps=place((R(18), R(0), R(0)), (R(179), R(59), R(0)), "SE"))},
    "plain": {},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("metadata")
    (work / "pictures").mkdir()
    for seed, (name, said) in enumerate(SAID.items()):
        random_picture(seed).save(work / "pictures" / f"{name}.jpg", **said)
    ran = diffsim("index", work / "pictures", "--index", work / "index", *NETWORK, "--by", "look")
    assert ran.code == 0, ran
    return work


def asked(work: Path, *options: str, index: str = "index") -> tuple[dict[str, dict], list[str]]:
    """Name -> metadata; the notes."""
    picture = work / "pictures" / "plain.jpg"  # an indexed one needs no network
    ran = diffsim("query", picture, "--index", work / index, "--include-self", *options, "--format", "json")
    assert ran.code == 0, ran
    return {
        Path(row["path"]).stem: row["metadata"] for row in map(json.loads, ran.out.splitlines())
    }, ran.err.splitlines()


def test_the_command_filters_by_what_files_say(work):
    for filters, passing in (
        (("--camera", "canon"), {"vienna", "fiji"}),
        (("--camera", "nikon  D850"), {"graz"}),
        (("--keyword", "vienna"), {"vienna"}),
        (("--keyword", "ÄPFEL", "--keyword", "vienna"), {"vienna"}),
        (("--keyword", "vienna", "--keyword", "graz"), set()),
        (("--rating", "3"), {"vienna", "graz"}),
        (("--rating", "4", "--camera", "eos"), {"vienna"}),
        (("--near", "48.2,16.4,10"), {"vienna"}),
    ):
        assert asked(work, *filters)[0].keys() == passing, filters


def test_bad_input_is_told_in_a_sentence(work):
    for options, words in (
        (("--near", "100,16,5"), "no place at latitude 100"),
        (("--near", "48,16,0"), "distance 0 is not allowed"),
        (("--near", "48,16,nan"), "distance nan is not allowed"),
        (("--camera", "  "), "camera '  ' cannot be looked for"),
        (("--keyword", "a" * 101), "give 1 to 100 plain characters"),
    ):
        ran = diffsim("query", work / "pictures" / "plain.jpg", "--index", work / "index", *options)
        assert ran.code == 1 and words in ran.err and "Traceback" not in ran.err, ran
    for options, words in ((("--near", "Vienna"), "is not a place"), (("--rating", "6"), "1<=x<=5")):
        ran = diffsim("query", work / "pictures" / "plain.jpg", "--index", work / "index", *options)
        assert ran.code == 2 and words in ran.err, ran


def test_json_tells_places_and_captions_only_where_they_are_asked_for(work):
    rows, _ = asked(work)
    assert rows["vienna"] == {
        "camera": "Canon EOS R5",
        "lens": "RF24-70mm",
        "rating": 5,
        "keywords": ["Vienna", "Äpfel"],
    }
    rows, _ = asked(work, "--include-private")
    assert rows["vienna"]["caption"] == "Secret garden"
    assert (rows["vienna"]["latitude"], rows["vienna"]["longitude"]) == (48.208333, 16.37)
    for form in ("csv", "table", "paths"):
        ran = diffsim(
            "query", work / "pictures" / "plain.jpg", "--index", work / "index", "--include-private", "--format", form
        )
        assert ran.code == 0 and b"48.2" not in ran.out and b"Secret" not in ran.out


def test_python_filters_and_tells_all(work):
    def names(**filters: object) -> set[str]:
        with Searcher(work / "index", "cpu") as searcher:
            hits = searcher.search(1, include_self=True, filters=Filters(**filters))
            assert all(hit.metadata is not None for hit in hits)
            return {Path(hit.path).stem for hit in hits}

    assert names(keywords="100%_FUN") == {"graz"} and names(keywords="100") == names(keywords="%") == set()
    assert names(camera="%") == names(camera="_") == set()
    assert names(near=(47.07, 15.43, 200)) == {"graz", "vienna"}
    assert names(near=(47.07, 15.43, 100)) == {"graz"}
    assert names(near=(-18, -179.99, 5)) == {"fiji"}  # across the date line
    assert names(near=(0, 0, 1e9)) == {"graz", "vienna", "fiji"}
    assert names(near=(90, 0, 4700)) == {"vienna"} and names(near=(90, 123, 4850)) == {"vienna", "graz"}
    with Searcher(work / "index", "cpu") as searcher:
        (hit,) = searcher.search(1, filters=Filters(rating=5))
    assert hit.metadata == PictureMetadata(
        "Canon EOS R5", "RF24-70mm", 5, 48.208333, 16.37, ("Vienna", "Äpfel"), "Secret garden"
    )


def without_metadata(index: Path) -> None:
    """As an older program left it."""
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection, connection:
        connection.execute("DROP TABLE metadata")
        connection.execute("DELETE FROM schema_version WHERE name LIKE '%_metadata'")  # the last one


def test_an_index_of_before_says_what_is_unread_and_the_next_run_reads_it(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    without_metadata(index)
    ran = diffsim("query", work / "pictures" / "plain.jpg", "--index", index)
    assert ran.code == 1 and "run `diffsim index` on it once" in ran.err
    with IndexFolder.open(index).catalog():  # brings the tables up to date, and reads nothing
        pass
    ran = diffsim("query", work / "pictures" / "plain.jpg", "--index", index, "--camera", "canon")
    assert "of 4 pictures say was not read yet" in ran.err and "`diffsim index`" in ran.err
    features = {path: path.stat().st_mtime_ns for path in index.rglob("data.mdb")}
    (work / "pictures" / "plain.jpg").rename(work / "pictures" / "away.jpg")
    try:
        ran = diffsim("index", "--index", index, "--device", "cpu")
        assert ran.code == 0, ran
    finally:
        (work / "pictures" / "away.jpg").rename(work / "pictures" / "plain.jpg")
    assert features == {path: path.stat().st_mtime_ns for path in index.rglob("data.mdb")}
    with Searcher(index, "cpu") as searcher:
        hits = searcher.answer(Query(1, include_self=True, filters=Filters(camera="canon")))
        assert {Path(hit.path).stem for hit in hits.hits} == {"vienna", "fiji"} and not hits.notes
        assert searcher.catalog.count_unread() == 0


def test_a_searcher_that_is_open_sees_metadata_that_are_read_later(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection, connection:
        connection.execute("DELETE FROM metadata")
    with Searcher(index, "cpu") as searcher:
        canon = Query(1, include_self=True, filters=Filters(camera="canon"))
        assert searcher.answer(canon).hits == []
        assert diffsim("index", "--index", index, "--device", "cpu").code == 0
        assert len(searcher.answer(canon).hits) == 2


def test_a_damaged_row_is_not_shown_and_comes_back(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE metadata SET camera = 'Leica' WHERE camera LIKE 'NIKON%'")
    with Searcher(index, "cpu") as searcher:
        answer = searcher.answer(Query(1, include_self=True))
        assert [hit.metadata for hit in answer.hits].count(None) == 1 and "are damaged" in answer.notes[0]
    ran = diffsim("verify", "--index", index)
    assert ran.code == 1 and b"the checksum of the metadata of content" in ran.out
    assert diffsim("index", "--index", index, "--device", "cpu").code == 0
    with Searcher(index, "cpu") as searcher:
        hits = searcher.search(1, include_self=True)
        assert {hit.metadata.camera for hit in hits if hit.metadata} == {
            "Canon EOS R5",
            "NIKON D850",
            "Canon EOS 5D",
            "",
        }


def test_pruned_pictures_leave_no_metadata(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    ran = diffsim("prune", "--index", index, "--folder", work / "pictures")
    assert ran.code == 0, ran
    with closing(sqlite3.connect(index / "catalog.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM metadata").fetchone() == (0,)
