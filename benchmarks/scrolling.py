"""Does the page stay smooth over a million pictures? Frame times of a headless chromium that scrolls as fast as it can.

    python benchmarks/scrolling.py FOLDER [--pictures 1000000]

FOLDER, which must be new, gets the files (small JPEGs, no two alike, 4 GB for a million) and an index whose catalog
knows them; no network runs, for scrolling needs none. Needs chromium and chromium-driver.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from sqlalchemy import create_engine, update

from diffsim.db.chunks import chunks
from diffsim.db.files import Finding
from diffsim.db.tables import Content
from diffsim.indexer.index_folder import IndexFolder

STEPS = (40, 400, 4000, 40_000)
"""Pixels that are scrolled from frame to frame; the last by the scroll bar, for a wheel does not turn so fast."""
FRAMES = 300
SCROLL = f"""
const [step, done] = arguments, times = []; let last = performance.now(), tiles = 0;
const first = () => Math.min(...[...document.querySelectorAll(".grid > .tile")].map((tile) => tile.dataset.number));
const began = first();
requestAnimationFrame(function frame(now) {{
  times.push(now - last); last = now; window.scrollBy(0, step);
  tiles = Math.max(tiles, document.querySelectorAll(".tile").length);
  times.length < {FRAMES} ? requestAnimationFrame(frame) : done([times.slice(5), tiles, first() - began]);
}});"""


@click.command()
@click.argument("folder", type=click.Path(exists=False, path_type=Path))
@click.option("--pictures", default=1_000_000, show_default=True)
def main(folder: Path, pictures: int) -> None:
    """Make the collection, scroll through it, print milliseconds from frame to frame."""
    index = make(folder.resolve(), pictures)
    line = [sys.executable, "-m", "diffsim.query.cli", "browse", "--index", str(index), "--port", "0", "--no-open"]
    server = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.set_window_size(1280, 900)
        assert server.stdout is not None
        browser.get(server.stdout.readline().strip())
        while not browser.execute_script("return document.querySelector('.tile img')?.complete"):
            time.sleep(0.5)
        click.echo("| pixels a frame | median ms | 95 % ms | worst ms | tiles at most | pictures passed |")
        click.echo("|---|---|---|---|---|---|")
        for step in STEPS:
            times, tiles, passed = browser.execute_async_script(SCROLL, step)
            middle, high, worst = np.percentile(times, [50, 95, 100])
            click.echo(f"| {step:,} | {middle:.1f} | {high:.1f} | {worst:.1f} | {tiles} | {passed:,} |")
    finally:
        browser.quit()
        server.terminate()
        server.wait()


def make(folder: Path, pictures: int) -> Path:
    """The files, 500 in a folder, and the index."""
    index = IndexFolder.create(folder / "index")
    with index.catalog(create=True) as catalog:
        root = catalog.files.add_root(os.fsencode(folder / "pictures"))
        for found in chunks(draw(folder / "pictures", pictures, root.id), 10_000):
            catalog.files.write(found, [])
    with create_engine(f"sqlite:///{index.path / 'catalog.sqlite'}").begin() as connection:
        connection.execute(update(Content).values(format="JPEG", width=256, height=192))
    return index.path


def draw(folder: Path, pictures: int, root_id: int) -> Iterator[Finding]:
    drawn = np.random.default_rng(0)
    for number in range(pictures):
        name = f"{number // 500:05d}/{number:07d}.jpg"
        path = folder / name
        if number % 500 == 0:
            path.parent.mkdir(parents=True)
            file = io.BytesIO()
            colours = Image.fromarray(drawn.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            colours.resize((256, 192)).save(file, "JPEG", quality=60)
        data = file.getvalue() + str(number).encode()
        path.write_bytes(data)
        yield Finding(
            None, root_id, name.encode(), len(data), number, number, hashlib.sha256(data).digest(), failure=None
        )


if __name__ == "__main__":
    main()
