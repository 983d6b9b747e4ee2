"""One picture over the whole window, in a real browser: turned, zoomed, moved, told about, and left again."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from indexing import build, draw
from pages import Page, browser, fresh
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from webs import client, problem, served

PICTURES = 5
WIDE = (3000, 1200)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures; the last is larger than a screen."""
    folder = tmp_path_factory.mktemp("lightbox")
    draw(folder / "pictures", range(PICTURES))
    Image.effect_mandelbrot(WIDE, (-2, -1, 1, 1), 20).save(folder / "pictures" / "zz wide ü.png")
    build(folder / "index", folder / "pictures")
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


def shown(page: Page, name: str) -> None:
    page.until(lambda: page.texts("#lightbox h2") == [name], f"{name} is not shown")
    loaded = "const i = document.querySelector('.stage img'); return i.complete && i.naturalWidth > 0"
    page.until(lambda: page.js(loaded), "no picture")


def open_last(page: Page) -> None:
    page.js("document.activeElement.blur()")
    page.press(Keys.ARROW_RIGHT, Keys.END, "o")
    shown(page, "zz wide ü.png")


def share(page: Page) -> int:
    return int(page.one(".share").get_attribute("textContent").removesuffix(" %"))


def test_it_opens_turns_and_closes_by_keys_and_focus_comes_back(page):
    names = page.names()
    page.js("document.activeElement.blur()")
    page.press(Keys.ARROW_RIGHT, "o")
    shown(page, names[0])
    assert page.js("return document.activeElement.closest('dialog').id") == "lightbox"
    page.press(Keys.ARROW_RIGHT)
    shown(page, names[1])
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)  # before the first there is none
    shown(page, names[0])
    page.press(Keys.ARROW_RIGHT)
    shown(page, names[1])
    for _ in range(20):
        page.press(Keys.TAB)
        assert page.js("return document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.press(Keys.ESCAPE)
    assert not page.all("#lightbox")
    assert page.js("return document.activeElement.closest('.tile').querySelector('.name').textContent") == names[1]


def test_details_the_path_to_copy_and_the_way_on(page, index):
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    open_last(page)
    page.until(lambda: page.all(".about-picture .copy"), "no details")
    text = page.one(".about-picture").text
    assert "3,000 × 1,200 px, PNG" in text and "(of the file)" in text
    page.click(".about-picture .copy")
    page.until(lambda: page.texts(".toast span"), "nothing was said")
    path = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert path == str(index.parent / "pictures" / "zz wide ü.png")
    page.does(lambda: page.button("Ask with this").click())
    assert "?q=" in page.driver.current_url and not page.all("#lightbox")
    page.click(".tile .tool.open")
    page.until(lambda: page.all(".about-picture .copy"), "no details")
    text = page.one(".about-picture").text
    assert "Number 1" in text and "Likeness" in text and "Score" in text
    page.shoot("lightbox")
    page.does(lambda: page.button("Why is it here?").click())
    assert "/why" in page.driver.current_url


def test_it_is_zoomed_and_moved_and_the_full_size_comes(page):
    open_last(page)
    size = "return document.querySelector('.stage img').naturalWidth"
    page.until(lambda: page.js(size) == 1600, "the preview does not come")
    whole = share(page)
    page.press("1")
    assert share(page) == 100 > whole
    page.until(lambda: page.js(size) == WIDE[0], "the full size does not come")
    at = "return document.querySelector('.stage img').getBoundingClientRect().left"
    before = page.js(at)
    ActionChains(page.driver).move_to_element(page.one(".stage")).click_and_hold().move_by_offset(
        90, 0
    ).release().perform()
    assert page.js(at) == pytest.approx(before + 90, abs=2)
    page.press("+")
    assert share(page) == 150
    page.press("0")
    assert share(page) == whole
    page.js("document.querySelector('.stage').dispatchEvent(new WheelEvent('wheel', {deltaY: -360}))")
    assert share(page) == pytest.approx(whole * 2.718, abs=2)


def test_a_swipe_turns(page):
    names = page.names()
    page.click(".tile .tool.open")
    shown(page, names[0])
    swipe = """
    const stage = document.querySelector('.stage');
    for (const [name, x] of [['pointerdown', 600], ['pointermove', 450], ['pointerup', 450]])
      stage.dispatchEvent(new PointerEvent(name, {pointerId: 1, pointerType: 'touch', clientX: x, clientY: 300}));
    """
    page.js("Element.prototype.setPointerCapture = () => {}")
    page.js(swipe)
    shown(page, names[1])


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_every_width(page, width):
    page.width(width)
    page.open("/")
    page.click(".tile .tool.open")
    page.until(lambda: page.all("#lightbox .stage img"), "no picture")
    if width < 500:
        page.press("i")
    page.until(lambda: page.all(".about-picture .copy"), "no details")
    inside = """
    return [...document.querySelectorAll('#lightbox button, #lightbox a')].map((one) => one.getBoundingClientRect())
      .filter((box) => box.width && (box.left < 0 || box.right > innerWidth + 1)).length"""
    assert page.js(inside) == 0
    page.shoot(f"lightbox-{width}")
    if width < 500:
        page.press("i")


def test_the_query_itself_opens(page, index, tmp_path):
    draw(tmp_path, range(90, 91))
    (outside,) = tmp_path.rglob("*.png")
    page.does(lambda: page.one("#file").send_keys(str(outside)))
    page.click(".query-picture .open")
    shown(page, "Your picture")
    assert "not in the index" in page.one(".about-picture").text


def test_files_of_full_size_and_as_they_are(index):
    with client(index) as asker:
        last = asker.get("/api/pictures").json()["items"][-1]
        full = asker.get(f"/full/{last['id']}?v={last['version']}")
        assert full.headers["content-type"] == "image/webp" and "immutable" in full.headers["cache-control"]
        again = asker.get(f"/full/{last['id']}", headers={"If-None-Match": full.headers["etag"]})
        assert again.status_code == 304
        file = index.parent / "pictures" / "zz wide ü.png"
        original = asker.get(f"/originals/{last['id']}")
        assert original.content == file.read_bytes()
        assert original.headers["content-type"] == "application/octet-stream"
        disposition = original.headers["content-disposition"]
        assert disposition.startswith("attachment") and unquote(disposition).endswith("zz wide ü.png")
        kept = file.read_bytes()
        file.write_bytes(kept + b"changed")
        try:
            assert "has changed" in problem(asker.get(f"/originals/{last['id']}"), 404)
            assert "has changed" in problem(asker.get(f"/full/{last['id']}"), 404)
        finally:
            file.write_bytes(kept)
        asker.headers.pop("Authorization")
        assert asker.get(f"/originals/{last['id']}").status_code == 401
