"""Lists of pictures in a real browser: found by file name, in another order and size, filters as chips and a tree of
folders, more than 200 neighbours, ranges selected."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from indexing import build, draw
from pages import Page, browser, fresh
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from webs import answers, client, problem, served

PICTURES = 230


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """230 small pictures in a tree of folders, each file a day older than the one before."""
    folder = tmp_path_factory.mktemp("list")
    draw(folder / "all" / "first" / "deep", range(10))
    draw(folder / "all" / "second_%", range(10, PICTURES))
    for day, file in enumerate(sorted((folder / "all").rglob("*.png"))):
        os.utime(file, (1_600_000_000 - 86_400 * day,) * 2)
    build(folder / "index", folder / "all")
    return folder / "index"


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def address(index: Path) -> Iterator[str]:
    with served(index) as there:
        yield there


@pytest.fixture
def page(driver: webdriver.Chrome, address: str) -> Iterator[Page]:
    with fresh(driver, address) as made:
        yield made


def listed(index: Path, order: str) -> list[dict]:
    with client(index) as asker:
        return asker.get(f"/api/pictures?limit=500&order={order}").json()["items"]


def test_orders_of_the_whole_list(index):
    by_path = [item["name"] for item in listed(index, "path")]
    assert [item["name"] for item in listed(index, "newest")] == by_path  # as the files were dated
    assert [item["name"] for item in listed(index, "oldest")] == by_path[::-1]
    sizes = [item["bytes"] for item in listed(index, "largest")]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]
    assert [item["bytes"] for item in listed(index, "smallest")] == sizes[::-1]
    with client(index) as asker:
        assert "order" in problem(asker.get("/api/pictures?order=best"), 422)


def test_a_part_of_the_path_is_a_filter(index):
    with client(index) as asker:
        known = asker.get("/api/pictures?limit=500").json()["items"]
        name = known[-1]["name"]

        def total(part: str) -> int:
            return int(asker.post("/api/pictures", json={"name": part}).json()["total"])

        assert total(f"second_%/{name.upper()}") == 1
        assert total("FIRST/deep") == 10
        assert total("second_%") == PICTURES - 10 and total("s_cond") == 0  # signs of SQL are letters like others
        assert total("nowhere") == 0
        ranked = answers(asker, picture=known[0]["id"], filters={"name": "deep"})[-1]
        assert len(ranked["hits"]) == 9 and {hit["folder"].rsplit("/", 1)[1] for hit in ranked["hits"]} == {"deep"}
        assert all(hit["date"] and hit["bytes"] for hit in ranked["hits"])


def test_a_name_is_typed_and_a_chip_takes_it_off(page):
    field = page.one("#file-name")
    page.does(lambda: field.send_keys("first"))
    page.until(lambda: page.one(".count").text == "10 pictures", "the names were not searched")
    assert page.js("return document.activeElement.id") == "file-name"  # one can go on typing
    page.does(lambda: page.press("/deep"))
    page.until(lambda: "name=first/deep" in page.driver.current_url, "what was typed then is lost")
    assert page.texts(".chip span:first-child") == ["name has “first/deep”"]
    page.does(lambda: page.click(".chip"))
    assert page.one(".count").text == f"{PICTURES} pictures" and not page.all(".chip")


def test_a_tree_of_folders(page):
    page.press("f")
    page.until(lambda: page.all(".folder-name"), "no folders came")
    assert page.texts(".folder-name span:first-child")[1:] == ["first", "deep", "second_%"]
    deep = page.all(".folder-name")[2]
    assert not deep.is_displayed()
    page.js("arguments[0].click()", page.all("button.twist")[1])
    assert deep.is_displayed()
    page.does(deep.click)
    assert page.one(".count").text == "10 pictures" and page.texts(".chip span:first-child") == ["in deep"]
    page.until(lambda: len(page.all(".folder-name")) == 4, "no folders came")
    assert page.all(".folder-name")[2].is_displayed()  # what is chosen is not folded away
    page.shoot("folders")
    page.does(lambda: page.js("arguments[0].click()", page.all(".folder-name")[3]))
    assert page.one(".count").text == f"{PICTURES} pictures" and len(page.all(".chip")) == 2


def test_order_and_size_of_the_tiles(page):
    names = page.names()
    order = "const o = document.querySelector('#order'); o.value = arguments[0]; o.dispatchEvent(new Event('change'))"
    page.does(lambda: page.js(order, "oldest"))
    page.until(lambda: page.names() and page.names()[0] != names[0], "the order stays")
    assert "sort=oldest" in page.driver.current_url
    wide = page.one(".tile").size["width"]
    size = "const o = document.querySelector('#tile-size'); o.value = 400; o.dispatchEvent(new Event('input'))"
    page.js(size)
    page.until(lambda: page.one(".tile").size["width"] > 1.5 * wide, "the tiles stay")
    page.open("/")
    assert page.one(".tile").size["width"] > 1.5 * wide


def test_more_than_200_neighbours_and_their_order(page, index):
    with client(index) as asker:
        first = asker.get("/api/pictures").json()["items"][0]["id"]
    page.open(f"/?q={first}")
    assert page.one(".head h1").text.startswith("Closest 200")
    page.does(lambda: page.js("arguments[0].click()", page.one(".further button")))
    page.until(lambda: page.one(".head h1").text.startswith(f"Closest {PICTURES - 1}"), "no more came")
    assert not page.all(".further button") and "k=400" in page.driver.current_url
    order = "const o = document.querySelector('#order'); o.value = 'name'; o.dispatchEvent(new Event('change'))"
    page.does(lambda: page.js(order))
    page.until(lambda: page.names() == sorted(page.names()), "the order stays")
    ranks = [int(text.removeprefix("Rank ")) for text in page.texts(".tile .rank")]
    assert ranks != sorted(ranks)


def test_shift_selects_a_range(page):
    page.js("arguments[0].click()", page.all(".tile .select")[1])
    fifth = page.one("[data-number='5'] .select")
    page.js("arguments[0].dispatchEvent(new MouseEvent('click', {shiftKey: true, bubbles: true}))", fifth)
    page.until(lambda: "5 pictures" in page.one("#selection").text, "no range")
    page.press(Keys.ESCAPE)
    page.js("document.activeElement.blur()")
    page.press(Keys.ARROW_RIGHT, Keys.HOME, " ", Keys.END)
    last = f"return document.activeElement.closest('[data-number]')?.dataset.number === '{PICTURES - 1}'"
    page.until(lambda: page.js(last), "the end was not reached")
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(" ").key_up(Keys.SHIFT).perform()
    page.until(lambda: f"{PICTURES} pictures" in page.one("#selection").text, "no range over what was not loaded")
    page.press(Keys.ESCAPE)
