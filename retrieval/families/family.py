"""What a kind of networks is to the rest of this program. No torch: a network is loaded by `load` alone."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .preset import AdapterPreset, Preset

if TYPE_CHECKING:
    from ..networks import Network


@dataclass(frozen=True)
class Family:
    """A kind of networks that can be read. Its module imports neither torch nor what imports it, save inside `load`.

    name: small letters, digits and hyphens. layout: what a folder of this kind must hold, in words.
    matches: whether a folder holds such a network, from its small files alone. defaults: how that network is read if
    nothing else is asked for. load: (folder, precision, device, IP-Adapter's path or empty) -> the network; raises
    BadNetwork.
    variants: of all its networks together, the usual one first (see SpaceSettings); `C` means that they take an
    IP-Adapter. presets, adapters: those known by name.
    revision: of the code; raised whenever the same weights give other numbers than before.
    """

    name: str
    layout: str
    matches: Callable[[Path], bool]
    defaults: Callable[[Path], Preset]
    load: "Callable[[Path, str, str, str], Network]"
    variants: tuple[str, ...] = ("S",)
    presets: tuple[Preset, ...] = ()
    adapters: tuple[AdapterPreset, ...] = ()
    revision: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]+", self.name):
            raise ValueError(f"{self.name!r} is not a family's name; use small letters, digits and hyphens")
        if not self.variants:
            raise ValueError(f"the family {self.name} has no variants")

    def stamped(self, weights: str) -> str:
        """What a network of a family from another package gives as its `weights`: the hash of all that was loaded,
        after the family's name and revision. So they enter every fingerprint."""
        return f"{self.name}:{self.revision}:{weights}"
