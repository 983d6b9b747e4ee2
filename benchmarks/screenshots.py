"""Photograph the page for the README: page.png and page-why.png, of the demo's drawings, into the current folder.

    python benchmarks/screenshots.py demo.idx

The page is served and driven as its tests do it, so this needs their packages, chromium and chromium-driver. The index
must hold the drawings in the spaces mini/style and mini/instance.
"""

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from pages import Page, browser
from webs import TOKEN, served

import diffsim

# The folder as a person has it, in the place of the one that this was made in.
RENAME = """
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const shown = texts.currentNode;
  for (const folder of arguments[0]) shown.data = shown.data.replaceAll(folder, "/Pictures");
}
"""


@click.command()
@click.argument("index", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(index: Path) -> None:
    """Take the two pictures."""
    with diffsim.open(index, "cpu") as searcher:
        known = searcher.embeddings()
        ids = {Path(path).name: number for path, number in zip(known.paths, known.ids.tolist(), strict=True)}
        folder = Path(known.paths[0]).parent.parent
    neon, glass, ink = (ids[f"{name}.png"] for name in ("butterfly-neon", "boat-glass", "boat-ink"))
    views = {
        "page": f"/?q={neon}&by=mini/style",
        "page-why": f"/why?q={glass}&b={ink}&by=mini/instance",
    }
    with served(index) as address, browser() as driver:
        page = Page(driver, address)
        page.width(1280, 717)
        page.media(dark=False)
        page.open(f"/?token={TOKEN}")
        for name, view in views.items():
            page.open(view)
            page.open(view)  # once more, so that the time on the page is not that of a first question
            page.until(lambda: not page.js("return document.getAnimations().length"), "the tiles do not come to rest")
            page.js(RENAME, [str(folder), f"…/{folder.name}"])
            driver.save_screenshot(f"{name}.png")


if __name__ == "__main__":
    main()
