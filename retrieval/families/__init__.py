"""The kinds of networks that can be read, one file each, and how a network is found, fetched and loaded. torch is
imported only when one is loaded."""

from .family import Family
from .locate import (
    KnownNetwork,
    UnknownModel,
    defaults_of,
    find_adapter,
    find_model,
    known_network,
    load_network,
    locate,
)
from .preset import AdapterPreset, Preset, Source
from .registry import FamilyProblem, MissingFamily, known_families

__all__ = [
    "AdapterPreset",
    "Family",
    "FamilyProblem",
    "KnownNetwork",
    "MissingFamily",
    "Preset",
    "Source",
    "UnknownModel",
    "defaults_of",
    "find_adapter",
    "find_model",
    "known_families",
    "known_network",
    "load_network",
    "locate",
]
