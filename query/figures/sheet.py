"""The result sheet: a query and its ranked neighbours as one picture, like the paper's Figure 4."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..text import chance_text, likeness_ended

GROUND = (250, 249, 246)
CELL_GROUND = (240, 238, 233)
INK = (38, 38, 43)
GREY = (128, 126, 122)
FAINT = (176, 173, 167)
ACCENT = (196, 77, 44)

CELL = 224
GAP = 22
MARGIN = 40
CAPTION = 60
HEADER = 90
LABEL = 40
"""Height of a row's name, pixels."""
PER_ROW = 6
# The characters that Pillow's own font can draw; it draws an empty box for any other.
GLYPHS = frozenset(map(chr, range(32, 127))) | frozenset("©«°±·»‘’“”…‹›™")
BOX = "\ufffd"
LOOKALIKES = {"–": "-", "—": "-", "−": "-", "×": "x", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE"}
LOOKALIKES |= {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i", "þ": "th", "ð": "d"}
# How far a picture past the end of likeness fades into the background.
DIMMED = 0.62


@dataclass(frozen=True)
class SheetHit:
    """One neighbour as the sheet shows it.

    `score` is in [-1, 1]; `by_chance` is the number of pictures expected by chance to score as high, or None if it was
    not estimated. `name` may hold anything a file name can.
    """

    picture: Image.Image
    rank: int
    score: float
    by_chance: float | None
    name: str


def draw_sheet(query: Image.Image, hits: Sequence[SheetHit], title: str) -> Image.Image:
    """The RGB sheet: the framed query on the left, `hits` in the given order beside it, six to a row.

    Pictures are fitted into squares of 224 pixels, never cropped or enlarged beyond them. From the first hit that
    chance alone explains, hits are dimmed and a mark says that likeness ends.
    """
    columns = min(max(len(hits), 2), PER_ROW)
    rows = max(1, -(-len(hits) // PER_ROW))
    left = MARGIN + CELL + 2 * GAP
    width = left + columns * CELL + (columns - 1) * GAP + MARGIN
    sheet = Image.new("RGB", (width, HEADER + rows * (CELL + CAPTION) + (rows - 1) * GAP + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fitted(title, font(22), width - 2 * MARGIN), INK, font(22), anchor="lm")

    put_query(sheet, query, MARGIN, HEADER)
    places = [
        (left + i % PER_ROW * (CELL + GAP), HEADER + i // PER_ROW * (CELL + CAPTION + GAP)) for i in range(len(hits))
    ]
    put_hits(sheet, hits, places)
    return sheet


def put_query(sheet: Image.Image, query: Image.Image, x: int, y: int) -> None:
    """The query in a frame."""
    put(sheet, query, x, y)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x - 5, y - 5, x + CELL + 4, y + CELL + 4), outline=INK, width=3)
    pen.text((x + CELL / 2, y + CELL + 20), "query", INK, font(18), anchor="mm")


def put_hits(sheet: Image.Image, hits: Sequence[SheetHit], places: Sequence[tuple[int, int]]) -> None:
    """The hits of one ranking with their captions, in cells at these (x, y)."""
    pen = ImageDraw.Draw(sheet)
    ended = False
    for hit, (x, y) in zip(hits, places, strict=True):
        ends_here = not ended and likeness_ended(hit.by_chance)
        ended = ended or ends_here
        put(sheet, hit.picture, x, y, dimmed=ended)
        caption(pen, hit, x, y + CELL, GREY if ended else INK, FAINT if ended else GREY)
        if ends_here:
            mark_end(sheet, x - GAP // 2, y)


def save_png(drawing: Image.Image, to: Path) -> None:
    """Write elsewhere, then rename, so that a half-written picture never replaces an old one."""
    part = to.with_name(to.name + ".part")
    drawing.save(part, format="PNG")
    os.replace(part, to)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    face = ImageFont.load_default(size)
    assert isinstance(face, ImageFont.FreeTypeFont)  # Pillow returns its bitmap font only if no size is given
    return face


def put(sheet: Image.Image, picture: Image.Image, x: int, y: int, dimmed: bool = False) -> None:
    """Draw the picture, with its aspect ratio kept, in the middle of the square cell at (x, y)."""
    scale = min(CELL / picture.width, CELL / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    fit = picture.convert("RGB")
    if fit.size != size:
        fit = fit.resize(size, Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL, CELL), CELL_GROUND)
    cell.paste(fit, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    if dimmed:
        cell = Image.blend(cell, Image.new("RGB", cell.size, GROUND), DIMMED)
    sheet.paste(cell, (x, y))


def caption(
    pen: ImageDraw.ImageDraw, hit: SheetHit, x: int, y: int, strong: tuple[int, ...], weak: tuple[int, ...]
) -> None:
    """Rank and score on the first line, by-chance at its right end, the name below."""
    pen.text((x, y + 20), f"{hit.rank}", strong, font(18), anchor="lm")
    rank_width = font(18).getlength(f"{hit.rank}")
    pen.text((x + rank_width + 10, y + 20), f"{hit.score:.3f}", weak, font(18), anchor="lm")
    if hit.by_chance is not None:
        pen.text((x + CELL, y + 20), f"by chance {chance_text(hit.by_chance)}", weak, font(14), anchor="rm")
    pen.text((x, y + 41), fitted(hit.name, font(14), CELL), weak, font(14), anchor="lm")


def mark_end(sheet: Image.Image, x: int, y: int) -> None:
    """A thin rule before the first hit past the end of likeness, with the words along it."""
    pen = ImageDraw.Draw(sheet)
    pen.line((x, y, x, y + CELL + CAPTION - 12), ACCENT, 2)
    words = "likeness ends here"
    label = Image.new("RGB", (round(font(14).getlength(words)) + 12, 18), GROUND)
    ImageDraw.Draw(label).text((6, 9), words, ACCENT, font(14), anchor="lm")
    label = label.rotate(90, expand=True)
    sheet.paste(label, (x - label.width // 2, y + (CELL - label.height) // 2))


def fitted(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` in glyphs that the font has, its middle left out if it would be wider than `width` pixels."""
    text = plain(text)
    if len(text) > 200:
        text = shortened(text, 200)
    if face.getlength(text) <= width:
        return text
    kept = len(text) - 1
    while kept > 2 and face.getlength(shortened(text, kept)) > width:
        kept -= 1
    return shortened(text, kept)


def shortened(text: str, kept: int) -> str:
    # The end of a file name says more than its beginning: it holds the number and the suffix.
    return text[: kept - kept * 3 // 5] + "…" + text[len(text) - kept * 3 // 5 :]


def plain(text: str) -> str:
    """`text` in the glyphs of Pillow's own font: accents and invisible characters dropped, a box for the rest.

    File names may hold anything: undecodable bytes (surrogates), marks that change the direction of writing, emoji.
    """
    drawn = []
    for character in text:
        if character in GLYPHS:
            drawn.append(character)
            continue
        for piece in unicodedata.normalize("NFKD", LOOKALIKES.get(character, character)):
            if piece in GLYPHS:
                drawn.append(piece)
            elif unicodedata.category(piece) not in ("Mn", "Cf"):
                drawn.append(" " if piece.isspace() else BOX)
    return "".join(drawn)


def draw_comparison(query: Image.Image, rows: Sequence[tuple[str, Sequence[SheetHit]]], title: str) -> Image.Image:
    """The RGB sheet: the framed query on the left, beside it one row for each (name, hits), in the given order.

    Cells, captions and the mark where likeness ends are those of `draw_sheet`; each row has its own mark.
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
