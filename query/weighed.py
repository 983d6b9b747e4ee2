"""Feature spaces with weights, as a person writes them: `style:0.7`."""

import math
import re
from collections.abc import Sequence

from diffsim.db.catalog import KnownSpace

from .choose import SpaceChooser
from .query import BadQuery

_WEIGHED = re.compile(r"(?P<name>.+):(?P<weight>[^:/]*)", re.DOTALL)

WeighedSpace = tuple[KnownSpace, float]
"""A feature space and its share of an example, above 0; the shares of one example add up to 1."""


def split_weight(text: str) -> tuple[str, float]:
    """The name and the weight in `NAME` or `NAME:WEIGHT`. Raises BadQuery."""
    found = _WEIGHED.fullmatch(text)
    if found is None:
        return text, 1.0
    try:
        weight = float(found["weight"])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise BadQuery(
            f"{found['weight']!r} is not a weight for the feature space {found['name']}; write a number above 0, for "
            f"example {found['name']}:0.7."
        )
    return found["name"], weight


def weighed_spaces(chooser: SpaceChooser, names: Sequence[str]) -> list[WeighedSpace]:
    """The spaces that the names mean, each once; no names mean the index's first. Raises BadQuery, UnknownSpace."""
    weights: dict[str, float] = {}
    spaces: dict[str, KnownSpace] = {}
    for given in names or (None,):
        name, weight = (None, 1.0) if given is None else split_weight(given)
        space = chooser.one(name)
        spaces[space.fingerprint] = space
        if weights.setdefault(space.fingerprint, weight) != weight:
            raise BadQuery(f"The feature space {space.name} is given two weights; give one.")
    return shared([(space, weights[fingerprint]) for fingerprint, space in spaces.items()])


def shared(spaces: Sequence[WeighedSpace]) -> list[WeighedSpace]:
    """The same with weights that add up to 1."""
    total = sum(weight for _, weight in spaces)
    return [(space, weight / total) for space, weight in spaces]
