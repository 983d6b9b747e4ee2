"""A region of a picture as attention tokens: which of them a box touches, also if the network sees only a part.

A query with a region R of A compares two maps of R's tokens only, in one direction and with A's keys unrestricted:

    score(R,B) = cos( vec Attn(Q_A[R],K_A,V_A), vec Attn(Q_A[R],K_B,V_B) )                 in [-1, 1], not symmetric

Attn works token by token, so the left map is a part of A's own map, and the whole picture as a region is AAS(A<-B).
"""

import math
from collections.abc import Sequence

from .agreement import Grid, square_places
from .errors import RetrievalError
from .pictures.images import crop_side
from .score import AttentionFeatures

Box = tuple[float, float, float, float]
"""Left, top, width and height in fractions of a picture's sides, 0..1, upright."""

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_ROUNDING = 1e-6
"""Tolerance: boxes come from divisions and sums of pixels, so a millionth of a side is not significant."""


class BadRegion(RetrievalError, ValueError):
    """The box is not a valid region of this picture."""


def checked_box(box: Sequence[float]) -> Box:
    """The box as floats. Raises BadRegion for one that is not four numbers, is empty, or leaves the picture."""
    try:
        x, y, width, height = (float(number) for number in box)
    except (TypeError, ValueError):
        raise BadRegion(f"The region {box} is not four numbers; give X,Y,WIDTH,HEIGHT in fractions, 0 to 1.") from None
    inside = min(x, y) >= 0 and x + width <= 1 + _ROUNDING and y + height <= 1 + _ROUNDING
    if not (inside and width > 0 and height > 0):  # also catches NaN
        numbers = ",".join(f"{number:g}" for number in (x, y, width, height))
        raise BadRegion(
            f"The region {numbers} does not lie in the picture; give X,Y,WIDTH,HEIGHT in fractions, 0 to 1, with a "
            "width and height above 0."
        )
    return x, y, width, height


def seen_part(width: int, height: int, size: int, fit: str) -> Box:
    """The part of an upright picture of width x height pixels that a network sees: all of it, or for the fit
    `crop N` the middle square that remains."""
    short = crop_side(fit)
    if short is None:
        return _WHOLE
    side = min(width, height) * size / short
    wide, high = side / width, side / height
    return (1 - wide) / 2, (1 - high) / 2, wide, high


def within_part(box: Box, part: Box) -> Box:
    """The box in fractions of the part, clipped to its borders. Raises BadRegion if they do not overlap."""
    (left, wide), (top, high) = (_along(box[axis], box[axis + 2], part[axis], part[axis + 2]) for axis in (0, 1))
    if wide <= 0 or high <= 0:
        shown = ",".join(f"{number:.2f}" for number in part)
        raise BadRegion(
            f"The region {','.join(f'{number:g}' for number in box)} lies outside of what the network sees, the "
            f"middle square {shown} of this picture; choose a region that touches it, or another feature space."
        )
    return left, top, wide, high


def _along(start: float, length: float, origin: float, extent: float) -> tuple[float, float]:
    first = max(0.0, (start - origin) / extent)
    last = min(1.0, (start + length - origin) / extent)
    return first, last - first


def touched_tokens(box: Box, grid: Grid, prefix: int = 0) -> list[int]:
    """The tokens that a box touches, at least one, ascending. grid: rows and columns; prefix: tokens before it."""
    x, y, width, height = box
    columns, rows = _touched(x, width, grid[1]), _touched(y, height, grid[0])
    return [prefix + row * grid[1] + column for row in rows for column in columns]


def _touched(start: float, length: float, cells: int) -> range:
    first = min(math.floor(start * cells + _ROUNDING), cells - 1)
    last = min(math.ceil((start + length) * cells - _ROUNDING), cells)
    return range(first, max(last, first + 1))


def region_features(features: Sequence[AttentionFeatures], box: Box) -> tuple[AttentionFeatures, ...]:
    """Queries and own map of the touched tokens of each tap, with all keys and values. box: of what the network sees.

    Tokens before the square grid (a ViT's) are not places and do not belong to any region.
    """
    return tuple(tap.at(touched_tokens(box, *square_places(tap.query.shape[2]))) for tap in features)
