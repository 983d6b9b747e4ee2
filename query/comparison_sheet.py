"""The sheet of a comparison: a query, and a row of its neighbours for each feature space (the paper's Figure 4)."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from .sheet import CAPTION, CELL, GAP, GREY, GROUND, HEADER, INK, MARGIN, SheetHit, fitted, font, put_hits, put_query

LABEL = 40
"""Height of a row's name, pixels."""


def draw_comparison(query: Image.Image, rows: Sequence[tuple[str, Sequence[SheetHit]]], title: str) -> Image.Image:
    """The RGB sheet: the framed query on the left, beside it one row for each (name, hits), in the given order.

    Cells, captions and the mark where likeness ends are those of `draw_sheet`; each row ends for itself.
    """
    columns = max([2, *(len(hits) for _, hits in rows)])
    left = MARGIN + CELL + 2 * GAP
    width = left + columns * CELL + (columns - 1) * GAP + MARGIN
    step = LABEL + CELL + CAPTION + GAP
    sheet = Image.new("RGB", (width, HEADER + len(rows) * step - GAP + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fitted(title, font(22), width - 2 * MARGIN), INK, font(22), anchor="lm")
    put_query(sheet, query, MARGIN, HEADER + LABEL)
    for i, (name, hits) in enumerate(rows):
        y = HEADER + i * step
        pen.text((left, y + 20), fitted(name, font(18), width - left - MARGIN), INK, font(18), anchor="lm")
        if not hits:
            pen.text((left, y + LABEL + CELL // 2), "no neighbours", GREY, font(18), anchor="lm")
        put_hits(sheet, hits, [(left + j * (CELL + GAP), y + LABEL) for j in range(len(hits))])
    return sheet
