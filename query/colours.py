"""The filter by colour: the pictures of which enough has a wanted colour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageColor

from diffsim.db.catalog import KnownSpace
from diffsim.db.chunks import chunks
from diffsim.retrieval.names import COLOUR

from .choose import SpaceChooser
from .collection import Collection
from .errors import QueryError

DEFAULT_SHARE = 0.1
"""Of a picture, where nobody says how much of it must have the colour."""

_READ_TOGETHER = 65_536
_KEPT = 8
"""Filters whose result is cached: the web page repeats the same ones."""


class BadColour(QueryError, ValueError):
    """A colour cannot be read, or the index knows no colours."""


@dataclass(frozen=True)
class Colour:
    """A colour that a picture must have. rgb: 0 to 255. share: how much of the picture, in (0, 1]."""

    rgb: tuple[int, int, int]
    share: float = DEFAULT_SHARE

    @classmethod
    def parse(cls, text: str) -> "Colour":
        """`#c0392b`, `red`, `hsl(6, 63%, 46%)`, each perhaps with a share: `#c0392b:25%`. Raises BadColour."""
        name, colon, share = text.rpartition(":")
        try:
            wanted = float(share.strip().removesuffix("%")) / 100 if colon else DEFAULT_SHARE
            if not 0 < wanted <= 1:
                raise ValueError
            red, green, blue = ImageColor.getrgb((name if colon else text).strip())[:3]
        except ValueError:
            raise BadColour(
                f"The colour {text!r} cannot be read; write #c0392b or a name like red, perhaps with the share of the "
                "picture that must have it, above 0 and up to 100: #c0392b:25%."
            ) from None
        return cls((red, green, blue), wanted)


class Coloured:
    """Caches the contents that pass each filter until the catalog changes; one thread at a time."""

    def __init__(self, collection: Collection, chooser: SpaceChooser, generation: Callable[[], int]) -> None:
        self._collection = collection
        self._chooser = chooser
        self._generation = generation
        self._known: dict[tuple[Colour, ...], tuple[int, np.ndarray]] = {}

    def ids(self, colours: Sequence[Colour]) -> np.ndarray:
        """The contents that have enough of every one of the colours: int64, ascending. A picture that is not in the
        colour space yet is not among them. The collection must have been refreshed on that space. Raises BadColour."""
        generation = self._generation()
        known = self._known.pop(tuple(colours), None)
        if known is None or known[0] != generation:
            known = generation, self._found(colours)
        self._known[tuple(colours)] = known
        if len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)))
        return known[1]

    def space(self) -> KnownSpace:
        """The space that knows the colours. Raises BadColour for an index without one."""
        if not any(space.name == f"{COLOUR}/{COLOUR}" for space in self._chooser.all()):
            raise BadColour(
                "The index knows no colours yet; `diffsim index --by colour` adds them, in about a millisecond a "
                "picture and without a network."
            )
        return self._chooser.one(COLOUR)

    def _found(self, colours: Sequence[Colour]) -> np.ndarray:
        from diffsim.retrieval.colour import shares_of

        space = self.space()
        passing = [np.empty(0, np.int64)]
        for some in chunks(self._collection.ids(space.fingerprint), _READ_TOGETHER):
            ids, descriptors = self._collection.descriptors(space.fingerprint, np.asarray(some))
            enough = np.ones(len(ids), np.bool_)
            for colour in colours:
                enough &= shares_of(descriptors, colour.rgb) >= colour.share
            passing.append(ids[enough])
        return np.concatenate(passing)
