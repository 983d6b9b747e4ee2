"""The project's own gallery: every subject in every style, drawn by code, for demo, tests and README.

    python -m diffsim.retrieval.drawings FOLDER

writes one `<subject>-<style>.png` per pair. Setting, placement, size and colours are random for every picture, so
two pictures of one subject share only its shapes, and two of one style only the way of painting.
"""

import zlib
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from .canvas import Canvas
from .styles import STYLES as PAINTERS
from .subjects import ROLES, Part, box, mirrored, oval, turned
from .subjects import SUBJECTS as SHAPES

SUBJECTS = tuple(SHAPES)
STYLES = tuple(PAINTERS)


def draw(subject: str, style: str, seed: int = 0, size: int = 384) -> Image.Image:
    """One RGB picture of `size` x `size` pixels (at least 64).

    The same arguments give the same pixels with the same versions of Pillow and NumPy. Raises ValueError
    for an unknown subject or style, or a size that is too small.
    """
    if subject not in SHAPES:
        raise ValueError(f"no subject {subject!r}; choose one of {', '.join(SUBJECTS)}")
    if style not in PAINTERS:
        raise ValueError(f"no style {style!r}; choose one of {', '.join(STYLES)}")
    if size < 64:
        raise ValueError(f"size {size} is too small to draw; give at least 64")
    rng = np.random.default_rng([seed, zlib.crc32(f"{subject}-{style}".encode())])
    behind = backdrop(rng)
    parts = [*behind, *place(SHAPES[subject](), rng)]
    roles = np.array([ROLES.index(part.role) for part in parts])
    # Painted at twice the size and halved, which is the only smoothing of the hard label map.
    canvas = Canvas(label_map(parts, 2 * size), roles, len(behind), rng)
    painted = np.clip(PAINTERS[style](canvas), 0, 255).astype(np.uint8)
    return Image.fromarray(painted).reduce(2)


def backdrop(rng: np.random.Generator) -> list[Part]:
    """One of five frame-filling settings, chosen independently of the subject, so that layout does not reveal it."""
    x = np.arange(-10.0, 111.0, 3)
    level, lag = rng.uniform(62, 82), rng.uniform(0, 6)

    def below(role: str, y: np.ndarray) -> Part:
        return Part(role, np.concatenate([np.stack([x, y], axis=1), [[110, 110], [-10, 110]]]))

    sky = box("sky", "-10,-10 110,110")
    match rng.integers(5):
        case 0:
            return [sky, below("ground", level + 2 * np.sin(x * 0.05 + lag))]
        case 1:
            far, near = 9 * np.sin(x * 0.06 + lag) - 14, 7 * np.sin(x * 0.05 - lag)
            return [sky, below("light", level + far), below("ground", level + near)]
        case 2:
            return [sky, oval("ground", f"{rng.uniform(40, 60)},{rng.uniform(42, 58)} 46,46")]
        case 3:
            cx, cy, first = rng.uniform(35, 65), rng.uniform(45, 75), rng.uniform(0, 26)
            ray = Part("ground", np.array([[cx, cy], [cx + 150, cy - 17], [cx + 150, cy + 17]]))
            return [sky, *(turned(ray, first + 360 / 14 * i, cx, cy) for i in range(14))]
        case _:
            tilt, start = rng.uniform(-40, 40), rng.uniform(-60, -40)
            bands = (box("ground", f"-60,{start + 26 * i} 160,{start + 26 * i + 13}") for i in range(9))
            return [sky, *(turned(band, tilt) for band in bands)]


def place(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    """The parts near the middle of the frame: shifted, scaled, tilted a little and perhaps mirrored."""
    scale, tilt = rng.uniform(0.70, 0.90), rng.uniform(-9, 9)
    shift = rng.uniform(-1, 1, size=2) * 50 * (1 - scale)
    if rng.random() < 0.5:
        parts = [mirrored(part) for part in parts]
    parts = [turned(part, tilt) for part in parts]
    return [replace(p, points=(p.points - 50) * scale + 50 + shift, width=p.width * scale) for p in parts]


def label_map(parts: list[Part], size: int) -> np.ndarray:
    """The index of the front-most part at every point, uint8 [size, size]."""
    image = Image.new("L", (size, size))
    pencil = ImageDraw.Draw(image)
    for label, part in enumerate(parts):
        points = [(x, y) for x, y in part.points * (size / 100)]
        if part.width:
            width = max(2, round(part.width * size / 100))
            pencil.line(points, label, width, joint="curve")
            for x, y in (points[0], points[-1]):
                pencil.circle((x, y), width / 2, label)
        else:
            pencil.polygon(points, label)
    return np.asarray(image)
