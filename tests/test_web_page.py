"""The page in a real browser: every numbered point of what a person can do. Leaves its screenshots in screenshots/."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY
from indexing import FAST, draw
from pages import Page, browser
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from webs import TOKEN, served

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.web.browser import LEADS
from diffsim.retrieval.drawings.gallery import draw as drawing

LOOK = (Path(__file__).parent / "look.js").read_text(encoding="utf-8")
NASTY = "<img src=x onerror=document.title='markup'>.png"
STYLES = ("neon", "pencil", "glass", "poster", "ink")
SUBJECTS = ("cat", "house", "tree", "boat", "fish")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-five drawings in two folders and two feature spaces, a hostile name, and a broken file."""
    folder = tmp_path_factory.mktemp("page")
    for style in STYLES:
        place = folder / "gallery" / ("dark" if style in ("neon", "ink") else "light")
        place.mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            drawing(subject, style, size=128).save(place / f"{subject}-{style}.png")
    drawing("mug", "glass", size=128).save(folder / "gallery" / NASTY)
    (folder / "gallery" / "broken.png").write_text("no picture")
    requests = requested_spaces(str(TINY), ["style", "instance"], size=64, tier="fp32")
    index_folders(IndexFolder.create(folder / "index"), [folder / "gallery"], requests, FAST)
    drawing("mug", "neon", size=160).resize((160, 100)).save(folder / "outside.png")
    return folder


@pytest.fixture(scope="module")
def address(gallery: Path) -> Iterator[str]:
    with served(gallery / "index") as there:
        yield there


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as made:
        yield made


@pytest.fixture
def page(driver: webdriver.Chrome, address: str) -> Iterator[Page]:
    made = Page(driver, address)
    made.width(1280)
    made.media(dark=False)
    made.open(f"/?token={TOKEN}")
    assert "token" not in driver.current_url
    driver.get_log("browser")
    driver.get_log("performance")
    yield made
    problems = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith((address, "blob:", "data:")) for url in urls), urls  # nothing leaves the machine


def query_id(page: Page, name: str) -> int:
    items = page.driver.execute_async_script(
        "const done = arguments[0]; fetch('/api/pictures?limit=500').then((r) => r.json()).then((r) => done(r.items))"
    )
    return int(next(item["id"] for item in items if item["name"] == name))


# 1. Drop, paste or choose; ranked neighbours; how sure they are


def test_a_chosen_picture_gives_ranked_neighbours(page, gallery):
    page.does(lambda: page.one("#file").send_keys(str(gallery / "outside.png")))
    page.until(lambda: page.texts(".head h1") and "…" not in page.texts(".head h1")[0], "no ranking came")
    assert "?q=u" in page.driver.current_url and "Your picture" in page.one(".about").text
    page.one(".tile .pick")
    ranks = [int(text.removeprefix("Rank ")) for text in page.texts(".tile .rank")]
    assert ranks[:5] == [1, 2, 3, 4, 5]
    scores = [float(text) for text in page.texts(".tile .score")]
    assert scores == sorted(scores, reverse=True)
    assert set(page.texts(".tile .chance")) <= {"sure", "likely", "weak"}
    assert len(page.names()) == len(scores) and all(page.texts(".tile .folder"))
    page.shoot("upload")


def test_the_headline_counts_and_every_tile_says_how_sure_it_is(page):
    page.open(f"/?q={query_id(page, 'cat-neon.png')}")
    words = page.texts(".tile .chance")
    shown, sure = page.texts(".head h1")[0], words.count("sure")
    assert shown.startswith(f"Closest {page.one('.tile').get_attribute('aria-setsize')}")
    assert (f"{sure} of them sure" in shown) == bool(sure)
    assert len(page.all(".tile.sure")) == sure
    opacity = "return new Set([...document.querySelectorAll('.tile img')].map((i) => getComputedStyle(i).opacity)).size"
    assert page.js(opacity) == 1
    widths = page.js("return [...document.querySelectorAll('.tile .bar-of i')].map((i) => i.offsetWidth)")
    assert len(widths) == len(words) and widths == sorted(widths, reverse=True) and widths[0] > widths[-1]
    assert "technique" in page.one("#spaces-help").text
    page.shoot("neighbours")


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_a_pasted_or_dropped_picture(page, how):
    make = """
    const canvas = new OffscreenCanvas(64, 48); canvas.getContext('2d').fillRect(9, 9, 20, 20);
    canvas.convertToBlob().then((blob) => {
      const data = new DataTransfer(); data.items.add(new File([blob], 'a.png', {type: 'image/png'}));
      const event = arguments[0] === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
      document.body.dispatchEvent(event);
    });"""
    page.does(lambda: page.js(make.replace("arguments[0]", f"'{how}'")))
    assert "?q=u" in page.driver.current_url


def test_several_pictures_are_asked_together(page, gallery):
    """The first is the query, the others are examples; what cannot be read is named."""
    names = ("outside.png", "gallery/dark/cat-neon.png", "gallery/light/cat-pencil.png")
    there = [str(gallery / name) for name in names]
    page.does(lambda: page.one("#file").send_keys("\n".join(there)))
    page.until(lambda: page.texts(".head h1") and "…" not in page.texts(".head h1")[0], "no ranking came")
    assert len(page.all(".examples li")) == 2
    assert "3 pictures together" in page.one(".toast").text
    page.shoot("several")
    page.does(lambda: page.one("#file").send_keys(f"{gallery / 'gallery' / 'broken.png'}\n{gallery / 'outside.png'}"))
    assert "broken.png: " in page.one(".toast.problem").text and "?q=u" in page.driver.current_url
    page.driver.get_log("browser")  # the browser tells its console of the 422 too


def test_why_of_a_region_and_of_several_spaces(page):
    query = query_id(page, "cat-neon.png")
    neighbour = query_id(page, "cat-ink.png")
    page.open(f"/why?q={query}&b={neighbour}&box=0.1,0.2,0.4,0.5&by=tiny-sd15/style,tiny-sd15/instance")
    assert "of the region" in page.one(".head .count").text
    assert page.one(".layer .counted").size["width"] > 20
    names = page.texts(".head .spaces a")
    assert len(names) == 2 and all("0." in name for name in names)
    first = page.one(".head h1").text
    page.shoot("why-region")
    page.does(lambda: page.click(".head .spaces a:not([aria-current])"))
    assert "at=" in page.driver.current_url and "by=tiny-sd15/style,tiny-sd15/instance" in page.driver.current_url
    assert page.one(".head h1").text != first and page.one(".head .spaces a[aria-current]").text == names[1]


def test_the_page_opens_from_a_file_that_leads_to_it(page, address, tmp_path):
    """As `diffsim browse` opens it: the token is on no command line."""
    lead = tmp_path / "open.html"
    lead.write_text(LEADS.format(address=f"{address}/?token={TOKEN}"))
    page.driver.delete_all_cookies()
    page.driver.get(lead.as_uri())
    page.until(lambda: page.driver.current_url == f"{address}/", "the page did not come")
    page.settle()
    assert page.all(".tile")
    page.driver.get_log("performance")  # the file itself was not of the page


def test_what_is_no_picture_is_said(page, gallery):
    page.one("#file").send_keys(str(gallery / "gallery" / "broken.png"))
    assert "not a picture" in page.one(".toast.problem").text
    (told,) = page.driver.get_log("browser")  # the browser tells its console too
    assert "/api/uploads" in told["message"] and "422" in told["message"]


# 2. Click on; back and forward; the address holds the query


def test_a_click_makes_it_the_query_and_back_leads_back(page):
    page.does(lambda: page.click(".tile .pick"))
    first = page.driver.current_url
    heading = page.texts(".head h1")
    page.one(".tile .pick")
    page.does(lambda: page.click(".tile .pick"))
    second = page.driver.current_url
    assert first != second
    page.does(page.driver.back)
    assert page.driver.current_url == first and page.texts(".head h1") == heading
    page.does(page.driver.forward)
    assert page.driver.current_url == second
    page.driver.refresh()
    page.settle()
    assert page.driver.current_url == second and page.texts(".about .name")


# 3. Spaces


def test_spaces_are_switched_weighed_together_and_compared(page):
    page.open(f"/?q={query_id(page, 'cat-glass.png')}")
    assert page.texts("#spaces [aria-pressed=true]") == ["style"]
    page.does(lambda: page.press("2"))
    assert "instance" in page.driver.current_url and page.texts("#spaces [aria-pressed=true]") == ["instance"]
    style = page.one("#spaces button")
    page.does(lambda: ActionChains(page.driver).key_down(Keys.SHIFT).click(style).key_up(Keys.SHIFT).perform())
    assert len(page.texts("#spaces [aria-pressed=true]")) == 2
    page.does(lambda: page.press("c"))
    assert [row.get_attribute("aria-label").split("/")[1] for row in page.all(".space-row")] == ["style", "instance"]
    assert all(len(row.find_elements(By.CSS_SELECTOR, ".tile")) == 8 for row in page.all(".space-row"))
    page.shoot("compare")


# 4. Region


def test_a_region_is_drawn_and_the_cut_out_is_the_other_reading(page):
    page.open(f"/?q={query_id(page, 'cat-poster.png')}")
    picture = page.one(".query-picture")
    side = picture.size["width"]
    drag = ActionChains(page.driver).move_to_element_with_offset(picture, -side // 4, -side // 4).click_and_hold()
    page.does(lambda: drag.move_by_offset(side // 2, side // 3).release().perform())
    box = [float(number) for number in page.driver.current_url.split("box=")[1].split("&")[0].split(",")]
    assert box == pytest.approx([0.25, 0.25, 0.5, 0.33], abs=0.02)
    assert "within the whole picture" in page.one(".reading").text and page.one(".region-box").is_displayed()
    page.shoot("region")
    page.does(lambda: page.click(".reading button"))
    assert "?q=u" in page.driver.current_url and "box" not in page.driver.current_url
    size = page.js("const i = document.querySelector('.query-picture img'); return [i.naturalWidth, i.naturalHeight]")
    assert size == pytest.approx([64, 42], abs=2)


def box(page: Page) -> list[float]:
    return [float(number) for number in page.driver.current_url.split("box=")[1].split("&")[0].split(",")]


def test_a_region_is_moved_and_resized_by_mouse_and_keys(page):
    page.open(f"/?q={query_id(page, 'cat-poster.png')}&box=0.2,0.2,0.4,0.4")
    side = page.one(".query-picture").size["width"]
    drag = ActionChains(page.driver).move_to_element(page.one(".region-box")).click_and_hold()
    page.does(lambda: drag.move_by_offset(side // 5, side // 10).release().perform())
    assert box(page) == pytest.approx([0.4, 0.3, 0.4, 0.4], abs=0.02)
    corner = page.one(".handle[data-corner=nw]")
    drag = ActionChains(page.driver).move_to_element(corner).click_and_hold()
    page.does(lambda: drag.move_by_offset(-side // 10, side // 10).release().perform())
    assert box(page) == pytest.approx([0.3, 0.4, 0.5, 0.3], abs=0.02)
    before = page.driver.current_url
    ActionChains(page.driver).move_to_element(page.one(".region-box")).click().perform()  # a click is no move
    assert page.driver.current_url == before
    left, top, wide, high = box(page)
    page.js("arguments[0].focus()", page.one(".region-box"))
    page.does(lambda: page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_DOWN))
    assert box(page) == pytest.approx([left - 0.04, top + 0.02, wide, high], abs=1e-3)
    assert page.js("return document.activeElement.className") == "region-box"  # one can go on
    grow = ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT)
    page.does(grow.perform)
    assert box(page) == pytest.approx([left - 0.04, top + 0.02, wide + 0.02, high], abs=1e-3)
    page.does(lambda: page.press(Keys.DELETE))
    assert "box=" not in page.driver.current_url


def test_a_region_by_numbers_and_back_to_the_whole(page):
    page.open(f"/?q={query_id(page, 'cat-poster.png')}")
    page.click(".numbers summary")
    page.does(lambda: page.click(".numbers form button"))
    assert "box=0.25,0.25,0.5,0.5" in page.driver.current_url
    page.does(lambda: page.button("Whole picture").click())
    assert "box" not in page.driver.current_url


# 5. Why


def test_why_shows_both_pictures_and_where_attention_falls(page):
    page.open(f"/?q={query_id(page, 'cat-neon.png')}")
    page.one(".tile .pick")
    page.does(lambda: page.click(".tile .why"))
    assert "/why" in page.driver.current_url
    assert page.one(".head h1").text.startswith("Score ")
    pixels = "return [...arguments[0].getContext('2d').getImageData(0, 0, 2, 2).data]"
    assert any(page.js(pixels, page.one(".heat")))
    layers = page.all(".layer")
    ActionChains(page.driver).move_to_element_with_offset(layers[0], -60, -60).perform()
    page.until(lambda: "looks most at row" in page.one(".why-words").text, "nothing was said")
    assert any(page.js(pixels, page.all(".attention")[1])) and page.one(".spot").is_displayed()
    page.until(lambda: float(page.all(".attention")[1].value_of_css_property("opacity")) > 0.9, "nothing was shown")
    page.shoot("why")
    page.js("arguments[0].focus()", layers[1])
    page.press(Keys.ARROW_LEFT, Keys.ARROW_UP)
    page.until(lambda: "Row 1, column 1" in page.one(".why-words").text, "the keys do not move")
    page.does(lambda: page.press(Keys.ESCAPE))
    assert "/why" not in page.driver.current_url


# 6. Examples, filters, folding, selection


def test_more_and_less_like_others(page):
    page.open(f"/?q={query_id(page, 'cat-neon.png')}")
    page.one(".tile .pick")
    page.does(lambda: page.click(".tile .more"))
    page.one(".tile .pick")
    page.does(lambda: page.click(".tile .less"))
    assert page.driver.current_url.count("also=") == 2 and "@-0.5" in page.driver.current_url
    weight = page.one(".examples input")
    page.does(lambda: page.js("arguments[0].value = '2.5'; arguments[0].dispatchEvent(new Event('change'))", weight))
    assert "@2.5" in page.driver.current_url
    page.shoot("examples")
    page.does(lambda: page.click(".examples .icon"))
    assert page.driver.current_url.count("also=") == 1


def choose(page: Page, number: int, value: str) -> None:
    control = page.all("#filters select, #filters input")[number]
    page.js("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", control, value)


def test_filters_apply_to_all_pictures_and_to_a_search(page, gallery):
    page.press("f")
    folder = str(gallery / "gallery" / "dark")
    page.until(lambda: page.all(f"#filters [data-folder='{folder}']"), "no folders came")
    page.does(lambda: page.click(f"#filters [data-folder='{folder}']"))
    assert page.one(".count").text == "10 pictures"
    page.does(lambda: choose(page, 2, "1000"))
    assert page.one(".count").text == "0 pictures" and "filters" in page.one("main > div > .notice, .notice").text
    page.does(lambda: choose(page, 2, ""))
    page.does(lambda: page.click(".tile .pick"))
    page.until(lambda: "of 9 " in page.one(".count").text or "of 10 " in page.one(".count").text, "the filter is gone")
    page.one(".tile .pick")
    assert set(page.texts(".tile .folder")) == {"…/gallery/dark"}
    page.shoot("filters")
    page.does(lambda: page.click(".check input"))
    assert "fold=1" in page.driver.current_url


def test_a_selection_is_copied_and_taken_away(page, gallery, tmp_path):
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    where = {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": False}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    page.open(f"/?q={query_id(page, 'cat-neon.png')}")
    page.one(".tile .pick")
    page.until(lambda: len(page.all(".tile .select")) > 3, "no tiles")
    for button in page.all(".tile .select")[:3]:
        page.js("arguments[0].click()", button)
    assert "3 pictures" in page.one("#selection").text
    page.shoot("selection")

    def copied(text: str) -> str:
        page.button(text).click()
        page.until(lambda: any("copied" in said for said in page.texts(".toast span")), "nothing was copied")
        page.click(".toast button")
        return str(page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])"))

    paths = copied("Copy paths").splitlines()
    assert len(paths) == 3 and all(Path(path).exists() for path in paths)
    rows = [json.loads(line) for line in copied("JSON").splitlines()]
    assert [row["path"] for row in rows] == paths and rows[0]["rank"] == 1 and rows[0]["score"] > 0
    assert copied("CSV").splitlines()[0].startswith("rank,score,likeness,by_chance,path")
    for text, name in (("ZIP", "diffsim.zip"), ("Sheet", "diffsim.png")):
        page.button(text).click() if text == "ZIP" else page.js(
            "document.querySelectorAll('#selection button')[4].click()"
        )
        page.until(lambda name=name: (tmp_path / name).exists(), f"{name} did not come")
    with Image.open(tmp_path / "diffsim.png") as sheet:
        assert sheet.width > 500
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.one("#selection").is_displayed(), "the selection stays")


# 7. The index


def test_the_index_its_failures_and_a_run(page, gallery):
    page.does(lambda: page.click("#to-index"))
    page.one(".failed")
    text = page.one("main").text
    assert "broken.png" in text and str(gallery / "gallery") in text and "tiny-sd15/style" in text
    draw(gallery / "gallery" / "late", range(5))
    page.button("Bring up to date").click()
    page.until(lambda: page.all(".card.run"), "no run is shown")
    page.until(lambda: page.texts(".card.run h2")[0].startswith("Indexed"), "the run does not end", 900)
    assert "5 new" in page.one(".lines").text
    page.shoot("index")
    (gallery / "further").mkdir()
    drawing("mug", "ink", size=128).save(gallery / "further" / "mug-ink.png")
    page.one("#new-folder").send_keys(str(gallery / "nowhere"))
    page.button("Add folder").click()
    assert "There is no folder" in page.one(".toast.problem").text
    page.driver.get_log("browser")  # the browser tells its console of the 422 too
    page.one("#new-folder").clear()
    page.one("#new-folder").send_keys(str(gallery / "further"))
    page.button("Add folder").click()
    page.until(lambda: str(gallery / "further") in " ".join(page.texts(".stack th")), "the folder is not added", 900)
    page.until(lambda: page.texts(".card.run h2")[0].startswith("Indexed"), "the run does not end", 900)


# Keys, widths, names


def test_the_keyboard_goes_everywhere(page):
    page.js("document.activeElement.blur()")
    page.press(Keys.ARROW_RIGHT)
    focus = "return Number(document.activeElement.closest('[data-number]')?.dataset.number ?? -1)"
    assert page.js(focus) == 0
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.js(focus) == 2
    page.press(Keys.ARROW_DOWN)
    assert page.js(focus) > 4
    page.press(Keys.END)
    assert page.js(focus) == int(page.one(".tile").get_attribute("aria-setsize")) - 1
    page.press(Keys.HOME)
    assert page.js(focus) == 0
    page.press(" ")
    assert "1 picture" in page.one("#selection").text
    page.press(Keys.ESCAPE)
    page.press("?")
    assert page.one("#help-dialog").is_displayed()
    page.press(Keys.ESCAPE)
    assert not page.one("#help-dialog").is_displayed()
    page.does(lambda: page.press(Keys.ENTER))
    assert "?q=" in page.driver.current_url
    reachable = page.js("return [...document.querySelectorAll('.grid a')].filter((one) => one.tabIndex === 0).length")
    assert reachable <= 2  # one of each grid: Tab does not lead through hundreds


def test_a_name_is_text(page):
    assert NASTY in page.names()
    page.does(lambda: page.click("img[alt*='onerror']"))
    page.until(lambda: page.texts(".about .name") == [NASTY], "the name is not shown")
    assert page.driver.title != "markup" and not page.all("img[src=x]")


@pytest.mark.parametrize("width", [360, 1280, 1920])
@pytest.mark.parametrize("dark", [False, True])
def test_every_view_fits_every_width(page, width, dark):
    page.width(width)
    page.media(dark)
    asked, other = query_id(page, "cat-neon.png"), query_id(page, "boat-neon.png")
    views = {
        "all": "/",
        "search": f"/?q={asked}&also={other}@-1",
        "compare": f"/compare?q={asked}",
        "why": f"/why?q={asked}&b={other}",
        "state": "/index",
    }
    for name, path in views.items():
        page.open(path)
        assert page.js("return document.documentElement.scrollWidth") <= width, name
        assert page.js(LOOK + "return outside();") == [], name
        assert page.js(LOOK + "return poorContrast();") == [], name
        page.shoot(f"{name}-{width}-{'dark' if dark else 'light'}")


def test_light_and_dark_by_the_switch(page):
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    light = page.js(ground)
    page.click("#theme")
    dark = page.js(ground)
    assert light != dark
    page.driver.refresh()
    page.settle()
    assert page.js(ground) == dark
    page.click("#theme")
    assert page.js(ground) == light
