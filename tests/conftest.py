"""What the tests share: a tiny network in the real layout, small pictures, one thread for torch."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# Tiny networks gain nothing from threads, which wait for each other actively when the machine is busy.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from postgres import NO_POSTGRES, Server, running

torch.set_num_threads(1)

# A script's background jobs, perhaps this run, ignore Ctrl-C, and so would the children that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parent / "data"
TINY = DATA / "tiny-sd15"
"""Stable Diffusion 1.5's layout with narrow layers and random weights."""


def random_picture(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A picture with structure: a few random patches of colour, smoothed."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


NO_BROWSER = "there is no browser; install one with: apt-get install chromium chromium-driver fonts-dejavu-core"


def find_browser() -> tuple[str, str]:
    """Chromium and its driver. Without them the test is skipped; with DIFFSIM_REQUIRE_BROWSER set it fails."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium and driver:
        return chromium, driver
    if os.environ.get("DIFFSIM_REQUIRE_BROWSER"):
        pytest.fail(NO_BROWSER)
    pytest.skip(NO_BROWSER)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for missing in (NO_BROWSER, NO_POSTGRES):
        skipped = [each for each in terminalreporter.stats.get("skipped", []) if missing in str(each.longrepr)]
        if skipped:
            terminalreporter.write_line(f"{len(skipped)} tests were skipped: {missing}", yellow=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server that all tests of this process share."""
    with running() as server:
        yield server


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The URL of an empty schema on it."""
    with server.schema() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a catalog can be: a path, and the URL of an empty schema."""
    if request.param == "sqlite":
        return tmp_path / "catalog.sqlite"
    url: str = request.getfixturevalue("database")
    return url


@pytest.fixture
def children() -> Callable[[], set[psutil.Process]]:
    """Tells the child processes started since the test began: fixtures of other modules may have their own."""
    others = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - others


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with twelve different pictures, two of them in a subfolder."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number in range(12):
        name = f"sub/{number:02d}.png" if number > 9 else f"{number:02d}.png"
        random_picture(number).save(folder / name)
    return folder
