"""The filter by colour in the page's API and in a real browser."""

from pathlib import Path

import numpy as np
import pytest
from indexing import diffsim
from pages import Page, browser
from PIL import Image
from webs import TOKEN, answers, client, problem, served

COLOURS = {"red": (192, 57, 43), "blue": (44, 91, 212), "grey": (138, 138, 138)}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, each half of one colour and half white."""
    folder = tmp_path_factory.mktemp("coloured")
    for name, colour in COLOURS.items():
        for number in range(4):
            pixels = np.full((40, 40 + number, 3), 255, np.uint8)
            pixels[:20] = colour
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    assert diffsim("index", folder, "--index", folder / "idx", "--by", "colour").code == 0
    return folder / "idx"


def test_lists_and_searches_are_of_the_colour(index: Path) -> None:
    with client(index) as asker:
        asked = {"colours": ["#c0392b:40%"]}
        found = asker.post("/api/pictures?limit=2&offset=1", json=asked).json()
        assert found["total"] == 4 and [item["name"] for item in found["items"]] == ["red1.png", "red2.png"]
        assert asker.post("/api/pictures", json={"colours": ["blue", "red"]}).json()["total"] == 0
        first = asker.get("/api/pictures").json()["items"][0]
        hits = answers(asker, picture=first["id"], filters=asked)[-1]["hits"]
        assert {hit["name"][:3] for hit in hits} == {"red"} and len(hits) == 4
        refused = asker.post("/api/pictures", json={"colours": ["bleu"]})
        assert "'bleu' cannot be read" in problem(refused, 422)


def test_a_colour_is_chosen_in_the_page(index: Path) -> None:
    with served(index) as address, browser() as driver:
        page = Page(driver, address)
        page.width(1280)
        page.open(f"/?token={TOKEN}")
        page.until(lambda: len(page.all(".tile")) == 12, "all pictures")
        page.click("#filters summary")
        page.click(".palette [title='#2c5bd4']")
        page.until(lambda: len(page.all(".tile")) == 4, "the blue ones")
        assert "has the colour #2c5bd4" in page.one(".chips").text
        page.shoot("colour")
        page.click(".chips .chip")
        page.until(lambda: len(page.all(".tile")) == 12, "all pictures")
