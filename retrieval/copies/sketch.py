"""The sketch of a picture: what is kept of it, in every index, to recognise its copies without its file.

It does not depend on a feature space. The whole picture, squashed to a square by area averages: its brightness at
64 x 64 places, and its colours at 16 x 16.
"""

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

SIDE = 64
COLOURS = 16
DECODED = 2 * SIDE
"""The size to decode a picture to, squashed, for its sketch."""

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_SIZES = struct.Struct(">II")
_NBYTES = _SIZES.size + SIDE * SIDE + 3 * COLOURS * COLOURS


@dataclass(frozen=True, eq=False)
class Sketch:
    """grey: uint8 [64, 64], brightness. colours: uint8 [16, 16, 3], RGB. width, height: of the upright picture, in
    pixels."""

    grey: np.ndarray
    colours: np.ndarray
    width: int
    height: int

    @classmethod
    def of(cls, pixels: np.ndarray, width: int, height: int) -> Self:
        """pixels: the whole picture squashed to a square, uint8 [size, size, 3] with size >= 64."""
        picture = Image.fromarray(pixels)
        small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
        colours = np.asarray(picture.resize((COLOURS, COLOURS), Image.Resampling.BOX))
        return cls(np.rint(small @ _GREY).astype(np.uint8), colours, width, height)

    def record(self) -> bytes:
        """The bytes as they are stored."""
        return _SIZES.pack(self.width, self.height) + self.grey.tobytes() + self.colours.tobytes()

    @classmethod
    def read(cls, record: bytes | memoryview) -> Self:
        """Raises ValueError for a record of another length."""
        if len(record) != _NBYTES:
            raise ValueError(f"a sketch has {_NBYTES} bytes, this record {len(record)}")
        width, height = _SIZES.unpack_from(record)
        grey = np.frombuffer(record, np.uint8, SIDE * SIDE, _SIZES.size).reshape(SIDE, SIDE)
        colours = np.frombuffer(record, np.uint8, -1, _SIZES.size + SIDE * SIDE).reshape(COLOURS, COLOURS, 3)
        return cls(grey, colours, width, height)
