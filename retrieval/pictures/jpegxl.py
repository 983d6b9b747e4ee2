"""JPEG XL, read by libjxl (the extra `jxl`)."""

from PIL import Image

from .errors import too_large
from .opened import Opened

_STREAM, _CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"


def is_one(data: bytes) -> bool:
    return data.startswith((_STREAM, _CONTAINER))


def open_one(data: bytes, most_pixels: int) -> Opened:
    """The first frame. Raises UnreadableImage where it is too large, RuntimeError or MemoryError for the rest."""
    import pylibjxl

    declared = pylibjxl.probe(data)
    pixels = declared["width"] * declared["height"]
    if pixels > most_pixels:
        raise too_large(pixels, most_pixels)
    with pylibjxl.JXL(threads=1) as decoder:
        values, more = decoder.decode(data, metadata=True)
    picture = Image.fromarray(values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values)
    picture.info.update({"icc_profile": more.get("icc"), "exif": more.get("exif")})
    return Opened(picture, "JXL", upright=True)  # libjxl turns it, and by the standard EXIF has no say in that
