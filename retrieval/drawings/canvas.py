"""Painting tools for the drawn gallery: the input of every style, and the functions that styles share.

All lengths are fractions of the canvas, so that size affects only sharpness.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

# One colour per role, in the order of ROLES: sky, ground, main, second, accent, light, dark.
PALETTES = (
    "f6d9a8 e9b872 d1495b 00798c edae49 fff6e5 22223b",
    "bde0fe 7cc0e8 fb8500 c1121f ffb703 ffffff 023047",
    "d8f3dc 95d5b2 e76f51 6d597a f4a261 fefae0 1b4332",
    "2b2d5b 454a8a ffb703 ef476f 06d6a0 f1faee 0b0c22",
    "ffd6e0 ffb3c6 3a86ff 8338ec ffbe0b ffffff 2b2d42",
    "fef0d5 c6dabf 386641 bc4749 f2a65a fffdf5 2f2f2f",
)


@dataclass(frozen=True)
class Canvas:
    """The input of a style: which part is visible where, never the subject's name.

    `labels` uint8 [n, n] is the front-most part at each point, `roles` int [parts] each part's index in
    ROLES; parts from `first` on are the subject, those before it the backdrop.
    """

    labels: np.ndarray
    roles: np.ndarray
    first: int
    rng: np.random.Generator

    @property
    def n(self) -> int:
        return len(self.labels)

    @cached_property
    def yx(self) -> np.ndarray:
        """Float32 [2, n, n]: each point's distance from the top and from the left, 0..1."""
        yx: np.ndarray = np.mgrid[: self.n, : self.n].astype(np.float32) / self.n
        return yx

    @property
    def subject(self) -> np.ndarray:
        return self.labels >= self.first

    def palette(self) -> np.ndarray:
        """Float [7, 3] in 0..255, one colour per role."""
        return rgb(PALETTES[self.rng.integers(len(PALETTES))])

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise of unit spread, float32 [n, n], with about `cells` bumps per side."""
        values = self.rng.standard_normal((cells, cells)).astype(np.float32)
        return np.asarray(Image.fromarray(values).resize((self.n, self.n), Image.Resampling.BICUBIC))

    def grain(self) -> np.ndarray:
        return self.noise(self.n // 2)

    def wobbled(self, amount: float, cells: int) -> np.ndarray:
        """The labels as if drawn by hand: shifted locally by about `amount` of the width."""
        shifted = self.yx + amount * np.stack([self.noise(cells), self.noise(cells)])
        y, x = np.clip((shifted * self.n).astype(np.int32), 0, self.n - 1)
        moved: np.ndarray = self.labels[y, x]
        return moved

    def cells(self, across: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Irregular cells around a jittered grid of points, `across` per side.

        Returns the number of each point's nearest centre (int [n, n]), the distance to it in grid steps
        (float [n, n]) and the part at every centre (as `labels`, [cells]).
        """
        wide = across + 2
        middles = np.mgrid[-1 : across + 1, -1 : across + 1].reshape(2, -1).astype(np.float32)
        middles += self.rng.uniform(0.1, 0.9, middles.shape).astype(np.float32)
        my, mx = middles
        y, x = self.yx * across
        own = (y.astype(np.int32) + 1) * wide + x.astype(np.int32) + 1
        best, nearest = np.full(y.shape, 9, np.float32), np.zeros(y.shape, np.int32)
        for step in (-wide - 1, -wide, -wide + 1, -1, 0, 1, wide - 1, wide, wide + 1):
            cell = own + step
            distance = (my[cell] - y) ** 2 + (mx[cell] - x) ** 2
            closer = distance < best
            np.copyto(best, distance, where=closer)
            np.copyto(nearest, cell, where=closer)
        row, column = np.clip((middles * (self.n / across)).astype(int), 0, self.n - 1)
        return nearest, np.sqrt(best), self.labels[row, column]


def rgb(colours: str) -> np.ndarray:
    return np.array([list(bytes.fromhex(colour)) for colour in colours.split()], dtype=np.float32)


def blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of values in 0..1, float32 [n, n]; `radius` in fractions of the width."""
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * len(values))), dtype=np.float32) / 255


def edges(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where two parts meet (bool [n, n]), and the front-most part nearby (as `labels`)."""
    front, back = labels.copy(), labels.copy()
    for axis in (0, 1):
        for step in (1, -1):
            front = np.maximum(front, np.roll(front, step, axis))
            back = np.minimum(back, np.roll(back, step, axis))
    meet = front != back
    meet[[0, 1, -2, -1]] = meet[:, [0, 1, -2, -1]] = False
    return meet, front


def lines(labels: np.ndarray, width: float, threshold: np.ndarray | float = 0.5) -> np.ndarray:
    """Coverage 0..1 of lines about `width` wide along every edge; a map as `threshold` varies their width."""
    spread = blur(edges(labels)[0], width / 2)
    peak = 3.2 / (width * len(labels))
    return np.clip((spread / peak - threshold) * 4 + 0.5, 0, 1)


def over(ground: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> np.ndarray:
    painted: np.ndarray = ground + coverage[..., None] * (colour - ground)
    return painted


def hatching(canvas: Canvas, angle: float, spacing: float, wander: np.ndarray) -> np.ndarray:
    """A wave in -1..1 across parallel strokes `spacing` apart; `wander` float [n, n] bends them."""
    y, x = canvas.yx
    across = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    wave: np.ndarray = np.sin((across / spacing + wander) * (2 * np.pi))
    return wave
