"""What files say of their pictures, in the page's API and beside the query in a real browser."""

from pathlib import Path

import pytest
from conftest import TINY
from indexing import FAST
from pages import Page, browser
from test_query_metadata import SAID
from test_retrieval_metadata import exif, subject, xmp
from webs import TOKEN, answers, client, problem, served

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.drawings.gallery import draw

MARKUP = "&lt;img src=x onerror=document.title='markup'&gt;"
HOSTILE = {
    "exif": exif("<b>Canon</b>"),
    "xmp": xmp(subject(MARKUP) + f"<dc:description>{MARKUP}</dc:description>", 'xmp:Rating="-1"'),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("said")
    (folder / "pictures").mkdir()
    subjects = ("cat", "boat", "tree", "mug", "fish")
    for (name, said), what in zip({**SAID, "hostile": HOSTILE}.items(), subjects, strict=True):
        draw(what, "glass", size=256).save(folder / "pictures" / f"{name}.jpg", **said)
    requests = requested_spaces(str(TINY), ["look"], size=64, tier="fp32")
    index_folders(IndexFolder.create(folder / "index"), [folder / "pictures"], requests, FAST)
    return folder / "index"


def test_the_api_filters_and_tells_what_files_say(index: Path) -> None:
    with client(index) as asker:
        items = asker.get("/api/pictures").json()["items"]
        ids = {Path(item["name"]).stem: item["id"] for item in items}
        for filters, passing in (
            ({"camera": "canon"}, {"vienna", "fiji", "hostile"}),
            ({"keywords": ["vienna", "äpfel"]}, {"vienna"}),
            ({"rating": 3}, {"vienna", "graz"}),
            ({"near": [48.2, 16.4, 10]}, {"vienna"}),
        ):
            found = asker.post("/api/pictures", json=filters).json()["items"]
            assert {Path(item["name"]).stem for item in found} == passing
            hits = answers(asker, picture=ids["plain"], filters=filters)[-1]["hits"]
            assert {Path(hit["name"]).stem for hit in hits} == passing
        for filters in ({"near": [91, 0, 1]}, {"near": [1, 2]}, {"rating": 6}, {"camera": ""}, {"keywords": ["\t"]}):
            problem(asker.post("/api/pictures", json=filters), 422)
        metadata = asker.get(f"/api/pictures/{ids['vienna']}").json()["metadata"]
        assert metadata["caption"] == "Secret garden" and (metadata["latitude"], metadata["rating"]) == (48.208333, 5)
        assert asker.get(f"/api/pictures/{ids['plain']}").json()["metadata"]["camera"] == ""


def test_the_page_shows_it_beside_the_query(index: Path) -> None:
    with served(index) as address, browser() as driver:
        page = Page(driver, address)
        page.width(1280)
        page.open(f"/?token={TOKEN}")
        ids = driver.execute_async_script(
            "const done = arguments[0]; fetch('/api/pictures').then((r) => r.json()).then((r) =>"
            " done(Object.fromEntries(r.items.map((item) => [item.name, item.id]))))"
        )
        page.open(f"/?q={ids['vienna.jpg']}")
        page.one(".said")
        page.shoot("said")
        assert page.texts(".said") == [
            "Secret garden",
            "Canon EOS R5 · RF24-70mm",
            "★★★★★ · 48.2083, 16.3700",
            "Vienna, Äpfel",
        ]
        page.open(f"/?q={ids['hostile.jpg']}")
        page.one(".said")
        assert "<img src=x" in page.texts(".said")[0] and "rejected" in page.texts(".said") and driver.title != "markup"
        page.open(f"/?q={ids['plain.jpg']}")
        page.one(".name")
        assert page.texts(".said") == []
