"""The styles of the drawn gallery: a function per style, from a canvas to float RGB [n, n, 3] in 0..255."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from .canvas import Canvas, blur, edges, hatching, lines, over, rgb
from .subjects import ROLES

# How dark a style without colour draws each role.
TONES = np.array([0.10, 0.34, 0.52, 0.76, 0.24, 0.0, 1.0])


def poster(canvas: Canvas) -> np.ndarray:
    """Flat colours with a long shadow and one shaded half, as in screen prints."""
    flat: np.ndarray = canvas.palette()[canvas.roles][canvas.labels]
    shadow = canvas.subject.copy()
    step = 1
    while step < canvas.n // 2:
        # Doubling the step sweeps the silhouette down the diagonal without a gap.
        shadow[step:, step:] |= shadow[:-step, :-step].copy()
        step *= 2
    flat[shadow & ~canvas.subject] *= 0.80
    x = canvas.yx[1]
    flat[canvas.subject & (x > np.median(x[canvas.subject]))] *= 0.88
    return flat


def ink(canvas: Canvas) -> np.ndarray:
    """Brush and Indian ink on rice paper: swelling lines, a diluted wash, spatter and a red seal."""
    paper = rgb(("f4ecd8", "f3efe6", "efe3cb")[canvas.rng.integers(3)])[0]
    picture = paper + 4 * canvas.grain()[..., None] + 3 * canvas.noise(6)[..., None]
    tone = TONES[canvas.roles]
    tone[: canvas.first] *= 0.7
    wash = blur(tone[canvas.wobbled(0.010, 6)], 0.012)
    picture = over(picture, np.clip(wash * (0.42 + 0.22 * canvas.noise(7)), 0, 0.7), rgb("4a4a55")[0])
    labels = canvas.wobbled(0.004, 14)
    black = lines(np.where(labels >= canvas.first, labels, 0), 0.017, 0.38 + 0.22 * canvas.noise(9))
    solid = (canvas.roles == ROLES.index("dark"))[labels]
    nearest, distance, middle = canvas.cells(24)
    drops = canvas.rng.random(len(middle)) ** 14 * 0.5
    black = np.maximum.reduce([black, solid, distance < drops[nearest]])
    picture = over(picture, black * np.clip(0.92 + 0.12 * canvas.grain(), 0, 1), rgb("14141c")[0])
    seal = np.zeros(picture.shape[:2])
    a, b, c = (int(f * canvas.n) for f in (0.86, 0.95, 0.015))
    seal[a:b, a:b] = 1
    seal[a + c : b - c, a + 2 * c : a + 3 * c] = seal[a + 2 * c : a + 3 * c, a + c : b - c] = 0
    return over(picture, blur(seal, 0.001) * 0.9, rgb("c1272d")[0])


def pencil(canvas: Canvas) -> np.ndarray:
    """Graphite: layers of hatching as dark as the part's tone, and outlines drawn twice."""
    labels = canvas.wobbled(0.003, 10)
    tone = TONES[canvas.roles][labels]
    lean = canvas.rng.uniform(-14, 14)
    bend = 0.25 * canvas.noise(8)
    dark = np.zeros(labels.shape, np.float32)
    for angle, begins in ((45, 0.05), (-40, 0.30), (5, 0.48), (80, 0.66)):
        pressure = 1.3 * tone - 0.15 + 0.3 * canvas.noise(40)
        strokes = np.clip(hatching(canvas, angle + lean, 0.020, bend) + pressure, 0, 1)
        dark += strokes * (tone > begins) * 0.36
    for _ in range(2):
        dark += 0.5 * lines(canvas.wobbled(0.005, 9), 0.006, 0.45 + 0.15 * canvas.noise(12))
    dark = np.clip(dark, 0, 1) * np.clip(0.85 + 0.35 * canvas.grain(), 0.2, 1.1)
    paper = rgb("f7f5ef")[0] + 2 * canvas.grain()[..., None]
    return over(paper, np.clip(dark, 0, 0.92), rgb("33353d")[0])


def watercolour(canvas: Canvas) -> np.ndarray:
    """Transparent washes: blotches, dark rims, slivers of white between parts, an unpainted margin."""
    labels = canvas.wobbled(0.006, 12)
    colours = canvas.palette()
    colours[ROLES.index("dark")] += 30
    pigment = 1 - colours[canvas.roles][labels] / 255
    rim = blur(edges(labels)[0], 0.004) * 6
    density = 0.80 + 0.20 * canvas.noise(5) + 0.13 * canvas.noise(16) + 0.5 * np.minimum(rim, 0.5)
    gap = lines(labels, 0.009, 0.75 - 0.35 * canvas.noise(7))
    y, x = canvas.yx
    inside = np.minimum.reduce([x, y, 1 - x, 1 - y]) + 0.012 * canvas.noise(9) + 0.004 * canvas.noise(40)
    density *= np.clip((inside - 0.035) * 90, 0, 1) * (1 - 0.85 * gap) * (1 + 0.07 * canvas.grain())
    density += np.clip(1 - abs(inside - 0.052) * 90, 0, 1) * 0.18
    bloom = np.stack([blur(pigment[..., c], 0.012) for c in range(3)], axis=2)
    white_left: np.ndarray = 1 - np.clip((0.72 * pigment + 0.28 * bloom) * density[..., None], 0, 1)
    return 252 * white_left


def glass(canvas: Canvas) -> np.ndarray:
    """Stained glass: every part cut into panes of uneven colour, leaded, with light behind."""
    panes, _, middle = canvas.cells(8)
    colours = canvas.palette()
    grey = colours.mean(axis=1, keepdims=True)
    colours = np.clip(grey + 1.5 * (colours - grey), 12, 250)
    # Light shines through: every pane except the dark ones is bright.
    colours[:-1] *= np.clip(225 / colours[:-1].max(axis=1, keepdims=True), 1, 2.5)
    per_pane = (len(middle), len(canvas.roles))
    uneven = canvas.rng.normal(1, 0.13, (*per_pane, 3)) * canvas.rng.normal(1, 0.12, (*per_pane, 1))
    light = colours[canvas.roles][canvas.labels] * uneven[panes, canvas.labels]
    y, x = canvas.yx
    cy, cx = canvas.rng.uniform(0.3, 0.7, size=2)
    light *= (1.15 - 0.7 * ((x - cx) ** 2 + (y - cy) ** 2) + 0.07 * canvas.noise(24))[..., None]
    leads = np.maximum(lines(panes, 0.010, 0.4), lines(canvas.labels, 0.019, 0.4))
    rim = blur(leads, 0.010)
    return over(light * (1 - 0.4 * rim)[..., None], leads, rgb("17171c")[0] + 26 * rim[..., None])


def pixels(canvas: Canvas) -> np.ndarray:
    """A 40 x 40 sprite in few colours: a dark outline, lit and shaded rims, a dithered backdrop."""
    grid = 40
    small = Image.fromarray(canvas.labels).resize((grid, grid), Image.Resampling.NEAREST)
    labels = np.asarray(small)
    colours = canvas.palette()
    sprite = colours[canvas.roles][labels]
    subject = labels >= canvas.first
    y, x = np.mgrid[:grid, :grid]
    sprite[~subject & ((x + y) % 2 == 0) & (y > canvas.rng.uniform(0.3, 0.6) * grid)] *= 0.90
    sprite[subject & (np.roll(labels, 1, 0) != labels)] *= 1.22
    sprite[subject & (np.roll(labels, -1, 0) != labels)] *= 0.78
    around = np.any([np.roll(subject, step, axis) for axis in (0, 1) for step in (1, -1)], axis=0)
    sprite[around & ~subject] = colours[ROLES.index("dark")]
    image = Image.fromarray(np.clip(sprite, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((canvas.n, canvas.n), Image.Resampling.NEAREST), dtype=np.float32)


def dots(canvas: Canvas) -> np.ndarray:
    """Pointillism: two layers of separate dabs, each a little off in hue, on a toned ground."""
    colours = canvas.palette()
    flat = colours[canvas.roles]
    picture = np.broadcast_to(colours[:2].mean(axis=0) * 0.82 + 30, (canvas.n, canvas.n, 3)).copy()
    for across, radius in ((44, 0.62), (58, 0.40)):
        nearest, distance, middle = canvas.cells(across)
        tint = canvas.rng.normal(0, 19, size=(len(middle), 3))
        dab = np.clip((radius - distance) * 14, 0, 1)
        picture = over(picture, dab * 0.95, (flat[middle] + tint)[nearest])
    return picture


def chalk(canvas: Canvas) -> np.ndarray:
    """Coloured chalk on a wiped blackboard: gritty outlines, loosely rubbed fills."""
    board = rgb(("2c4a3e", "2f3438", "2b3f4f")[canvas.rng.integers(3)])[0]
    swipes = hatching(canvas, canvas.rng.uniform(60, 120), 0.11, canvas.noise(4))
    wiped = np.clip(0.5 * canvas.noise(5) + 0.3 * swipes, 0, 2)
    picture = over(np.broadcast_to(board, (canvas.n, canvas.n, 3)), 0.10 * wiped, rgb("e8e8e0")[0])
    sticks = rgb("e9ede4 a9c6d8 ffd166 ff8fa3 9be3b0 fbfbf5 d9dcd6")
    order = np.concatenate([[0, 1], 2 + canvas.rng.permutation(3), [5, 6]])
    labels = canvas.wobbled(0.005, 10)
    colour = sticks[order][canvas.roles][labels]
    strength = np.array([0, 0.30, 0.75, 0.75, 0.75, 0.80, 0.10])[canvas.roles][labels]
    tooth = canvas.grain() + 0.5 * canvas.noise(90)
    strokes = hatching(canvas, canvas.rng.uniform(20, 70), 0.024, 0.4 * canvas.noise(9))
    rubbed = np.clip(0.55 + 0.5 * strokes, 0, 1)
    picture = over(picture, strength * np.clip(rubbed + 0.45 * tooth, 0, 1) * 0.85, colour)
    outline = lines(labels, 0.013, 0.40 + 0.15 * canvas.noise(12)) * np.clip(0.75 + 0.6 * tooth, 0, 1)
    outline *= np.where(blur(labels >= canvas.first, 0.006) > 0.1, 1, 0.35)
    return over(picture, outline, rgb("f6f5ee")[0])


def neon(canvas: Canvas) -> np.ndarray:
    """Glowing tubes on a brick wall at night."""
    signs = (
        "3a3f8f 3f6fff ff2fb9 2ff3ff ffe74a f5f0ff 7d5cff",
        "5a2a7a a02fff 2fffb0 ff4fd8 ff9a3a fff6f0 3aa0ff",
    )
    tubes = rgb(signs[canvas.rng.integers(2)])
    y, x = canvas.yx
    row = (y * 16).astype(int)
    joint = (y * 16 % 1 < 0.10) | ((x * 8 + row % 2 * 0.5) % 1 < 0.05)
    brick = canvas.rng.normal(1, 0.14, size=(17, 10))[row, (x * 8 + row % 2 * 0.5).astype(int)]
    wall = (0.75 + 0.10 * canvas.grain() + 0.10 * canvas.noise(30)) * np.where(joint, 0.35, brick)
    meet, front = edges(canvas.labels)
    bright = np.where(np.arange(len(canvas.roles)) < canvas.first, 0.16, 1.0)
    drawn = (tubes[canvas.roles] * bright[:, None])[front] * meet[..., None] / 255
    halo, glow, core = (
        np.stack([blur(drawn[..., channel], radius) for channel in range(3)], axis=2)
        for radius in (0.075, 0.014, 0.0035)
    )
    night: np.ndarray = (rgb("2a1c3a")[0] + 1900 * halo) * wall[..., None]
    white = np.clip(core.max(axis=2, keepdims=True) * 5 - 1.2, 0, 1)
    night += 820 * glow + 870 * core + 150 * white
    return night


def woodcut(canvas: Canvas) -> np.ndarray:
    """Relief print: gouged lines that follow the subject's outline, thicker where the part is lighter."""
    inks = ("1a1a1a f2e8d0", "14284b f3ead6", "5b1a18 f6e7cf", "173a2c f1ead2")[canvas.rng.integers(4)]
    black, paper = rgb(inks)
    labels = canvas.wobbled(0.003, 20)
    subject = labels >= canvas.first
    tone = np.array([0.34, 0.62, 0.46, 0.76, 0.22, 0.0, 1.0])[canvas.roles]
    follow = blur(canvas.subject, 0.10) * 5
    around = hatching(canvas, canvas.rng.uniform(70, 110), 0.042, follow + 0.15 * canvas.noise(10))
    within = hatching(canvas, canvas.rng.uniform(20, 70), 0.024, 0.2 * canvas.noise(8))
    wave = np.where(subject, within, around) + 0.18 * canvas.noise(60)
    printed = np.clip((wave - np.cos(np.pi * tone)[labels]) * 5 + 0.5, 0, 1)
    printed = np.where(tone[labels] <= 0, 0, np.where(tone[labels] >= 1, 1, printed))
    printed[(blur(subject, 0.016) > 0.06) & ~subject] = 0
    outline = lines(np.where(subject, labels, 0), 0.016, 0.42 + 0.12 * canvas.noise(16))
    printed = np.maximum(printed, outline)
    worn = np.clip(canvas.noise(50) - 2.0, 0, 1)
    printed *= np.clip(1.05 + 0.10 * canvas.grain() - worn, 0, 1)
    return over(paper + 3 * canvas.grain()[..., None], printed, black)


STYLES: dict[str, Callable[[Canvas], np.ndarray]] = {
    "chalk": chalk,
    "dots": dots,
    "glass": glass,
    "ink": ink,
    "neon": neon,
    "pencil": pencil,
    "pixels": pixels,
    "poster": poster,
    "watercolour": watercolour,
    "woodcut": woodcut,
}
