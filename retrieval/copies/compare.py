"""Compare pictures by their sketches: is one a copy of the other, or are they of one burst?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .align import align
from .sketch import COLOURS, SIDE, Sketch
from .windows import mirrored, window_map, windows

COARSE = 0.7
"""Least correlation of a window with the whole, at 12 x 12 cells, for a pair to be looked at closely."""
_STARTS = 2

_MIRRORED = 0.01

_LIKELY = 3
"""Leaders of groups that a picture is compared with closely."""

COPY_DETAIL, COPY_LOCAL, COPY_INSIDE = 0.93, 0.8, 0.97
BURST_DETAIL, BURST_LOCAL, BURST_INSIDE = 0.9, 0.7, 0.7
"""Least agreement of copies, and of photographs of one burst; docs/duplicates.md says how they were measured."""


_NOTHING = Sketch(np.zeros((SIDE, SIDE), np.uint8), np.zeros((COLOURS, COLOURS, 3), np.uint8), 1, 1)


class Seen:
    """A sketch ready to be compared."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketch = sketch

    @cached_property
    def windows(self) -> np.ndarray:
        """float32 [windows, 144]."""
        return windows(self.sketch.grey)

    @cached_property
    def wholes(self) -> np.ndarray:
        """The whole, as it is and mirrored: float32 [2, 144]."""
        return np.stack([self.windows[0], mirrored(self.windows[0])])


@dataclass(frozen=True, eq=False)
class Match:
    """How two pictures agree. swapped: the second lies in the first, not the first in the second. map: float32 [2, 3],
    takes the one that lies in the other to its place there, see align.py."""

    swapped: bool
    map: np.ndarray
    detail: float
    local: float
    inside: float

    @property
    def is_copy(self) -> bool:
        """Whether they are the same shot."""
        return self.detail >= COPY_DETAIL and self.local >= COPY_LOCAL and self.inside >= COPY_INSIDE

    @property
    def is_burst(self) -> bool:
        """Whether they are copies or photographs of the same scene from nearly the same place."""
        return self.detail >= BURST_DETAIL and self.local >= BURST_LOCAL and self.inside >= BURST_INSIDE


@dataclass(frozen=True, eq=False)
class _Start:
    correlation: float
    pair: int
    swapped: bool
    map: np.ndarray


def compare(pairs: Sequence[tuple[Seen, Seen]]) -> list[Match | None]:
    """How the pictures of each pair agree; None where no part of one resembles the whole of the other."""
    starts = [start for number, pair in enumerate(pairs) for start in _starts(number, *pair)]
    best: list[Match | None] = [None] * len(pairs)
    if starts:
        ordered = [pairs[start.pair][::-1] if start.swapped else pairs[start.pair] for start in starts]
        first, second = (np.stack([pair[place].sketch.grey for pair in ordered]) for place in (0, 1))
        found = align(first, second, np.stack([start.map for start in starts]))
        for start, *row in zip(starts, found.maps, found.detail, found.local, found.inside, strict=True):
            known = best[start.pair]
            match = Match(start.swapped, row[0], *map(float, row[1:]))
            if match.detail > 0 and (known is None or _rank(match) > _rank(known)):
                best[start.pair] = match
    return best


def _rank(match: Match) -> float:
    """A symmetric picture is no mirrored copy."""
    return match.detail - (_MIRRORED if match.map[0, 0] < 0 else 0)


def _starts(number: int, first: Seen, second: Seen) -> list[_Start]:
    """The most promising windows."""
    found = []
    for swapped, (part, whole) in ((False, (first, second)), (True, (second, first))):
        correlations = whole.windows @ part.wholes.T
        for mirror in (False, True):
            window = int(correlations[:, int(mirror)].argmax())
            correlation = float(correlations[window, int(mirror)])
            if correlation >= COARSE:
                found.append(_Start(correlation, number, swapped, window_map(window, mirror)))
    return sorted(found, key=lambda start: -start.correlation)[:_STARTS]


class Groups:
    """Groups pictures in turn; the first of each group leads it."""

    def __init__(self) -> None:
        self._leaders: list[Seen] = []

    def group(self, seen: Seen | None) -> int | None:
        """The group whose leader a picture is a copy of, the best one; None if it leads a new group. None: a picture
        of which nothing is known, which is a copy of nothing."""
        if seen is None:
            seen = Seen(_NOTHING)
        elif self._leaders:
            likely = self._likely(seen)
            matches = compare([(seen, self._leaders[number]) for number in likely])
            found = zip(matches, likely, strict=True)
            if copies := [(match.detail, number) for match, number in found if match and match.is_copy]:
                return max(copies)[1]
        self._leaders.append(seen)
        return None

    def _likely(self, seen: Seen) -> list[int]:
        """The leaders that resemble it most at the coarse scale."""
        within = (seen.windows @ np.concatenate([leader.wholes for leader in self._leaders]).T).max(0)
        around = (np.concatenate([leader.windows for leader in self._leaders]) @ seen.wholes.T).max(1)
        best = np.maximum(within.reshape(-1, 2).max(1), around.reshape(len(self._leaders), -1).max(1))
        return [number for number in np.argsort(-best)[:_LIKELY].tolist() if best[number] >= COARSE]
