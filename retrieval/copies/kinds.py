"""What was done to a picture: the kind of copy, by name."""

import numpy as np

from .compare import Match
from .sketch import COLOURS, SIDE, Sketch

Kind = str
"""One of COPY_KINDS. exact: the same bytes. resized: another size, format or compression. captioned: with a plain strip
beside it. burst: not the same shot, but of the same scene from nearly the same place. Of several things that were done
to a picture the name says the one that stands last there."""

RECOLOURED = 8.0
"""Mean difference of colours, of 255, from which a copy is recoloured."""

CUT = 0.96
"""Share of either side of a picture below which a part of it is cut out."""

_SPANNED = 0.96
_PLAIN, _PLAIN_SHARE = 16, 0.6
"""A strip is plain where this share of it is within so many grey levels of its middle: the rest are letters."""


def kind_of(match: Match, first: Sketch, second: Sketch) -> Kind:
    """The kind of a pair that is at least of one burst."""
    part, whole = (second, first) if match.swapped else (first, second)
    if not match.is_copy:
        return "burst"
    if match.map[0, 0] < 0:
        return "mirrored"
    sides = np.linalg.norm(match.map[:, :2], axis=0)
    if sides.min() < CUT:
        return "captioned" if sides.max() >= _SPANNED and _is_strip(match.map, whole) else "cropped"
    return "recoloured" if colour_difference(match, part, whole) >= RECOLOURED else "resized"


def _is_strip(map: np.ndarray, whole: Sketch) -> bool:
    """Whether what lies outside is one plain strip."""
    (left, right), (top, bottom) = (
        np.clip((centre + np.array([-1, 1]) * abs(side) + 1) * SIDE / 2, 0, SIDE)
        for centre, side in ((map[0, 2], map[0, 0]), (map[1, 2], map[1, 1]))
    )
    beside = [whole.grey[: int(top)], whole.grey[int(np.ceil(bottom)) :]]
    beside += [whole.grey[:, : int(left)], whole.grey[:, int(np.ceil(right)) :]]
    strip = max(beside, key=lambda part: part.size).astype(np.int16)
    if not strip.size or sum(part.size for part in beside) > 1.5 * strip.size:
        return False
    return float((abs(strip - np.median(strip)) <= _PLAIN).mean()) >= _PLAIN_SHARE


def colour_difference(match: Match, part: Sketch, whole: Sketch) -> float:
    """Mean absolute difference of the colours of the part and of its place in the whole, in 0 to 255."""
    centres = (2 * np.arange(COLOURS) + 1) / COLOURS - 1
    x, y = np.meshgrid(centres, centres)
    places = np.stack([x, y, np.ones_like(x)], -1) @ match.map.T
    columns, rows = np.clip(((places + 1) * COLOURS / 2).astype(int), 0, COLOURS - 1).transpose(2, 0, 1)
    return float(np.abs(part.colours.astype(np.int16) - whole.colours[rows, columns]).mean())
