"""The interface of a kind of networks to the rest of this program. No torch: only `load` loads a network."""

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
    """A kind of networks that can be read. Its module may import torch, directly or indirectly, only inside `load`.

    name: lower-case letters, digits and hyphens. layout: what a folder of this kind must hold, in words.
    matches: whether a folder holds such a network, judged by its small files alone. defaults: how that network is read
    by default. load: (folder, precision, device, IP-Adapter's path or empty) -> the network; raises BadNetwork.
    variants: of all its networks together, the default first (see SpaceSettings); `C` means that they take an
    IP-Adapter. presets, adapters: those available by name.
    revision: of the code; raised whenever the same weights give different numbers than before.
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
            raise ValueError(f"{self.name!r} is not a valid family name; use lower-case letters, digits and hyphens")
        if not self.variants:
            raise ValueError(f"the family {self.name} has no variants")

    def stamped(self, weights: str) -> str:
        """The `weights` of a network whose family comes from another package: the hash of all that was loaded, prefixed
        with the family's name and revision, so that these enter every fingerprint."""
        return f"{self.name}:{self.revision}:{weights}"
