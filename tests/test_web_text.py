"""Words on the page and in its API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY
from fastapi.testclient import TestClient
from indexing import FAST, build, draw
from pages import Page, browser
from selenium.webdriver.common.keys import Keys
from tiny_texts import make_clip
from webs import TOKEN, answers, client, problem, served

from diffsim import Example, Query, Text
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Searcher


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("words")
    draw(work / "pictures", range(24))
    requests = requested_spaces(str(TINY), ["look"], size=64, tier="fp32")
    requests += requested_spaces(str(make_clip(work / "clip")), variant="global")
    index_folders(IndexFolder.create(work / "index"), [work / "pictures"], requests, FAST)
    return work / "index"


@pytest.fixture(scope="module")
def asker(index: Path) -> Iterator[TestClient]:
    with client(index) as someone:
        yield someone


def test_a_text_is_a_query(asker: TestClient, index: Path) -> None:
    lines = answers(asker, text="a red bicycle", k=5)
    assert [line["stage"] for line in lines] == ["recalled", "ranked"]
    hits = Searcher(index, "cpu").search(Text("a red bicycle"), k=5)
    assert [hit["id"] for hit in lines[-1]["hits"]] == [hit.content_id for hit in hits]
    assert lines[-1]["texts"] == [{"text": "a red bicycle", "weight": 1.0}]
    assert [space["name"] for space in lines[-1]["spaces"]] == ["clip/global"]


def test_pictures_and_texts_together(asker: TestClient, index: Path) -> None:
    examples = [{"text": "at night"}, {"text": "drawing", "weight": -0.5}]
    lines = answers(asker, picture=1, examples=examples, spaces=["look:2"], k=5)
    query = Query([Example(1), Example(Text("at night")), Example(Text("drawing"), -0.5)], spaces=["look"], k=5)
    assert [hit["id"] for hit in lines[-1]["hits"]] == [h.content_id for h in Searcher(index, "cpu").answer(query).hits]
    assert [text["weight"] for text in lines[-1]["texts"]] == [1.0, -0.5]
    asked = {"search": {"text": "at night", "examples": [{"text": "drawing", "weight": -1}]}}
    assert asker.post("/api/sheet", json=asked).content.startswith(b"\x89PNG")


def test_weights_of_spaces(asker: TestClient, index: Path) -> None:
    spaces = ["look:0.25", "clip/global:0.75"]
    hits = Searcher(index, "cpu").search(1, spaces=spaces, k=5)
    assert [hit["id"] for hit in answers(asker, picture=1, spaces=spaces, k=5)[-1]["hits"]] == [
        hit.content_id for hit in hits
    ]
    assert asker.get("/api/why", params={"a": 1, "b": 2, "space": "look:0.25"}).status_code == 200


def test_what_a_text_may_not_be(asker: TestClient) -> None:
    def told(status: int = 422, **asked: object) -> str:
        return problem(asker.post("/api/search", json=asked), status)

    assert told(text="").startswith("The text is empty;")
    assert told(text="\x00\t").startswith("The text is empty;")
    assert "one of the two" in told(text="cat", picture=1)
    assert "one of the two" in told(picture=1, examples=[{"weight": 1}])
    assert told(text="cat", spaces=["look"]).startswith("The feature space tiny-sd15/look takes no text")
    assert told(text="cat", region=[0, 0, 1, 1]).startswith("A region belongs to a picture")
    assert told(picture=1, spaces=["look:0"]).startswith("'0' is not a weight")
    assert "at most 100000 characters" in told(text="x" * 100_001)
    body = b'{"text": "caf\\udce9"}'
    lone = asker.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    problem(lone, 422)
    assert "read its beginning" in answers(asker, text="x" * 100_000)[-1]["notes"][0]


def test_which_spaces_take_text(asker: TestClient) -> None:
    spaces = asker.get("/api/index").json()["spaces"]
    assert {space["name"]: space["takes_text"] for space in spaces} == {"tiny-sd15/look": False, "clip/global": True}


def test_the_field_for_words(index: Path, tmp_path: Path) -> None:
    """In a real browser: a text alone, beside a picture, and in an index that takes none."""
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")
    with browser() as driver, served(index) as there, served(tmp_path / "index") as without:
        page = Page(driver, there)
        page.width(1280)
        page.open(f"/?token={TOKEN}")
        page.does(lambda: page.one("#words input").send_keys("a red bicycle", Keys.ENTER))
        page.until(lambda: "by clip/global" in page.texts(".head .count")[0], "no answer came")
        assert page.texts("p.words") == ["“a red bicycle”"] and "words=a+red+bicycle" in driver.current_url
        page.shoot("words")
        page.open("/?q=1&words=at+night")
        page.until(lambda: "by tiny-sd15/look + clip/global" in page.texts(".head .count")[0], "no answer came")
        page.shoot("words-and-picture")
        page.width(390)
        page.shoot("words-390")
        bare = Page(driver, without)
        bare.open(f"/?token={TOKEN}")
        bare.one("#words input").send_keys("cat", Keys.ENTER)
        bare.until(lambda: bare.one(".words-needed").is_displayed(), "nothing was said")
        assert "diffsim index --model clip-vit-b32 --variant global" in bare.one(".words-needed").text
        bare.shoot("words-needed")
