"""Colours alone: a histogram in the place of a network."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..colour import SIDE
from ..json_table import read_table
from ..names import COLOUR
from .family import Family
from .preset import BUNDLED, Preset

if TYPE_CHECKING:
    from ..networks import Network


def matches(folder: Path) -> bool:
    return read_table(folder / "config.json", {}).get("_class_name") == "ColourHistogram"


def defaults(folder: Path) -> Preset:
    return _COLOUR


def load(folder: Path, dtype: str, device: str, adapter: str) -> "Network":
    from ..networks.colour import ColourNetwork

    return ColourNetwork.load(folder, dtype, device)


_COLOUR = Preset(
    SIDE,
    {COLOUR: ()},
    noises=0,
    name=COLOUR,
    about="bundled: how much of each colour a picture has, without a network",
    bundled=BUNDLED / COLOUR,
    work=0.2,
)

FAMILY = Family(
    COLOUR, "config.json of a colour histogram", matches, defaults, load, variants=("global",), presets=(_COLOUR,)
)
