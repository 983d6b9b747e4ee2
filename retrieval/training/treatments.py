"""Random treatments of pictures: image filters, margins and paper colours, applicable to any picture.

A network trained on only seven sets of drawings learns seven styles, but it should learn what a style is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

Lots = NDArray[np.float64]
"""Eight numbers in [0, 1) that determine a filter's colours and strengths."""

Filter = Callable[[Image.Image, Lots, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Look:
    """Filters in order, each with its lots; the margin around the picture, as a share of its side; the colour of the
    paper (RGB factors), or whether a white background stays white under the filters."""

    filters: tuple[tuple[str, Lots], ...] = ()
    margin: float = 0.0
    paper: NDArray[np.float64] | None = None
    white_ground: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Look:
        """Zero to three filters, in two of five cases on coloured paper; as often, drawings keep their white
        background, so that treatments must be recognised by what is drawn."""
        names = rng.choice(list(FILTERS), size=rng.integers(4), replace=False)
        filters = tuple((str(name), rng.random(8)) for name in names)
        margin = rng.uniform(0, 0.15) if rng.random() < 0.3 else 0.0
        ground = rng.random()
        return cls(filters, margin, coloured_paper(rng) if ground < 0.4 else None, ground > 0.6)

    def paint(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """uint8 [H,W,3] -> the same shape. rng: for grain, which is new for every picture."""
        image = plain = _with_margin(pixels, self.margin)
        for name, lots in self.filters:
            image = FILTERS[name](image, lots, rng)
        if self.white_ground:
            image = _on_ground_of(plain, image)
        painted = np.asarray(image)
        # multiplied, like ink on coloured paper
        return painted if self.paper is None else (painted * self.paper).astype(np.uint8)


def coloured_paper(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(0.25, 1.0, 3)


def two_colours(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    dark, light = lots[:3] * (100 if lots[6] < 0.5 else 255), lots[3:6] * 255
    grey = image.convert("L")
    return ImageOps.colorize(grey, _rgb(dark), _rgb(light)) if lots[7] < 0.6 else grey.convert("RGB")


def few_tones(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(image, 1 + int(3 * lots[0]))


def palette(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    """Every pixel in the nearest of a few colours: a set of drawings shares its exact colours."""
    colours = np.random.default_rng((lots * 2**32).astype(np.uint64)).integers(0, 256, (6 + int(34 * lots[0]), 3))
    table = Image.new("P", (1, 1))
    table.putpalette(colours.astype(np.uint8).tobytes())
    return image.quantize(palette=table, dither=Image.Dither.NONE).convert("RGB")


def pencil(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    """Only edges, in ink on paper."""
    smooth = image.filter(ImageFilter.GaussianBlur(0.5 + float(lots[0])))
    paper = np.clip(1 - _edges(smooth) / (15 + 50 * lots[1]), 0, 1)[..., None]
    return _image(lots[2:5] * 100 * (1 - paper) + (255 - lots[5:8] * 60) * paper)


def outlines(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    """Dark lines around existing shapes."""
    strong = Image.fromarray((_edges(image) > 20 + 20 * lots[0]).astype(np.uint8) * 255)
    line = np.asarray(strong.filter(ImageFilter.MaxFilter(3 if lots[1] < 0.7 else 5)), np.float32)[..., None] / 255
    return _image(np.asarray(image) * (1 - line) + lots[2:5] * 90 * line)


def brush(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.MedianFilter(3 + 2 * int(3 * lots[0])))


def blur(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.6 + 2 * float(lots[0])))


def grain(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    """Grey or coloured grain."""
    pixels = np.asarray(image, np.float32)
    channels = 3 if lots[1] < 0.5 else 1
    return _image(pixels + rng.normal(0, 8 + 32 * lots[0], (*pixels.shape[:2], channels)))


def blocks(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    side = 2 + int(4 * lots[0])
    small = image.resize((image.width // side, image.height // side), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def relief(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    """Lit from one corner, like thick paint."""
    height = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1)), np.float32)
    light = (height - np.roll(height, (1, 1), (0, 1)))[..., None] * (2 + 4 * lots[0])
    return _image(np.asarray(image) * (0.5 + 0.5 * lots[1]) + light)


def other_hue(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(255 * lots[0])  # hue is circular: it wraps
    return Image.frombytes("HSV", image.size, hsv.tobytes()).convert("RGB")


def other_saturation(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 1] = np.clip(hsv[..., 1] * (2.5 * lots[0]), 0, 255).astype(np.uint8)
    return Image.frombytes("HSV", image.size, hsv.tobytes()).convert("RGB")


def other_light(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    tone = np.linspace(0, 1, 256) ** (2 ** (2.4 * lots[0] - 1.2)) * (0.6 + 0.4 * lots[1])
    return image.point((255 * tone).astype(int).tolist() * 3)


def swapped_channels(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., np.argsort(lots[:3])]))


def negative(image: Image.Image, lots: Lots, rng: np.random.Generator) -> Image.Image:
    return ImageOps.invert(image)


FILTERS: dict[str, Filter] = {
    filter.__name__: filter
    for filter in (
        two_colours, few_tones, palette, pencil, outlines, brush, blur, grain, blocks, relief,
        other_hue, other_saturation, other_light, swapped_channels, negative,
    )
}  # fmt: skip


def _with_margin(pixels: NDArray[np.uint8], margin: float) -> Image.Image:
    """The picture shrunk, on the colour of its corner."""
    image, (red, green, blue) = Image.fromarray(pixels), pixels[0, 0].tolist()
    border = round(margin * image.width)
    return ImageOps.expand(image, border, (red, green, blue)).resize(image.size, Image.Resampling.BILINEAR)


def _on_ground_of(plain: Image.Image, painted: Image.Image) -> Image.Image:
    """The painted picture with white wherever the plain one is white."""
    drawn = plain.convert("L").point([min(255, 8 * (255 - tone)) for tone in range(256)])
    return Image.composite(painted, plain, drawn)


def _edges(image: Image.Image) -> NDArray[np.float32]:
    """How much the grey value changes from pixel to pixel, [H, W]."""
    grey = np.asarray(image.convert("L"), np.float32)
    across, down = np.diff(grey, axis=1, prepend=grey[:, :1]), np.diff(grey, axis=0, prepend=grey[:1])
    edges: NDArray[np.float32] = np.abs(across) + np.abs(down)
    return edges


def _image(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _rgb(colour: Lots) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue
