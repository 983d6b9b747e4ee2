"""The JSON API over a real index."""

import csv
import io
import os
import time
import zipfile
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from fastapi.testclient import TestClient
from indexing import build, copy_index, draw, unpack_nasty
from PIL import Image
from webs import answers, client, problem

from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import prune_index
from diffsim.indexer.requests import requested_spaces
from diffsim.query.query import Example, Query
from diffsim.query.search import Searcher
from diffsim.query.text import certainty

COUNT = 30


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures in two spaces, five of them in a subfolder, and one that is broken."""
    folder = tmp_path_factory.mktemp("web")
    draw(folder / "pictures", range(25))
    draw(folder / "pictures" / "sub", range(25, COUNT))
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    build(folder / "index", folder / "pictures")
    index_folders(
        IndexFolder.open(folder / "index"),
        [folder / "pictures"],
        requested_spaces(str(TINY), ["style"], size=64, tier="fp32"),
        IndexOptions(workers=1, device="cpu"),
    )
    random_picture(77).save(folder / "outside.png")
    return folder


@pytest.fixture(scope="module")
def asker(work: Path):
    with client(work / "index") as made:
        yield made


def content_id(asker: TestClient, name: str) -> int:
    items = asker.get("/api/pictures?limit=500").json()["items"]
    return next(item["id"] for item in items if item["name"] == name)


# Pictures


def test_all_pictures_by_folder_and_name(asker):
    whole = asker.get("/api/pictures?limit=500").json()
    assert whole["total"] == COUNT and [item["name"] for item in whole["items"]] == [
        f"{n:02d}.png" for n in range(COUNT)
    ]
    piece = asker.get("/api/pictures?offset=10&limit=7").json()
    assert piece["items"] == whole["items"][10:17]
    assert asker.get("/api/pictures?offset=1000").json()["items"] == []
    some = asker.post("/api/pictures", json={"folders": [whole["items"][-1]["folder"]]}).json()
    assert some["total"] == 5 and some["items"] == whole["items"][25:]


def test_a_thumbnail_is_made_once_and_kept(asker, work):
    first = content_id(asker, "03.png")
    response = asker.get(f"/thumbnails/{first}")
    assert response.headers["content-type"] == "image/webp" and "no-cache" in response.headers["cache-control"]
    picture = Image.open(io.BytesIO(response.content))
    assert picture.size == (96, 72)
    (kept,) = [
        path for path in (work / "index" / "thumbnails").rglob("*.webp") if path.read_bytes() == response.content
    ]
    kept.write_bytes(kept.read_bytes()[:50])  # as a power cut may leave it
    assert asker.get(f"/thumbnails/{first}").content == response.content
    etag = response.headers["etag"]
    assert asker.get(f"/thumbnails/{first}", headers={"If-None-Match": etag}).status_code == 304
    version = asker.get(f"/api/pictures/{first}").json()["version"]
    assert "immutable" in asker.get(f"/thumbnails/{first}?v={version}").headers["cache-control"]
    assert "no-cache" in asker.get(f"/thumbnails/{first}?v=other").headers["cache-control"]


def test_a_read_only_index_keeps_thumbnails_elsewhere(work, tmp_path, monkeypatch):
    index = copy_index(work / "index", tmp_path / "index")
    (index / "thumbnails").unlink() if (index / "thumbnails").is_file() else None
    import shutil

    shutil.rmtree(index / "thumbnails", ignore_errors=True)
    (index / "thumbnails").write_text("in the way")  # root writes into read-only folders
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with client(index) as asker:
        assert asker.get("/thumbnails/1").status_code == 200
    assert len(list((tmp_path / "cache" / "diffsim" / "thumbnails").rglob("*.webp"))) == 1


def test_pictures_that_are_not_there(asker):
    for address in ("/thumbnails/999", "/previews/999", "/api/pictures/999"):
        assert "no picture 999" in problem(asker.get(address), 404)
    for address in ("/thumbnails/0", "/thumbnails/x", "/previews/-1", "/thumbnails/99999999999999999999"):
        assert problem(asker.get(address), 422)


def test_what_took_a_files_place_is_never_shown(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    import shutil

    shutil.rmtree(index / "thumbnails", ignore_errors=True)
    path = work / "pictures" / "04.png"
    before = path.read_bytes()
    with client(index) as asker:
        changed = content_id(asker, "04.png")
        try:
            random_picture(500).save(path)
            assert "changed" in problem(asker.get(f"/thumbnails/{changed}"), 404)
            names = zipfile.ZipFile(io.BytesIO(asker.post("/api/zip", json={"pictures": [changed]}).content)).namelist()
            assert names == ["LEFT-OUT.txt"]
            path.unlink()
            path.symlink_to(work / "outside.png")
            assert problem(asker.get(f"/previews/{changed}"), 404)
        finally:
            path.unlink()
            path.write_bytes(before)
        assert asker.get(f"/thumbnails/{changed}").status_code == 200


# Searches


def test_a_click_is_answered_as_the_command_does(asker, work):
    first = content_id(asker, "07.png")
    recalled, ranked = answers(asker, picture=first, k=10)
    assert (recalled["stage"], ranked["stage"]) == ("recalled", "ranked")
    assert all(hit["by_chance"] is None for hit in recalled["hits"])
    with Searcher(work / "index", "cpu") as searcher:
        hits = searcher.search(work / "pictures" / "07.png", k=10)
    assert [hit["id"] for hit in ranked["hits"]] == [hit.content_id for hit in hits]
    for line, hit in zip(ranked["hits"], hits, strict=True):
        assert line["score"] == pytest.approx(hit.score, abs=1e-6) and line["by_chance"] == hit.by_chance
        assert line["name"] == Path(hit.path).name and line["folder"] == str(Path(hit.path).parent)
        assert line["ended"] == (hit.by_chance > 1) and line["chance"]
        assert line["likeness"] == pytest.approx(hit.likeness, abs=1e-3) and line["standing"] == f"{hit.likeness:.1f}"
        assert line["certainty"] == certainty(hit.by_chance)


def test_spaces_regions_examples_filters_and_folding(asker, work):
    first, second, third = (content_id(asker, f"{n:02d}.png") for n in (7, 8, 9))
    names = [space["name"] for space in asker.get("/api/index").json()["spaces"]]
    sub = [row["folder"] for row in asker.get("/api/folders").json() if row["folder"].endswith("/sub")]
    asked = [
        ({"spaces": [names[1]]}, {"spaces": (names[1],)}),
        ({"spaces": names}, {"spaces": tuple(names)}),
        ({"region": [0.1, 0.2, 0.5, 0.5]}, {"examples": Example(first, region=(0.1, 0.2, 0.5, 0.5))}),
        ({"fold": True}, {"fold": True}),
    ]
    with Searcher(work / "index", "cpu") as searcher:
        for body, fields in asked:
            expected = searcher.answer(Query(**{"examples": first, "k": 10, **fields}))
            assert [hit["id"] for hit in answers(asker, picture=first, k=10, **body)[-1]["hits"]] == [
                hit.content_id for hit in expected.hits
            ]
    weighed = answers(asker, picture=first, examples=[{"picture": second}, {"picture": third, "weight": -1}])[-1]
    assert not {first, second, third} & {hit["id"] for hit in weighed["hits"]}
    within = answers(asker, picture=first, filters={"folders": sub})[-1]
    assert within["pictures"] == 5 and {hit["folder"] for hit in within["hits"]} == set(sub)
    nothing = answers(asker, picture=first, filters={"min_side": 5000})[-1]
    assert nothing["hits"] == [] and "filters" in nothing["notes"][0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"picture": 0},
        {"picture": "x"},
        {"picture": None},
        {"picture": 1, "k": 0},
        {"picture": 1, "region": [0, 0, 0, 0]},
        {"picture": 1, "region": [0.5, 0.5, 0.9, 0.1]},
        {"picture": 1, "region": [0, 0, 1]},
        {"picture": 1, "examples": [{"picture": 2, "weight": 0}]},
        {"picture": 1, "spaces": ["none"]},
        {"picture": 1, "filters": {"formats": ["EXE"]}},
        {"picture": 1, "filters": {"after": "yesterday"}},
        {"picture": 1, "filters": {"after": "0001-01-01", "before": "9999-12-31", "min_side": 9, "max_side": 3}},
        {"picture": 1, "unknown": 1},
        [],
        1,
    ],
)
def test_bad_searches_are_one_sentence(asker, body):
    assert problem(asker.post("/api/search", json=body), 422)


def test_no_json_at_all(asker):
    for content in (b"", b"{", b"\xff\xfe", b'{"picture": NaN}', b'{"picture": 1, "spaces": ["\\ud800"]}', b"[" * 5000):
        response = asker.post("/api/search", content=content, headers={"Content-Type": "application/json"})
        assert problem(response, response.status_code) and response.status_code in (400, 422)


def test_nothing_else_is_at_other_addresses(asker):
    assert problem(asker.get("/none"), 404)
    assert problem(asker.delete("/api/index"), 405)


# Why


def test_why(asker, work):
    first, second = content_id(asker, "07.png"), content_id(asker, "08.png")
    found = asker.get(f"/api/why?a={first}&b={second}").json()
    with Searcher(work / "index", "cpu") as searcher:
        expected = searcher.pair(first, second).agreement()
        looked = searcher.pair(first, second).attention((1, 1))
    assert found["score"] == pytest.approx(expected.score, abs=1e-5)
    assert found["a_from_b"][1] == pytest.approx(expected.a_from_b[1].tolist(), abs=1e-3)
    assert found["low"] <= min(map(min, found["b_from_a"])) + 1e-4 and found["seen_a"] == [0, 0, 1, 1]
    rows = asker.get(f"/api/why/attention?a={first}&b={second}&row=1&column=1").json()["rows"]
    assert rows[1] == pytest.approx(looked[1].tolist(), abs=1e-5)
    assert problem(asker.get(f"/api/why/attention?a={first}&b={second}&row=900&column=2"), 422)
    assert problem(asker.get(f"/api/why?a={first}&b=999"), 404)
    assert problem(asker.get(f"/api/why?a={first}&b=/etc/passwd"), 422)


def test_why_has_the_score_of_the_search(asker, work):
    """Of the region, and in every space that was asked."""
    first = content_id(asker, "07.png")
    region = [0.1, 0.2, 0.4, 0.5]
    hit = answers(asker, picture=first, region=region)[-1]["hits"][2]
    asked = f"/api/why?a={first}&b={hit['id']}"
    found = asker.get(f"{asked}&region=0.1,0.2,0.4,0.5").json()
    assert found["score"] == pytest.approx(hit["score"], abs=1e-5) and found["region"] == pytest.approx(region)
    assert found["score"] != pytest.approx(asker.get(asked).json()["score"], abs=1e-5)
    rows, columns = len(found["a_from_b"]), len(found["a_from_b"][0])
    for part in found["regions"]:
        assert 0.1 * rows - 1 < part["a"][0] < 0.7 * rows and 0.1 * columns - 1 < part["a"][1] < 0.5 * columns
    for box in ("0,0,2,2", "a,b,c,d", "1,2,3", ""):
        assert problem(asker.get(f"{asked}&region={box}"), 422)
    names = [space["name"] for space in asker.get("/api/index").json()["spaces"]]
    several = asker.get(asked + "".join(f"&space={name}" for name in names)).json()
    assert [one["name"] for one in several["scores"]] == names and several["space"]["name"] == names[0]
    for one in several["scores"]:
        (same,) = [
            each for each in answers(asker, picture=first, spaces=[one["name"]])[-1]["hits"] if each["id"] == hit["id"]
        ]
        assert one["score"] == pytest.approx(same["score"], abs=1e-5)


# Uploads


def test_an_upload_is_asked_with_as_its_file_would_be(asker, work):
    made = asker.post("/api/uploads", content=(work / "outside.png").read_bytes())
    assert made.status_code == 201 and made.json()["width"] == 96
    name = made.json()["picture"]
    ranked = answers(asker, picture=name, k=5)[-1]
    with Searcher(work / "index", "cpu") as searcher:
        hits = searcher.search(work / "outside.png", k=5)
    assert [(hit["id"], hit["score"]) for hit in ranked["hits"]] == [
        (hit.content_id, pytest.approx(hit.score, abs=1e-5)) for hit in hits
    ]
    assert answers(asker, picture=name, spaces=["style"])[-1]["spaces"][0]["name"].endswith("style")
    assert Image.open(io.BytesIO(asker.get(f"/uploads/{name}").content)).size == (96, 72)
    assert asker.get(f"/api/why?a={name}&b={ranked['hits'][0]['id']}").status_code == 200
    assert asker.post("/api/sheet", json={"search": {"picture": name}}).status_code == 200


def test_an_upload_of_an_indexed_picture_is_that_picture(asker, work):
    made = asker.post("/api/uploads", content=(work / "pictures" / "05.png").read_bytes()).json()
    assert made["picture"] == content_id(asker, "05.png")


def test_an_upload_that_was_forgotten(asker):
    gone = "u" + 32 * "0"
    assert "drop it again" in problem(asker.get(f"/uploads/{gone}"), 410)
    assert "drop it again" in problem(asker.post("/api/search", json={"picture": gone}), 410)


def test_every_hostile_file_as_an_upload_leaves_the_server_alive(asker, work, tmp_path):
    nasty = unpack_nasty(tmp_path)
    with open(nasty / "expected.csv", encoding="utf-8", newline="") as file:
        rows = {row["file"]: row["should_index"] for row in csv.DictReader(file)}
    sent = 0
    for name, should in rows.items():
        path = nasty / name.replace("\\xe9\\xff", "\udce9\udcff")
        if not path.is_file():
            continue
        response = asker.post("/api/uploads", content=path.read_bytes())
        sent += 1
        if response.status_code != 201:
            assert problem(response, 422), name
        assert should != "yes" or response.status_code == 201, name
    assert sent > 80
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("diffsim-*.png"))
    assert answers(asker, picture=1)[-1]["hits"]


# Taking away


def test_a_zip_of_the_files(asker, work):
    ids = [content_id(asker, f"{n:02d}.png") for n in (1, 27)]
    response = asker.post("/api/zip", json={"pictures": [*ids, ids[0]]})
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert archive.testzip() is None and archive.namelist() == ["01.png", "27.png"]
    assert archive.read("27.png") == (work / "pictures" / "sub" / "27.png").read_bytes()
    assert problem(asker.post("/api/zip", json={"pictures": [999]}), 404)
    assert problem(asker.post("/api/zip", json={"pictures": []}), 422)


def test_sheets(asker):
    names = [space["name"] for space in asker.get("/api/index").json()["spaces"]]
    for body in ({"top": 4}, {"only": [2, 3]}, {"compare": names, "top": 3}):
        response = asker.post("/api/sheet", json={"search": {"picture": 1}, **body})
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).width > 500


# The index and its runs


def test_the_state_of_the_index(asker, work):
    state = asker.get("/api/index").json()
    assert state["files"] == COUNT + 1 and state["failures"] == 1 and state["run"] is None and state["writer"] is None
    assert state["failed"][0]["path"].endswith("broken.png") and state["failed"][0]["reason"]
    assert [root["folder"] for root in state["roots"]] == [str(work / "pictures")]
    assert all(space["pictures"] == COUNT and space["answers"] for space in state["spaces"])


def ended(asker: TestClient, seconds: float = 120) -> dict:
    for _ in range(int(seconds * 10)):
        run = asker.get("/api/index").json()["run"]
        if run["state"] not in ("running", "stopping"):
            return run
        time.sleep(0.1)
    raise AssertionError("the run does not end")


def test_a_run_is_started_watched_and_stopped(tmp_path):
    draw(tmp_path / "pictures", range(4))
    build(tmp_path / "index", tmp_path / "pictures")
    draw(tmp_path / "pictures", range(4, 7))
    with client(tmp_path / "index") as asker:
        assert problem(asker.delete("/api/runs/current"), 409)
        assert "no folder 9" in problem(asker.post("/api/runs", json={"root": 9}), 404)
        root = asker.get("/api/index").json()["roots"][0]["id"]
        assert asker.post("/api/pictures", json={"min_side": 5}).json()["total"] == 4
        assert asker.post("/api/runs", json={"root": root}).status_code == 201
        assert "going on" in problem(asker.post("/api/runs", json={}), 409)
        run = ended(asker)
        assert run["state"] == "done" and any("3 new" in line for line in run["lines"]), run
        assert run["lines"][0].startswith("on disk "), "the progress bar is not a message"
        assert asker.get("/api/pictures").json()["total"] == 7
        assert asker.post("/api/pictures", json={"min_side": 5}).json()["total"] == 7
        draw(tmp_path / "pictures", range(7, 300))
        assert asker.post("/api/runs", json={}).status_code == 201
        assert asker.delete("/api/runs/current").status_code == 200
        run = ended(asker)
        assert run["state"] == "stopped" and not any("Traceback" in line for line in run["lines"]), run


def test_a_folder_and_a_space_are_added_and_missing_files_pruned(tmp_path):
    draw(tmp_path / "pictures", range(4))
    build(tmp_path / "index", tmp_path / "pictures")
    draw(tmp_path / "more", range(4, 7))
    with client(tmp_path / "index") as asker:
        for path in ("more", str(tmp_path / "nowhere"), "--help", "/a\0b"):
            assert "There is no folder" in problem(asker.post("/api/runs", json={"folder": path}), 422)
        assert asker.post("/api/runs", json={"folder": str(tmp_path / "more")}).json()["task"] == "index"
        assert ended(asker)["state"] == "done"
        assert asker.get("/api/pictures").json()["total"] == 7
        spaces = [space["name"] for space in asker.get("/api/index").json()["spaces"]]
        assert asker.post("/api/runs", json={"by": ["look"]}).status_code == 201
        run = ended(asker, 300)
        assert run["state"] == "done", run
        assert [space["name"] for space in asker.get("/api/index").json()["spaces"]] == [*spaces, "mini/look"]
        next((tmp_path / "more").rglob("*.png")).unlink()
        asker.post("/api/runs", json={})
        ended(asker)
        assert asker.get("/api/index").json()["missing"] == 1
        assert asker.post("/api/runs/prune").json()["task"] == "prune"
        run = ended(asker)
        assert run["state"] == "done" and run["lines"], run
        assert asker.get("/api/index").json()["missing"] == 0


def test_another_writer_is_named(work, tmp_path):
    index = IndexFolder.open(copy_index(work / "index", tmp_path / "index"))
    with client(index.path) as asker, index.writing():
        assert f"process {os.getpid()} on " in asker.get("/api/index").json()["writer"]
        run = asker.post("/api/runs", json={})
        assert run.status_code == 201
        run = ended(asker)
        assert run["state"] == "failed" and "being written" in run["lines"][-1]
    assert index.being_written() is None


def test_names_of_any_kind_are_text(tmp_path):
    names = [b"<img src=x onerror=alert(1)>.png", b"line\nbreak.png", b"\xe9\xff.png", "rtl\u202egnp.png".encode()]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(names):
        random_picture(number).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    build(tmp_path / "index", folder)
    with client(tmp_path / "index") as asker:
        shown = {item["name"] for item in asker.get("/api/pictures").json()["items"]}
        assert shown == {"<img src=x onerror=alert(1)>.png", "line\\nbreak.png", "\\xe9\\xff.png", "rtl\\u202egnp.png"}
        assert len(answers(asker, picture=1)[-1]["hits"]) == 3
        archive = zipfile.ZipFile(io.BytesIO(asker.post("/api/zip", json={"pictures": [1, 2, 3, 4]}).content))
        assert len(archive.namelist()) == 4


def test_an_offline_folder_is_marked_and_its_thumbnails_stay(tmp_path):
    draw(tmp_path / "pictures", range(4))
    build(tmp_path / "index", tmp_path / "pictures")
    with client(tmp_path / "index") as asker:
        thumbnail = asker.get("/thumbnails/2").content
        (tmp_path / "pictures").rename(tmp_path / "unplugged")
        assert asker.get("/thumbnails/2").content == thumbnail
        assert problem(asker.get("/thumbnails/3"), 404)
        assert all(hit["offline"] for hit in answers(asker, picture=1)[-1]["hits"])
        assert asker.get("/api/index").json()["roots"][0]["offline"]


def test_pruning_forgets_thumbnails_too(tmp_path):
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")
    with client(tmp_path / "index") as asker:
        for number in (1, 2, 3):
            asker.get(f"/thumbnails/{number}")
    (tmp_path / "pictures" / "01.png").unlink()
    build(tmp_path / "index", tmp_path / "pictures")
    thumbnails = tmp_path / "index" / "thumbnails"
    assert len(list(thumbnails.rglob("*.webp"))) == 3
    prune_index(IndexFolder.open(tmp_path / "index"), 2**30)
    assert len(list(thumbnails.rglob("*.webp"))) == 2


def test_an_empty_index(tmp_path):
    IndexFolder.create(tmp_path / "index").catalog(create=True).close()
    with client(tmp_path / "index") as asker:
        assert asker.get("/api/pictures").json() == {"total": 0, "offset": 0, "generation": 0, "items": []}
        assert asker.get("/api/index").json()["spaces"] == []
        assert problem(asker.post("/api/runs", json={}), 409)
        assert asker.get("/").status_code == 200
