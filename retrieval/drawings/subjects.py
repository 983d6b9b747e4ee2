"""The subjects of the drawn gallery: every subject's geometry, defined once, with colour roles instead of colours.

Points are written as in SVG, in percent of the picture: "5,47 50,8 95,47", x to the right, y downwards. A
part is a filled outline or a stroke; later parts are in front. The style decides how it is painted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

ROLES = ("sky", "ground", "main", "second", "accent", "light", "dark")


@dataclass(frozen=True)
class Part:
    """One shape: `points` float [n, 2] in percent; filled if `width` is 0, else a stroke that wide."""

    role: str
    points: np.ndarray
    width: float = 0.0


def outline(points: str) -> np.ndarray:
    return np.array([pair.split(",") for pair in points.split()], dtype=float)


def fill(role: str, points: str) -> Part:
    return Part(role, outline(points))


def line(role: str, width: float, points: str) -> Part:
    return Part(role, outline(points), width)


def box(role: str, points: str) -> Part:
    (left, top), (right, bottom) = outline(points)
    return Part(role, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))


def oval(role: str, points: str, start: float = 0, stop: float = 360, width: float = 0.0) -> Part:
    """The ellipse of a "centre radii" pair, or its segment between two angles in degrees (90 is downwards)."""
    centre, radii = outline(points)
    angle = np.radians(np.linspace(start, stop, 49))
    return Part(role, centre + radii * np.stack([np.cos(angle), np.sin(angle)], axis=1), width)


def blob(role: str, points: str) -> Part:
    """A rounded outline through the points (a closed Catmull-Rom spline)."""
    p1 = outline(points)
    a, b, c, d = (p[:, None, :] for p in (np.roll(p1, 1, 0), p1, np.roll(p1, -1, 0), np.roll(p1, -2, 0)))
    t = np.linspace(0, 1, 10, endpoint=False)[None, :, None]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return Part(role, curve.reshape(-1, 2))


def turned(part: Part, degrees: float, x: float = 50, y: float = 50) -> Part:
    """The part turned clockwise about (x, y)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return replace(part, points=(part.points - (x, y)) @ np.array([[c, s], [-s, c]]) + (x, y))


def mirrored(part: Part) -> Part:
    return replace(part, points=part.points * (-1, 1) + (100, 0))


def house() -> list[Part]:
    windows = [
        part
        for x in (24, 62)
        for part in (
            box("accent", f"{x},56 {x + 14},72"),
            line("dark", 1.6, f"{x + 7},56 {x + 7},72"),
            line("dark", 1.6, f"{x},64 {x + 14},64"),
        )
    ]
    return [
        box("second", "68,14 79,40"),
        box("light", "16,44 84,92"),
        fill("main", "5,47 50,8 95,47"),
        oval("accent", "50,32 7,7"),
        *windows,
        box("second", "43,62 57,92"),
        oval("light", "54,78 1.6,1.6"),
    ]


def fish() -> list[Part]:
    return [
        fill("second", "70,50 97,24 90,50 97,76"),
        blob("second", "32,34 44,12 64,20 66,36"),
        blob("second", "40,66 50,86 58,80 58,64"),
        blob("main", "4,50 22,30 46,25 68,38 80,50 68,62 46,75 22,70"),
        oval("light", "34,50 7,19", -75, 75, width=3.4),
        oval("light", "55,50 7,15", -75, 75, width=3.4),
        oval("light", "20,44 6.4,6.4"),
        oval("dark", "19,44 3.4,3.4"),
        line("dark", 1.8, "6,56 13,58 17,56"),
    ]


def tree() -> list[Part]:
    return [
        fill("second", "43,95 46,60 33,48 37,46 50,55 62,44 66,47 55,60 58,95"),
        blob("main", "12,48 13,30 28,22 36,8 56,6 68,16 84,22 90,40 86,56 72,62 60,58 50,63 38,58 24,62"),
        *(oval("accent", f"{at} 3.6,3.6") for at in ("30,40", "47,24", "66,34", "53,48", "75,50")),
    ]


def cat() -> list[Part]:
    ears = [fill("main", "14,5 12,50 47,27"), fill("accent", "19,15 18,38 36,28")]
    face = [
        oval("light", "34,49 8.8,7.8"),
        oval("dark", "34,49 3.6,6.8"),
        oval("dark", "44,68 6,6", 0, 150, width=1.9),
        line("dark", 1.3, "30,67 2,60"),
        line("dark", 1.3, "30,72 2,75"),
    ]
    return [
        *ears,
        *map(mirrored, ears),
        oval("main", "50,57 41,36"),
        *(fill("second", f"{x - 3},23 {x + 3},23 {x},{y}") for x, y in ((40, 37), (50, 41), (60, 37))),
        oval("light", "50,71 17,13"),
        *face,
        *map(mirrored, face),
        fill("accent", "44,60 56,60 50,67"),
    ]


def car() -> list[Part]:
    return [
        blob("main", "22,52 30,27 46,22 62,25 76,50 50,56"),
        fill("light", "29,47 34,31 46,28 46,47"),
        fill("light", "50,47 50,28 60,30 70,47"),
        blob("main", "2,66 5,50 24,46 50,46 78,47 95,53 98,68 90,74 50,74 10,74"),
        line("second", 3, "5,63 95,63"),
        oval("accent", "92,57 3.6,3.6"),
        line("dark", 1.9, "51,54 58,54"),
        *(oval(role, f"{x},72 {r},{r}") for x in (26, 74) for role, r in (("dark", 12.5), ("light", 6))),
    ]


def boat() -> list[Part]:
    wave = " ".join(f"{x},{90 + 2.5 * np.sin(x * 0.28):.2f}" for x in range(2, 99, 2))
    return [
        line("dark", 2.6, "48,5 48,70"),
        fill("light", "52,10 52,62 92,62"),
        fill("accent", "52,44 52,62 92,62 78,44"),
        fill("second", "44,16 44,62 12,62"),
        fill("accent", "48,3 48,11 34,7"),
        fill("main", "5,68 95,68 80,90 20,90"),
        line("light", 2.6, "10,74 90,74"),
        line("second", 3, wave),
    ]


def flower() -> list[Part]:
    return [
        line("second", 4, "50,40 48.5,65 50,97"),
        blob("second", "50,86 36,82 22,66 40,70"),
        blob("second", "50,81 64,77 78,61 60,65"),
        *(turned(blob("main", "50,35 41,17 50,4 59,17"), angle, 50, 37) for angle in range(0, 360, 45)),
        oval("accent", "50,37 12,12"),
        oval("dark", "50,37 5,5"),
    ]


def mug() -> list[Part]:
    return [
        *(line("light", 3, f"{x},4 {x + 3},9 {x + 2},14 {x - 1},19 {x},25") for x in (30, 43, 56)),
        oval("main", "70,58 19,17", -95, 95, width=7.5),
        blob("main", "14,36 15,62 20,86 30,93 56,93 66,86 71,62 72,36"),
        oval("light", "43,36 29,7.5"),
        oval("dark", "43,37 25,5.2"),
        blob("accent", "43,80 28,64 30,55 37,54 43,60 49,54 56,55 58,64"),
    ]


def mountain() -> list[Part]:
    pines = [
        part
        for x, y in ((14, 96), (30, 99), (86, 97))
        for part in (
            line("dark", 2, f"{x},{y - 4} {x},{y}"),
            fill("second", f"{x - 7},{y - 4} {x},{y - 24} {x + 7},{y - 4}"),
        )
    ]
    return [
        oval("accent", "80,18 11,11"),
        fill("second", "42,90 72,30 104,90"),
        fill("light", "72,30 63.5,47 70,44 74,50 81,46.5"),
        fill("main", "-4,90 38,8 80,90"),
        fill("light", "38,8 24.5,34.5 31,32 37,40 43,32 51.5,34.5"),
        *pines,
    ]


def rocket() -> list[Part]:
    fin = fill("second", "36,56 18,72 18,86 38,74")
    return [
        blob("accent", "40,76 36,88 44,90 50,102 56,90 64,88 60,76"),
        fin,
        mirrored(fin),
        blob("light", "50,0 62,14 68,36 66,60 60,76 40,76 34,60 32,36 38,14"),
        blob("main", "50,0 60,11 64.5,23.5 50,25 35.5,23.5 40,11"),
        oval("dark", "50,42 10,10"),
        oval("accent", "50,42 7.2,7.2"),
        line("main", 3.5, "36.5,67 63.5,67"),
        box("dark", "40,75 60,79"),
    ]


def umbrella() -> list[Part]:
    def gore(role: str, left: float, right: float) -> Part:
        # Ribs bulge outwards from the tip; the hem of each gore arches upwards.
        t = np.linspace(0, 1, 16)[:, None]
        ribs = [(1 - t) ** 2 * (50, 10) + 2 * t * (1 - t) * (x, 14) + t**2 * (x, 54) for x in (left, right)]
        hem = (right, 54) + t * (left - right, 0) - 4 * t * (1 - t) * (0, 6)
        return Part(role, np.concatenate([ribs[0][::-1], ribs[1], hem]))

    return [
        line("dark", 3.2, "50,3 50,84"),
        oval("dark", "41,84 9,10", 0, 180, width=3.2),
        gore("main", 4, 28),
        gore("light", 28, 50),
        gore("main", 50, 72),
        gore("light", 72, 96),
    ]


def clock() -> list[Part]:
    return [
        line("dark", 5, "28,80 18,97"),
        line("dark", 5, "72,80 82,97"),
        line("dark", 3, "50,8 50,20"),
        oval("accent", "50,7 5,3.5"),
        turned(oval("second", "26,17 15,12"), -35, 26, 17),
        turned(oval("second", "74,17 15,12"), 35, 74, 17),
        oval("main", "50,55 37,37"),
        oval("light", "50,55 29,29"),
        *(turned(line("dark", 2.6, "50,30 50,34.5"), angle, 50, 55) for angle in range(0, 360, 30)),
        line("dark", 3.4, "50,55 38,44"),
        line("second", 2.8, "50,55 64,37"),
        oval("accent", "50,55 3.4,3.4"),
    ]


def butterfly() -> list[Part]:
    wing = [
        blob("main", "49,44 36,16 12,6 3,22 12,46 34,54"),
        blob("second", "49,52 28,52 12,66 16,86 34,90 46,70"),
        blob("accent", "36,40 26,20 14,20 16,36"),
        oval("light", "28,70 7.5,7.5"),
        oval("dark", "28,70 3,3"),
        oval("dark", "38,22 11,14", -85, 0, width=1.6),
    ]
    return [*wing, *map(mirrored, wing), blob("dark", "50,22 53.5,34 53,60 50,82 47,60 46.5,34")]


def mushroom() -> list[Part]:
    spots = ("33,27 7.5,6.5", "58,20 8.5,6.5", "76,38 6,5", "50,42 6,4.5", "19,42 4.5,4")
    blades = ((22, -5, 81), (27, 1, 75), (70, 3, 77), (76, 9, 82))
    return [
        blob("light", "40,50 39,72 34,92 50,97 66,92 61,72 60,50"),
        oval("accent", "50,54 30,7.5"),
        blob("main", "4,52 8,32 26,12 50,5 74,12 92,32 96,52 74,55 50,51 26,55"),
        *(oval("light", spot) for spot in spots),
        *(fill("second", f"{x},97 {x + 2},97 {x + lean},{tip}") for x, lean, tip in blades),
    ]


SUBJECTS: dict[str, Callable[[], list[Part]]] = {
    subject.__name__: subject
    for subject in (
        boat, butterfly, car, cat, clock, fish, flower, house, mountain, mug, mushroom, rocket, tree, umbrella
    )
}  # fmt: skip
