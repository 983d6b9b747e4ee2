"""Every hostile or odd file as an upload, and every name of one on its way out: the server stays, names stay text."""

import csv
import io
import stat
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import webs
from conftest import TINY, random_picture
from indexing import diffsim, unpack_nasty
from webs import problem


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = unpack_nasty(tmp_path_factory.mktemp("nasty"))
    options = ("--model", TINY, "--size", "64", "--tier", "fp32", "--device", "cpu")
    assert diffsim("index", folder, "--index", folder.parent / "index", *options).code == 0
    return folder


@pytest.fixture(scope="module")
def client(nasty):
    with webs.client(nasty.parent / "index") as client:
        yield client


def expectations(nasty: Path) -> dict[str, str]:
    with open(nasty / "expected.csv", encoding="utf-8", newline="") as file:
        rows = {row["file"]: row["should_index"] for row in csv.DictReader(file)}
    return {name.replace("\\xe9\\xff", "\udce9\udcff"): expected for name, expected in rows.items()}


def content(path: Path) -> bytes:
    """What a browser would send: links are followed, what is no file has no bytes."""
    try:
        return path.read_bytes() if stat.S_ISREG(path.stat().st_mode) else b""
    except OSError:
        return b""


def test_every_entry_as_an_upload_gives_neighbours_or_one_problem(nasty, client, tmp_path):
    random_picture(5).save(tmp_path / "outside.png")
    outside = (tmp_path / "outside.png").read_bytes()
    outcomes = Counter()
    expected = expectations(nasty)
    assert len(expected) == 99
    for name, should in expected.items():
        data = content(nasty / name)
        answer = client.post("/api/uploads", content=data)
        outcomes[answer.status_code] += 1
        if answer.status_code == 201:
            found = answer.json()
            assert found["width"] > 0 and found["height"] > 0
            searched = client.post("/api/search", json={"picture": found["picture"], "k": 3})
            assert searched.status_code == 200 and searched.text.count('"stage":"ranked"') == 1, name
        else:
            assert should != "yes", name
            problem(answer, 422)
        assert client.post("/api/uploads", content=outside).status_code == 201, name
    assert outcomes.keys() == {201, 422} and min(outcomes.values()) > 20


def test_decoders_are_few_and_none_is_left(nasty, children):
    with webs.client(nasty.parent / "index") as client:
        for name in ("good.jpg", "good.png", "truncated_half.jpg"):
            client.post("/api/uploads", content=content(nasty / name))
        client.get("/thumbnails/1")
        made = children()
        assert 1 <= len(made) <= 4
    assert not made & children()


def every(client, field: str) -> list[str]:
    total = client.get("/api/pictures", params={"limit": 1}).json()["total"]
    items = client.get("/api/pictures", params={"limit": total}).json()["items"]
    assert len(items) == total > 40
    return [item[field] for item in items]


def test_names_are_text_on_one_line(nasty, client):
    names = every(client, "name") + [Path(failed["path"]).name for failed in client.get("/api/index").json()["failed"]]
    assert any("<" in name for name in names)  # as it is: the page makes text of it
    assert any("\\n" in name for name in names) and any("\\xe9\\xff" in name for name in names)
    assert all(name.isprintable() for name in names)


def test_no_name_is_in_the_markup_that_the_server_sends(client):
    names = set(every(client, "name"))
    for page in ("/", "/compare", "/why", "/index"):
        text = client.get(page).text
        assert not [name for name in names if "<" in name and name in text]


def test_every_picture_can_be_looked_at(client):
    for content_id in every(client, "id"):
        for place in (f"/thumbnails/{content_id}", f"/previews/{content_id}"):
            answer = client.get(place)
            assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp", place
            assert answer.content[:4] == b"RIFF"


def test_the_names_in_an_archive_stay_in_its_folder(client):
    pictures = every(client, "id")
    answer = client.post("/api/zip", json={"pictures": pictures})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert len(names) == len(pictures) == len({name.lower() for name in names})
    assert not [name for name in names if "/" in name or "\\" in name or ":" in name or name in ("", ".", "..")]
    assert all(name.replace("\u200c", "").replace("\u200d", "").isprintable() for name in names)
