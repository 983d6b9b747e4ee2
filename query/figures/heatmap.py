"""The heat map of a pair: which parts of each picture can be rebuilt from the other, and where they were found."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from diffsim.retrieval.agreement import Agreement

from .lettering import font
from .sheet import CELL_GROUND, GREY, GROUND, INK, MARGIN, write

PANEL = 440
BETWEEN = 40
TOP = 140
LABEL = 48
BAR = 112
DISC = 15
# viridis (matplotlib, CC0): perceptually uniform, with increasing brightness, also for colour-blind people.
_VIRIDIS = "440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"
COLOURS = np.array([list(bytes.fromhex(colour)) for colour in _VIRIDIS.split()], np.float32)
VEIL = 0.72
"""Opacity of the colour over the picture."""
DIM = 110, 60
"""The grey of the picture under the colour: its mean, and how far it varies. Brightness belongs to the colour scale."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def draw_agreement(a: Image.Image, b: Image.Image, why: Agreement, title: str) -> Image.Image:
    """The RGB drawing of a pair, A on the left and B on the right; the score is below the title.

    Top row: the pictures, with numbers on the parts of A found best in B and on the place in B where the attention of
    each went. Bottom row: how well every part of each is rebuilt from the other, on one labelled colour scale.
    a, b: upright and whole, in any size; the grids of `why` cover them.
    """
    low, high = colour_range(why)
    width = 2 * MARGIN + 2 * PANEL + BETWEEN
    drawing = Image.new("RGB", (width, TOP + 2 * (PANEL + LABEL) + BAR), GROUND)
    pen = ImageDraw.Draw(drawing)
    write(pen, title, MARGIN, MARGIN, 24, INK, width - 2 * MARGIN)
    pen.text((MARGIN, MARGIN + 34), f"score {why.score:.3f}", GREY, font(18), anchor="lm")
    left, right, below = MARGIN, MARGIN + PANEL + BETWEEN, TOP + PANEL + LABEL
    in_a = [(region.row, region.column) for region in why.regions]
    in_b = [region.peak for region in why.regions]
    number(pen, panel(drawing, a, left, TOP), why.a_from_b.shape, in_a)
    number(pen, panel(drawing, b, right, TOP), why.b_from_a.shape, in_b)
    panel(drawing, heat(a, why.a_from_b.numpy(), low, high), left, below)
    panel(drawing, heat(b, why.b_from_a.numpy(), low, high), right, below)
    caption(pen, "A: the parts found best in B" if in_a else "A", left, TOP)
    caption(pen, "B: where each of them looked most" if in_b else "B", right, TOP)
    caption(pen, "A rebuilt from B", left, below)
    caption(pen, "B rebuilt from A", right, below)
    scale(drawing, low, high, below + PANEL + 24)
    return drawing


def colour_range(why: Agreement) -> tuple[float, float]:
    """The ends of the colour scale: all values of both maps, in steps of 0.05 and at least 0.1 apart."""
    smallest = min(float(why.a_from_b.min()), float(why.b_from_a.min()))
    largest = max(float(why.a_from_b.max()), float(why.b_from_a.max()))
    high = min(math.ceil(largest * 20 - 1e-3) / 20, 1.0)
    return min(math.floor(smallest * 20 + 1e-3) / 20, high - 0.1), high


def colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """float32 [..., 3] RGB of 0..255 for values; those outside the range get the colours of its ends."""
    place = np.clip((values - low) / (high - low), 0, 1) * (len(COLOURS) - 1)
    steps = np.arange(len(COLOURS))
    return np.stack([np.interp(place, steps, channel) for channel in COLOURS.T], axis=-1).astype(np.float32)


def heat(picture: Image.Image, values: np.ndarray, low: float, high: float) -> Image.Image:
    """The picture, grey and dimmed, under the colours of `values` [rows, columns], smoothly enlarged."""
    fit = fitting(picture)
    smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize(fit.size, Image.Resampling.BICUBIC))
    grey = DIM[0] + DIM[1] * (np.asarray(fit.convert("L"), np.float32)[..., None] / 127.5 - 1)
    return veiled(grey, smooth, low, high)


def veiled(grey: np.ndarray, values: np.ndarray, low: float, high: float) -> Image.Image:
    """Grey [rows, columns, 1] under the colours of values [rows, columns]."""
    mixed = VEIL * colours(values, low, high) + (1 - VEIL) * grey
    return Image.fromarray(mixed.round().astype(np.uint8))


def fitting(picture: Image.Image) -> Image.Image:
    """The picture as large as the panel allows, with its aspect ratio kept."""
    scale = min(PANEL / picture.width, PANEL / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def panel(drawing: Image.Image, picture: Image.Image, x: int, y: int) -> Box:
    """Paste the picture into the middle of the panel at (x, y); returns the box that it covers."""
    fit = fitting(picture)
    drawing.paste(CELL_GROUND, (x, y, x + PANEL, y + PANEL))
    left, top = x + (PANEL - fit.width) // 2, y + (PANEL - fit.height) // 2
    drawing.paste(fit, (left, top))
    return left, top, left + fit.width, top + fit.height


def caption(pen: ImageDraw.ImageDraw, text: str, x: int, y: int) -> None:
    pen.text((x, y - LABEL // 2 + 2), text, INK, font(18), anchor="lm")


def number(pen: ImageDraw.ImageDraw, box: Box, grid: Sequence[int], places: Sequence[tuple[int, int]]) -> None:
    """Discs with numbers from 1 in the middle of these tokens, (row, column) of the grid."""
    left, top, right, bottom = box
    for i, (row, column) in enumerate(places, 1):
        x = left + (column + 0.5) / grid[1] * (right - left)
        y = top + (row + 0.5) / grid[0] * (bottom - top)
        pen.ellipse((x - DISC, y - DISC, x + DISC, y + DISC), INK, GROUND, 2)
        pen.text((x, y), str(i), GROUND, font(17), anchor="mm")


def scale(drawing: Image.Image, low: float, high: float, y: int) -> None:
    """The colour bar with its ends and middle labelled, and its meaning in words."""
    left, right = MARGIN + PANEL // 2, drawing.width - MARGIN - PANEL // 2
    values = np.broadcast_to(np.linspace(low, high, right - left, dtype=np.float32), (16, right - left))
    drawing.paste(veiled(np.full((1, 1, 1), DIM[0], np.float32), values, low, high), (left, y))
    pen = ImageDraw.Draw(drawing)
    for at, value in ((left, low), ((left + right) / 2, (low + high) / 2), (right, high)):
        pen.text((at, y + 32), f"{value:.3f}".rstrip("0").rstrip("."), INK, font(17), anchor="mm")
    pen.text((left - 14, y + 8), "found least", INK, font(16), anchor="rm")
    pen.text((right + 14, y + 8), "found best", INK, font(16), anchor="lm")
    words = "agreement with the rebuilding from the other picture (cosine, at most 1)"
    pen.text(((left + right) / 2, y + 60), words, GREY, font(16), anchor="mm")
