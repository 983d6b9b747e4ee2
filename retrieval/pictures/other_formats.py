"""Pictures that Pillow does not read: by which bytes each format is known, and the module that opens it."""

from typing import Any

from . import jpegxl, raw, svg
from .errors import UnreadableImage
from .extras import JXL, RAW, SVG, Extra
from .opened import Opened

_READERS: tuple[tuple[Extra, Any], ...] = ((JXL, jpegxl), (SVG, svg), (RAW, raw))


def open_other(data: bytes, most_pixels: int) -> Opened | None:
    """A file in one of these formats; None where it is in none of them.

    Raises UnreadableImage: too large, damaged, or its package is not installed; and whatever that package raises.
    """
    for extra, reader in _READERS:
        if reader.is_one(data):
            if not extra.is_there:
                raise UnreadableImage(f"one of {extra.needed}")
            opened: Opened = reader.open_one(data, most_pixels)
            return opened
    return None
