"""Formats that need one more package: which files are of them by name, and what to install."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec


@dataclass(frozen=True)
class Extra:
    """`name`: of the extra that `pip` installs; `module`: what it brings; `kind`: what it reads, in the plural;
    `suffixes`: in lower case."""

    name: str
    module: str
    kind: str
    suffixes: frozenset[str]

    @property
    def is_there(self) -> bool:
        return _is_there(self.module)

    @property
    def needed(self) -> str:
        """What is said of such files where the package is missing, worded for the end of a sentence."""
        return f"{self.kind}, which need one more package: pip install 'diffsim-search[{self.name}]'"


HEIF = Extra("heif", "pillow_heif", "HEIC/HEIF pictures", frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"}))
JXL = Extra("jxl", "pylibjxl", "JPEG XL pictures", frozenset({".jxl"}))
SVG = Extra("svg", "resvg_py", "SVG drawings", frozenset({".svg", ".svgz"}))
# fmt: off
RAW = Extra("raw", "rawpy", "RAW pictures", frozenset({
    ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".orf", ".rw2", ".rwl", ".raf", ".pef", ".srw",
    ".3fr", ".iiq", ".x3f", ".mrw", ".erf", ".mef",
}))
# fmt: on

EXTRAS = (HEIF, JXL, SVG, RAW)
EXTRA_SUFFIXES = frozenset[str]().union(*(extra.suffixes for extra in EXTRAS))


def package_needed(suffix: str) -> str | None:
    """Why files with this suffix (lower case) cannot be read here, None where they can. Looks for a package once."""
    return next((extra.needed for extra in EXTRAS if suffix in extra.suffixes and not extra.is_there), None)


@cache
def _is_there(module: str) -> bool:
    return find_spec(module) is not None
