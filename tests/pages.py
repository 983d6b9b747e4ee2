"""The page in a real browser, as its tests drive it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import find_browser
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from webs import TOKEN

SCREENSHOTS = Path(__file__).parent.parent / "screenshots"


class Page:
    """A browser window on the page, and how to wait for it."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, what: Callable[[], Any], why: str, seconds: float = 120) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = what()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{why}; {self.driver.current_url}: {self.js('return document.body.innerText')[:2000]}")

    def renders(self) -> int:
        return int(self.js("return document.body?.dataset.ready ?? 0"))

    def settle(self, after: int = 0) -> None:
        """A view has come, later than the `after`th, and its pictures are there."""
        self.until(lambda: self.renders() > after, "no view came")
        loaded = "return [...document.images].every((one) => one.complete && (one.naturalWidth || !one.src))"
        self.until(lambda: self.js(loaded), "pictures are missing")

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)
        self.settle()

    def does(self, work: Callable[[], Any]) -> None:
        """Something that leads to another view."""
        before = self.renders()
        work()
        self.settle(before)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.until(lambda: (self.all(selector) or [None])[0], f"there is no {selector}")

    def texts(self, selector: str) -> list[str]:
        return list(
            self.js("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)
        )

    def click(self, selector: str) -> None:
        self.js("arguments[0].click()", self.one(selector))

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def button(self, text: str) -> WebElement:
        named = lambda: next((one for one in self.all("button, a.button") if one.text.strip() == text), None)  # noqa: E731
        return self.until(named, f"there is no button {text}")

    def media(self, dark: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def width(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def shoot(self, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def names(self) -> list[str]:
        return self.texts(".grid .tile:not(.empty) .name")


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium, see `find_browser`."""
    chromium, chromedriver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    # As with a mouse; a headless browser has no pointer, and the page shows more buttons to fingers.
    options.add_argument("--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield made
    finally:
        made.quit()


@contextmanager
def fresh(driver: webdriver.Chrome, address: str) -> Iterator[Page]:
    """The page as somebody sees it who was never there; in the end the browser must not have complained."""
    made = Page(driver, address)
    made.width(1280)
    made.open(f"/?token={TOKEN}")
    made.js("localStorage.clear()")
    driver.get_log("browser")
    yield made
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
