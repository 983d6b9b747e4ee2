"""RAW pictures of cameras, read by LibRaw (the extra `raw`).

Shown is the preview that the camera made, where there is one of a useful size: it is what its maker meant, and is there
in no time. Otherwise the picture is developed at half of its size, with the white balance of the camera.
"""

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image, TiffImagePlugin

from .errors import UnreadableImage, too_large
from .opened import Opened

_MAGIC = (b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
_TIFF = (b"II*\0", b"MM\0*")
_LATER = ((4, b"ftypcrx "), (6, b"HEAPCCDR"), (8, b"CR\x02"), (8, b"IIII"))
_PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION, _DATE = 262, 330, 50706, 306
_OF_SENSORS = (32803, 34892)  # CFA and LinearRaw
_MOST_IFDS = 16

_USEFUL_PREVIEW = 1024
_SAME_ASPECT = 0.02


def is_one(data: bytes) -> bool:
    if data.startswith(_MAGIC) or any(data[at : at + len(magic)] == magic for at, magic in _LATER):
        return True
    try:
        return any(_is_of_sensor(ifd) for ifd in _ifds(data))
    except Exception:  # a broken TIFF, which is Pillow's business
        return False


def open_one(data: bytes, most_pixels: int) -> Opened:
    """Raises UnreadableImage: too large, cut off or damaged; MemoryError."""
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            return _shown(raw, most_pixels)
    except rawpy.LibRawIOError:
        raise UnreadableImage("the picture is cut off") from None
    except rawpy.LibRawUnsufficientMemoryError:
        raise MemoryError from None
    except rawpy.LibRawError as error:
        raise UnreadableImage(f"the picture is damaged ({error.args[0].decode()})") from None


def _shown(raw: Any, most_pixels: int) -> Opened:
    sizes = raw.sizes
    if sizes.raw_width * sizes.raw_height > most_pixels:
        raise too_large(sizes.raw_width * sizes.raw_height, most_pixels)
    preview = _preview(raw)
    if preview is not None and max(preview.size) >= min(_USEFUL_PREVIEW, max(sizes.width, sizes.height) // 2):
        return Opened(preview, "RAW", _whole(preview, sizes))
    picture = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
    if raw.other.timestamp:
        picture.getexif()[_DATE] = raw.other.timestamp.strftime("%Y:%m:%d %H:%M:%S")
    upright = (sizes.height, sizes.width) if sizes.flip in (5, 6) else (sizes.width, sizes.height)
    return Opened(picture, "RAW", upright, upright=True)


def _preview(raw: Any) -> Image.Image | None:
    import rawpy

    try:
        found = raw.extract_thumb()
        if found.format == rawpy.ThumbFormat.JPEG:  # carries its orientation: LibRaw adds it where the camera did not
            return Image.open(io.BytesIO(found.data), formats=["JPEG"])
    except (rawpy.LibRawError, OSError, SyntaxError):
        pass
    return None


def _whole(preview: Image.Image, sizes: Any) -> tuple[int, int] | None:
    """The size of the sensor's picture, if the preview shows all of it."""
    width, height = preview.size
    is_same = abs(width * sizes.height / (height * sizes.width) - 1) <= _SAME_ASPECT
    return (sizes.width, sizes.height) if is_same else None


def _ifds(data: bytes) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """The first directories of a TIFF, each with those below it."""
    if not data.startswith(_TIFF):
        return
    file = io.BytesIO(data)
    first = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    waiting = [first.next]
    for _ in range(_MOST_IFDS):
        if not waiting or not waiting[0]:
            return
        ifd = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file.seek(waiting.pop(0))
        ifd.load(file)
        yield ifd
        below = ifd.get(_SUB_IFDS, ())
        waiting += [*(below if isinstance(below, tuple) else (below,)), *filter(None, [ifd.next])]


def _is_of_sensor(ifd: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    return _DNG_VERSION in ifd or ifd.get(_PHOTOMETRIC) in _OF_SENSORS
