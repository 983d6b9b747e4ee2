"""The list of a million pictures in a real browser, whose longest element is shorter than that list."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pages import Page, browser
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from webs import TOKEN, long_index, served

COUNT = 1_000_000
LONGEST_ELEMENT = 17_800_000
"""Pixels, in Firefox; Chromium's is 33,500,000."""

SHOWN = """
const head = document.querySelector(".bar").offsetHeight;
const tiles = [...document.querySelectorAll(".grid > .tile")].map((tile) => {
  const { top, bottom } = tile.getBoundingClientRect();
  return { number: Number(tile.dataset.number), top, bottom, name: tile.querySelector(".name")?.textContent ?? null };
});
const inside = tiles.filter((tile) => tile.bottom > head && tile.top < innerHeight).sort((a, b) => a.number - b.number);
const focused = document.activeElement.closest("[data-number]");
return {
  tiles: inside, all: tiles.length, focus: focused && Number(focused.dataset.number), height: innerHeight, head,
  place: focused && [focused.getAttribute("aria-posinset"), focused.getAttribute("aria-setsize")].map(Number),
};"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(long_index(tmp_path_factory.mktemp("long") / "index", COUNT)) as there:
        yield there


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as made:
        yield made


@pytest.fixture
def page(driver: webdriver.Chrome, address: str) -> Iterator[Page]:
    made = Page(driver, address)
    made.width(1280)
    driver.get(f"{address}/?token={TOKEN}")
    made.until(lambda: made.renders() > 0, "no view came")
    driver.get_log("browser")
    yield made
    problems = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert [problem for problem in problems if "/thumbnails/" not in problem] == []  # there are no files


def shown(page: Page) -> dict[str, Any]:
    """What is in the window once all of it has come."""

    def look() -> Any:
        found = page.js(SHOWN)
        return found if found["tiles"] and all(tile["name"] for tile in found["tiles"]) else None

    found = page.until(look, "the pictures do not come")
    for tile in found["tiles"]:
        assert tile["name"] == f"{tile['number'] + 1:08d}.jpg"
    numbers = [tile["number"] for tile in found["tiles"]]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) and found["all"] < 200
    return dict(found)


def at_rest(page: Page) -> dict[str, Any]:
    """The same, after the grid has had the time to bring the scroll bar to where it belongs."""
    time.sleep(0.4)
    return shown(page)


def position(found: dict[str, Any]) -> tuple[int, float]:
    """Where the list stands: its first tile in the window, and that tile's place in it."""
    return found["tiles"][0]["number"], found["tiles"][0]["top"]


def scroll_bar(page: Page, share: float) -> None:
    """Drag it to a share of its length."""
    page.js("scrollTo(0, arguments[0] * (document.documentElement.scrollHeight - innerHeight))", share)


def wheel(page: Page, pixels: int) -> None:
    ActionChains(page.driver).scroll_by_amount(0, pixels).perform()


def test_the_scroll_bar_reaches_every_part(page):
    assert page.js("return document.documentElement.scrollHeight") < LONGEST_ELEMENT
    assert page.one(".count").text == "1,000,000 pictures"
    assert position(shown(page))[0] == 0
    for share in (0.5, 0.25, 0.9, 0.001):
        scroll_bar(page, share)
        assert position(shown(page))[0] == pytest.approx(share * COUNT, abs=0.03 * COUNT)
        before = position(shown(page))
        assert position(at_rest(page)) == before
    scroll_bar(page, 1)
    end = shown(page)
    assert end["tiles"][-1]["number"] == COUNT - 1 and end["tiles"][-1]["bottom"] <= end["height"]
    page.shoot("long-end")
    scroll_bar(page, 0.5)
    shown(page)
    page.shoot("long-middle")
    scroll_bar(page, 0)
    assert position(shown(page))[0] == 0


def test_a_wheel_goes_by_its_pixels_anywhere(page):
    """Also where the scroll bar is moved on behind the scenes."""
    for share in (0.3, 1.0):
        scroll_bar(page, share)
        shown(page)
        wheel(page, -1200 if share == 1 else 1200)
        start = at_rest(page)
        step = tile_step(start)
        for pixels in (240, 500, -740):
            before = pixels_of(at_rest(page), step)
            wheel(page, pixels)
            assert moved(page, before, step) == pytest.approx(pixels, abs=1)
        assert position(at_rest(page)) == pytest.approx(position(start), abs=1)


def moved(page: Page, before: float, step: tuple[int, float]) -> float:
    """How many pixels a turn of the wheel moved the list."""
    page.until(lambda: pixels_of(page.js(SHOWN), step) != before, "the wheel does nothing")
    return pixels_of(at_rest(page), step) - before


def tile_step(found: dict[str, Any]) -> tuple[int, float]:
    """Tiles in a row, and pixels from row to row."""
    tiles = found["tiles"]
    below = next(tile for tile in tiles if tile["top"] > tiles[0]["top"] + 1)
    return below["number"] - tiles[0]["number"], below["top"] - tiles[0]["top"]


def pixels_of(found: dict[str, Any], step: tuple[int, float]) -> float:
    """How far the list is scrolled."""
    first = found["tiles"][0]
    return float(first["number"] // step[0] * step[1] - first["top"])


def test_a_long_way_by_small_steps_loses_no_pixel(page):
    """Up from a place where the scroll bar has less room than the list, without a rest."""
    scroll_bar(page, 0.03)
    start = at_rest(page)
    step = tile_step(start)
    page.driver.set_script_timeout(300)  # a busy machine draws a few frames a second
    gone = page.driver.execute_async_script(
        """
        const done = arguments[0]; let frames = 0;
        requestAnimationFrame(function frame() {
          scrollBy(0, -500);
          ++frames < 600 ? requestAnimationFrame(frame) : done(frames * 500);
        });"""
    )
    assert pixels_of(start, step) - pixels_of(at_rest(page), step) == pytest.approx(gone, abs=2)


def test_the_keyboard_goes_to_exact_places(page):
    def press(key: str) -> dict[str, Any]:
        page.press(key)
        found = page.until(lambda: (seen := shown(page))["focus"] is not None and seen, "nothing is focused")
        tile = next(tile for tile in found["tiles"] if tile["number"] == found["focus"])
        assert found["head"] <= tile["top"] and tile["bottom"] <= found["height"] + 1
        assert found["place"] == [found["focus"] + 1, COUNT]
        return dict(found)

    def focus(key: str, number: int) -> dict[str, Any]:
        page.press(key)
        page.until(lambda: page.js(SHOWN)["focus"] == number, f"{key} does not lead to {number}")
        found = at_rest(page)
        assert found["focus"] == number and found["place"] == [number + 1, COUNT]
        tile = next(tile for tile in found["tiles"] if tile["number"] == number)
        assert found["head"] <= tile["top"] and tile["bottom"] <= found["height"] + 1
        return found

    columns, _ = tile_step(focus(Keys.ARROW_RIGHT, 0))
    last = COUNT - 1
    focus(Keys.END, last)
    focus(Keys.ARROW_LEFT, last - 1)
    focus(Keys.ARROW_UP, last - 1 - columns)
    up = press(Keys.PAGE_UP)["focus"]
    assert up < last - 1 - columns and (last - 1 - columns - up) % columns == 0
    focus(Keys.PAGE_DOWN, last - 1 - columns)
    focus(Keys.ARROW_DOWN, last - 1)
    focus(Keys.HOME, 0)
    focus(Keys.ARROW_DOWN, columns)
    focus(Keys.PAGE_DOWN, columns + last - 1 - columns - up)


def test_keys_begin_where_the_window_is(page):
    page.press(Keys.ARROW_RIGHT)
    page.js("document.activeElement.blur()")
    scroll_bar(page, 0.6)
    before = position(at_rest(page))
    page.press(Keys.ARROW_RIGHT)
    found = page.until(lambda: (seen := shown(page))["focus"] is not None and seen, "nothing is focused")
    assert 0 <= found["focus"] - before[0] <= 12


def test_a_focused_picture_far_away_keeps_the_focus_and_the_height(page):
    height = "return document.documentElement.scrollHeight"
    page.press(Keys.ARROW_RIGHT)
    before = page.js(height)
    scroll_bar(page, 0.8)
    found = at_rest(page)
    assert found["focus"] == 0 and 0 not in [tile["number"] for tile in found["tiles"]] and page.js(height) == before
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.js(SHOWN)["focus"] == 1, "the next one is not focused")
    assert position(shown(page))[0] == 0


def test_the_way_back_leads_to_the_same_pixel(page):
    scroll_bar(page, 0.4)
    wheel(page, 130)
    before = position(at_rest(page))
    page.js("document.querySelector('#to-index').click()")
    page.until(lambda: page.all(".index .card"), "the index is not shown")
    page.driver.back()
    page.until(lambda: page.all(".grid > .tile"), "the pictures are not shown")
    assert position(at_rest(page)) == pytest.approx(before, abs=1)
    page.driver.refresh()
    page.until(lambda: page.all(".grid > .tile"), "the pictures are not shown")
    assert position(at_rest(page)) == pytest.approx(before, abs=1)


def test_another_width_shows_the_same_pictures(page):
    scroll_bar(page, 0.7)
    before = position(at_rest(page))
    for width in (700, 360, 1920, 1280):
        page.width(width)
        after = position(at_rest(page))
        assert abs(after[0] - before[0]) < 12, width


def test_pages_that_are_passed_by_are_not_asked_for(page):
    page.driver.get_log("performance")
    for share in range(20, 80, 2):
        scroll_bar(page, share / 100)
        time.sleep(0.02)
    shown(page)
    sent = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert len([url for url in urls if "/api/pictures" in url]) < 12


def test_ten_million(page):
    """The grid alone, over pictures that need no server."""
    page.driver.execute_async_script(
        """
        const [count, done] = arguments;
        import("/static/grid.js").then(({ Grid }) => {
          const item = (number) => ({ id: number + 1 });
          const make = ({ id }) => {
            const tile = document.createElement("li");
            tile.className = "tile";
            tile.innerHTML = `<a href="#"><b class="name">${String(id).padStart(8, "0")}.jpg</b></a>`;
            return tile;
          };
          window.grid = new Grid({ label: "Many", count, item, key: (one) => one.id, make });
          document.querySelector("#main").replaceChildren(grid.element);
          grid.refresh(); scrollTo(0, 0); requestAnimationFrame(() => requestAnimationFrame(done));
        });""",
        10 * COUNT,
    )
    assert page.js("return document.documentElement.scrollHeight") < LONGEST_ELEMENT
    scroll_bar(page, 1)
    assert shown(page)["tiles"][-1]["number"] == 10 * COUNT - 1
    scroll_bar(page, 0.5)
    start = at_rest(page)
    assert position(start)[0] == pytest.approx(5 * COUNT, abs=0.1 * COUNT)
    step = tile_step(start)
    wheel(page, 300)
    assert moved(page, pixels_of(start, step), step) == pytest.approx(300, abs=1)
    for number in (7_654_321, 3, 9_999_999, 5_000_000):
        page.js("grid.focus(arguments[0])", number)
        found = at_rest(page)
        assert found["focus"] == number and number in [tile["number"] for tile in found["tiles"]]


def test_scroll_bar_and_list_fit_each_other(page):
    """The mapping goes there and back, never backwards, and neither end is left out."""
    worst = page.driver.execute_async_script(
        """
        const done = arguments[0];
        import("/static/tall.js").then(({ Tall }) => {
          const tall = new Tall(); let [off, back] = [0, 0];
          for (const total of [1000, 7.9e6, 8.1e6, 4.1e7, 4.1e8, 4.1e9]) {
            tall.resize(total);
            let last = -1;
            for (let part = 0; part <= 10000; part++) {
              const top = (total * part) / 10000, pixel = tall.placeOf(top);
              off = Math.max(off, Math.abs(pixel + tall.shiftAt(pixel) - top));
              if (pixel < last || pixel > tall.height) back++;
              last = pixel;
            }
          }
          done([off, back]);
        });"""
    )
    assert worst[0] < 1e-3 and worst[1] == 0
