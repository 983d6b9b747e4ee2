"""The result sheet: a query and its ranked neighbours as one picture, like the paper's Figure 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image, ImageDraw

from diffsim.retrieval.region import Box

from ..picture_cache import PictureCache
from ..query import Hit
from ..text import certainty, chance_text, likeness_ended, standing_text, telling
from .lettering import fitted, font

GROUND = (250, 249, 246)
CELL_GROUND = (240, 238, 233)
INK = (38, 38, 43)
GREY = (108, 106, 102)
ACCENT = (196, 77, 44)

CELL = 224
GAP = 22
MARGIN = 40
CAPTION = 60
FOLDER = 18
"""Height of a further line of the captions, where names alone do not tell."""
HEADER = 90
LABEL = 40
"""Height of a row's name, pixels."""
PER_ROW = 6
SMALL = (CELL - GAP) // 2
"""Side of the cells of further examples, two to a row."""
# How far a picture past the end of likeness, and what lies outside of a region, fade into the background.
DIMMED = 0.35
VEILED = 0.6


@dataclass(frozen=True)
class SheetExample:
    """A picture that was asked with. weight: of its similarity, below 0 pushes away. region: the box that was compared,
    in fractions of the picture, or None for all of it."""

    picture: Image.Image
    weight: float = 1.0
    region: Box | None = None


@dataclass(frozen=True)
class SheetHit:
    """One neighbour as the sheet shows it.

    `standing` tells how alike it is; `by_chance` is the number of pictures expected by chance to score as high, or None
    if it was not estimated. `name`, and `folder` below it, may hold anything a path can.
    """

    picture: Image.Image
    rank: int
    standing: str
    by_chance: float | None
    name: str
    folder: str = ""


def sheet_hits(hits: Sequence[Hit], pictures: PictureCache) -> list[SheetHit]:
    """Hits with their pictures, and with as much of their paths as tells them apart."""
    tails = [PurePath(tail) for tail in telling([hit.path for hit in hits])]
    return [
        SheetHit(
            pictures.drawn(hit.content_id),
            hit.rank,
            standing_text(hit.score, hit.likeness),
            hit.by_chance,
            tail.name,
            "" if tail.name == str(tail) else f"in {tail.parent}",
        )
        for hit, tail in zip(hits, tails, strict=True)
    ]


def draw_sheet(examples: Sequence[SheetExample], hits: Sequence[SheetHit], title: str) -> Image.Image:
    """The RGB sheet: the framed query on the left, `hits` in the given order beside it, six to a row.

    examples: the query first, then those that were added or subtracted, which stand below it. Pictures are fitted into
    squares of 224 pixels, never cropped. From the first hit that chance alone explains, hits are dimmed and a mark says
    that likeness ends.
    """
    columns = min(max(len(hits), 2), PER_ROW)
    rows = max(1, -(-len(hits) // PER_ROW))
    high = CELL + _caption_height(hits)
    height = max(rows * high + (rows - 1) * GAP, _examples_height(examples))
    sheet, left = _ground(columns, height, title)
    put_examples(sheet, examples, MARGIN, HEADER)
    places = [(left + i % PER_ROW * (CELL + GAP), HEADER + i // PER_ROW * (high + GAP)) for i in range(len(hits))]
    put_hits(sheet, hits, places)
    return sheet


def draw_comparison(
    examples: Sequence[SheetExample], rows: Sequence[tuple[str, Sequence[SheetHit]]], title: str
) -> Image.Image:
    """The RGB sheet: the framed query on the left, beside it one row for each (name, hits), in the given order.

    Examples, cells, captions and the mark where likeness ends are those of `draw_sheet`; each row has its own mark.
    """
    steps = [LABEL + CELL + _caption_height(hits) + GAP for _, hits in rows]
    height = max(sum(steps) - GAP, LABEL + _examples_height(examples))
    sheet, left = _ground(max([2, *(len(hits) for _, hits in rows)]), height, title)
    put_examples(sheet, examples, MARGIN, HEADER + LABEL)
    y = HEADER
    for (name, hits), step in zip(rows, steps, strict=True):
        write(ImageDraw.Draw(sheet), name, left, y + 20, 18, INK, sheet.width - left - MARGIN)
        if not hits:
            write(ImageDraw.Draw(sheet), "no neighbours", left, y + LABEL + CELL // 2, 18, GREY)
        put_hits(sheet, hits, [(left + j * (CELL + GAP), y + LABEL) for j in range(len(hits))])
        y += step
    return sheet


def _ground(columns: int, height: int, title: str) -> tuple[Image.Image, int]:
    """An empty sheet with its title, and where the hits begin."""
    left = MARGIN + CELL + 2 * GAP
    width = left + columns * CELL + (columns - 1) * GAP + MARGIN
    sheet = Image.new("RGB", (width, HEADER + height + MARGIN), GROUND)
    write(ImageDraw.Draw(sheet), title, MARGIN, MARGIN, 22, INK, width - 2 * MARGIN)
    return sheet, left


def _caption_height(hits: Sequence[SheetHit]) -> int:
    return CAPTION + (FOLDER if any(hit.folder for hit in hits) else 0)


def _examples_height(examples: Sequence[SheetExample]) -> int:
    return CELL + CAPTION + -(-(len(examples) - 1) // 2) * (SMALL + LABEL)


def put_examples(sheet: Image.Image, examples: Sequence[SheetExample], x: int, y: int) -> None:
    """The query in a frame, and further examples below it, each with its weight."""
    query, *more = examples
    put(sheet, query.picture, x, y, region=query.region)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x - 5, y - 5, x + CELL + 4, y + CELL + 4), outline=INK, width=3)
    pen.text((x + CELL / 2, y + CELL + 20), _asked("query", query), INK, font(18), anchor="mm")
    for number, example in enumerate(more):
        left, top = x + number % 2 * (SMALL + GAP), y + CELL + CAPTION + number // 2 * (SMALL + LABEL)
        put(sheet, example.picture, left, top, side=SMALL, region=example.region)
        colour = INK if example.weight > 0 else ACCENT
        pen.rectangle((left - 3, top - 3, left + SMALL + 2, top + SMALL + 2), outline=colour, width=2)
        sign = f"{'plus' if example.weight > 0 else 'minus'} {abs(example.weight):g}"
        pen.text((left + SMALL / 2, top + SMALL + 18), _asked(sign, example), colour, font(15), anchor="mm")


def _asked(words: str, example: SheetExample) -> str:
    return words if example.region is None else f"{words} (box)"


def put_hits(sheet: Image.Image, hits: Sequence[SheetHit], places: Sequence[tuple[int, int]]) -> None:
    """The hits of one ranking with their captions, in cells at these (x, y)."""
    pen = ImageDraw.Draw(sheet)
    ended = False
    for hit, (x, y) in zip(hits, places, strict=True):
        ends_here = not ended and likeness_ended(hit.by_chance)
        ended = ended or ends_here
        put(sheet, hit.picture, x, y, dimmed=ended)
        caption(pen, hit, x, y + CELL, GREY if ended else INK)
        if ends_here:
            mark_end(sheet, x - GAP // 2, y)


def put(
    sheet: Image.Image,
    picture: Image.Image,
    x: int,
    y: int,
    *,
    side: int = CELL,
    dimmed: bool = False,
    region: Box | None = None,
) -> None:
    """Draw the picture, with its aspect ratio kept, in the middle of the square cell at (x, y)."""
    scale = min(side / picture.width, side / picture.height)
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    fit = picture.convert("RGB")
    if fit.size != (width, height):
        fit = fit.resize((width, height), Image.Resampling.LANCZOS)
    if region is not None:
        fit = _boxed(fit, region)
    cell = Image.new("RGB", (side, side), CELL_GROUND)
    cell.paste(fit, ((side - width) // 2, (side - height) // 2))
    if dimmed:
        cell = _faded(cell, DIMMED)
    sheet.paste(cell, (x, y))


def _boxed(picture: Image.Image, region: Box) -> Image.Image:
    """The picture with a box drawn on it, and what lies outside faded."""
    left, top = round(region[0] * picture.width), round(region[1] * picture.height)
    right = min(picture.width, max(left + 1, round((region[0] + region[2]) * picture.width)))
    bottom = min(picture.height, max(top + 1, round((region[1] + region[3]) * picture.height)))
    faded = _faded(picture, VEILED)
    faded.paste(picture.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(faded).rectangle((left, top, right - 1, bottom - 1), outline=ACCENT, width=3)
    return faded


def _faded(picture: Image.Image, share: float) -> Image.Image:
    return Image.blend(picture, Image.new("RGB", picture.size, GROUND), share)


def caption(pen: ImageDraw.ImageDraw, hit: SheetHit, x: int, y: int, strong: tuple[int, ...]) -> None:
    """Rank and likeness on the first line, how sure it is at its right end, the name below."""
    pen.text((x, y + 20), f"{hit.rank}", strong, font(18), anchor="lm")
    rank_width = font(18).getlength(f"{hit.rank}")
    pen.text((x + rank_width + 10, y + 20), hit.standing, GREY, font(18), anchor="lm")
    if hit.by_chance is not None:
        sure = f"{certainty(hit.by_chance)}, by chance {chance_text(hit.by_chance)}"
        pen.text((x + CELL, y + 20), sure, GREY, font(14), anchor="rm")
    write(pen, hit.name, x, y + 41, 14, strong, CELL)
    write(pen, hit.folder, x, y + 41 + FOLDER, 14, GREY, CELL)


def write(
    pen: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int, colour: tuple[int, ...], width: float = 1e9
) -> None:
    """Any text on the line whose middle is y, its own middle left out if it would be wider than `width`."""
    drawn, face = fitted(text, size, width)
    pen.text((x, y), drawn, colour, face, anchor="lm")


def mark_end(sheet: Image.Image, x: int, y: int) -> None:
    """A thin rule before the first hit past the end of likeness, with the words along it."""
    pen = ImageDraw.Draw(sheet)
    pen.line((x, y, x, y + CELL + CAPTION - 12), ACCENT, 2)
    words = "likeness ends here"
    label = Image.new("RGB", (round(font(14).getlength(words)) + 12, 18), GROUND)
    ImageDraw.Draw(label).text((6, 9), words, ACCENT, font(14), anchor="lm")
    label = label.rotate(90, expand=True)
    sheet.paste(label, (x - label.width // 2, y + (CELL - label.height) // 2))
