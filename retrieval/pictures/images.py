"""Bytes of a picture file -> RGB pixels. All decoding with Pillow is here.

A picture is what a viewer shows first: frame one, turned as its EXIF orientation says, transparent parts on white,
deep pixels scaled to 8 bit, colours by their profile in sRGB. A file that lacks nothing of its pixels is decoded even
where Pillow refuses it. Pillow reads a closed list of formats and `other_formats` some more; all are identified by
content, never by name. Hostile files can still hang or crash a C decoder: for untrusted files,
`diffsim.retrieval.pictures.decode_pool` calls this module in worker processes.
"""

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

# Imported to register their formats with Pillow; by default, Pillow would load all its forty plugins.
from PIL import (  # noqa: F401  isort: skip
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    QoiImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from .colour import to_rgb
from .dates import taken_ns
from .errors import NO_PICTURE, too_large
from .errors import UnreadableImage as UnreadableImage
from .extras import EXTRA_SUFFIXES, HEIF
from .mend import MOST_TEXT, mended
from .metadata import NOTHING_SAID, Metadata, read_metadata
from .opened import Opened
from .other_formats import open_other

DECODE_REVISION = 3
"""Part of every feature space: raised whenever a change in this package changes a pixel. 2: large JPEGs are decoded at
a reduced scale, which is several times as fast, and pictures are turned after resizing. 3: colours are converted to
sRGB by their profiles, and deep greys of TIFF and transparent ones of PNG are shown as meant."""

MAX_PIXELS = 500_000_000
"""Largest declared width x height that is decoded. Decoding takes 4 to 9 bytes of memory per pixel."""

# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib",
    ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
    ".tga", ".qoi",
}) | EXTRA_SUFFIXES
# fmt: on
"""Suffixes (lower case) of files that count as pictures when a folder is walked."""

# Pillow tries them in this order. TGA has no magic number, so it is tried last. MPO files are read by the JPEG plugin.
# Never EPS (runs Ghostscript).
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM", "QOI"]
_LAST_FORMATS = ["TGA"]
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

_REDUCED = 4
"""A JPEG decoded at a reduced scale still has at least this many times the required pixels on both sides."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}  # width and height
_EXIF_ORIENTATION = 0x0112
_LONGEST = 16  # times the short side

_pillow_globals = threading.Lock()


@dataclass(frozen=True)
class DecodedPicture:
    """A decoded picture. `pixels`: uint8 [size, size, 3], RGB; `format`: "JPEG", "PNG", ...; `width`, `height`: of the
    whole picture as shown, after its orientation was applied; `taken_ns`: its own date, see dates.taken_ns; `metadata`:
    what else its file says of it."""

    pixels: np.ndarray
    format: str
    width: int
    height: int
    taken_ns: int | None = None
    metadata: Metadata = NOTHING_SAID


def decode(data: bytes, size: int, fit: str = "squash") -> DecodedPicture:
    """Decode a file's bytes and make the picture size x size.

    fit: `squash`, by Lanczos, or `crop N`: the short side to N pixels by bicubic, then the middle, as transformers'
    image processors do; or `inside`, for display: aspect ratio kept, never enlarged, at the top left of a white
    square, of which it covers `inside_size`. Raises UnreadableImage; ValueError for another fit.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its scale, if that leaves 4 x size (4 x N) pixels on both sides.
    """
    short = None if fit == "inside" else crop_side(fit)
    loaded = _load(data, short or size)
    width, height = loaded.whole if loaded.turn not in _SWAPPING else loaded.whole[::-1]
    if fit == "inside":
        small = _inside(loaded, *inside_size(width, height, size), size)
    elif short is None:
        square = loaded.picture.resize((size, size), Image.Resampling.LANCZOS, box=loaded.box)
        small = _turned(square, loaded.turn)
    else:
        small = _middle(loaded, size, short)
    return DecodedPicture(np.array(small), loaded.format, width, height, loaded.taken_ns, loaded.metadata)


def crop_side(fit: str) -> int | None:
    """N of the fit `crop N`, None of `squash`; raises ValueError for anything else."""
    if fit == "squash":
        return None
    found = re.fullmatch("crop ([1-9][0-9]{0,4})", fit)
    if found is None:
        raise ValueError(f"{fit!r} is not a fit")
    return int(found[1])


def inside_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height of a picture that must not be larger than size x size."""
    scale = min(1.0, size / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _inside(loaded: "_Loaded", width: int, height: int, size: int) -> Image.Image:
    flat = (height, width) if loaded.turn in _SWAPPING else (width, height)
    square = Image.new("RGB", (size, size), "white")
    square.paste(_turned(loaded.picture.resize(flat, Image.Resampling.LANCZOS, box=loaded.box), loaded.turn))
    return square


def _middle(loaded: "_Loaded", size: int, short: int) -> Image.Image:
    """The middle size x size of the picture resized so that its short side has `short` pixels."""
    width, height = loaded.whole
    brief = min(width, height)
    # Of a long panorama, resize only the part around the middle: the whole might not fit into memory.
    wide, high = min(width, _LONGEST * brief), min(height, _LONGEST * brief)
    left, top = (width - wide) // 2, (height - high) // 2
    across, down = loaded.box[2] / width, loaded.box[3] / height  # below 1 at a reduced scale
    box = (left * across, top * down, (left + wide) * across, (top + high) * down)
    resized = loaded.picture.resize((short * wide // brief, short * high // brief), Image.Resampling.BICUBIC, box=box)
    return _cut(_turned(resized, loaded.turn), size, size)


def _cut(picture: Image.Image, width: int, height: int) -> Image.Image:
    if picture.size == (width, height):
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def fitted(picture: Image.Image, size: int, fit: str) -> Image.Image:
    """An upright RGB picture made size x size by the fit, from full scale."""
    short = crop_side(fit)
    if short is None:
        return picture.resize((size, size), Image.Resampling.LANCZOS)
    return _middle(_Loaded(picture, (0, 0, *picture.size), picture.size, None, ""), size, short)


def seen(picture: Image.Image, size: int, fit: str) -> Image.Image:
    """The part of an upright picture that a network sees: all of it, or for `crop N` its middle square."""
    short = crop_side(fit)
    if short is None:
        return picture
    side = max(1, round(min(picture.size) * size / short))
    return _cut(picture, side, side)


def open_picture(data: bytes) -> tuple[Image.Image, str]:
    """Decode a file's bytes at full size -> (upright RGB picture, name of its format). Raises as `_load` does."""
    loaded = _load(data)
    return _turned(loaded.picture, loaded.turn), loaded.format


@dataclass(frozen=True)
class _Loaded:
    """`picture`: RGB, not yet turned; `box`: where in it the picture lies (a reduced scale pads by less than a pixel);
    `whole`: width and height at full scale; `turn`: what makes it upright; `taken_ns`, `metadata`: what its file says
    of it."""

    picture: Image.Image
    box: tuple[float, float, float, float]
    whole: tuple[int, int]
    turn: Image.Transpose | None
    format: str
    taken_ns: int | None = None
    metadata: Metadata = NOTHING_SAID


def _load(data: bytes, size: int | None = None) -> _Loaded:
    """Decode a file's bytes, at full scale or, for a JPEG, no larger than size x size requires.

    Raises UnreadableImage, whose text gives the reason, or MemoryError. Calls from several threads are serialised,
    because Pillow's limit on pixels is a global.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        return _read(data, size)
    except UnreadableImage:
        whole = _mended(data)
        if whole is None:
            raise
        return _read(whole, size)


def _read(data: bytes, size: int | None) -> _Loaded:
    with _problems_named(), _our_limits():
        opened = open_other(data, MAX_PIXELS) or _opened(data)
        picture = opened.picture
        declared, draft = picture.size, None
        if size is not None and picture.format == "JPEG":
            draft = picture.draft(None, (_REDUCED * size, _REDUCED * size))
        picture.load()
        # TIFF turns itself while loading and then no longer reports an orientation.
        whole, box = (declared, draft[1]) if draft else (picture.size, (0, 0, *picture.size))
        depth = data[24] if opened.format == "PNG" else 8
        said = taken_ns(picture), read_metadata(picture)
        turn = None if opened.upright else _turn(picture)
        return _Loaded(to_rgb(picture, depth), box, opened.whole or whole, turn, opened.format, *said)


def _opened(data: bytes) -> Opened:
    picture = Image.open(io.BytesIO(data), formats=_formats(data))
    return Opened(picture, picture.format or "?")


def _mended(data: bytes) -> bytes | None:
    """The bytes of the same picture as Pillow takes them, None where something of it is missing."""

    def look(attempt: bytes) -> bytes:
        with _problems_named(), _our_limits(), Image.open(io.BytesIO(attempt), formats=["JPEG"]) as picture:
            return hashlib.sha256(picture.tobytes()).digest()

    try:
        return mended(data, look)
    except UnreadableImage:
        return None


@contextmanager
def _problems_named() -> Iterator[None]:
    """Raise what Pillow raises as UnreadableImage, or MemoryError."""
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(NO_PICTURE) from None
    except Image.DecompressionBombError as error:
        declared = re.search(r"\d+", str(error))
        raise too_large(int(declared[0]) if declared else None, MAX_PIXELS) from None
    except Exception as error:  # untrusted bytes: any failure of Pillow's parsers is the file's fault
        raise _damaged(error) from error


@contextmanager
def _our_limits() -> Iterator[None]:
    """Make Pillow refuse more than MAX_PIXELS (also inside containers, such as a PNG in an ICO), without warnings, and
    no text or profile of a PNG that browsers take."""
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above its limit and refuses above twice that
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


def _formats(data: bytes) -> list[str]:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand not in _HEIF_BRANDS:
        return _FORMATS + _LAST_FORMATS
    try:
        import pillow_heif
    except ImportError:
        if brand in (b"mif1", b"msf1"):  # general brands, which AVIF files may carry too
            return _FORMATS
        raise UnreadableImage(f"one of {HEIF.needed}") from None
    pillow_heif.register_heif_opener()
    return [*_FORMATS, "HEIF"]


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return None


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def _damaged(error: Exception) -> Exception:
    words = " ".join(str(error).split())[:200] or type(error).__name__  # may quote the file
    if "out of memory" in words:  # how Pillow's codecs report a failed allocation
        return MemoryError(words)
    if isinstance(error, EOFError) or re.search("truncated|not enough", words, re.IGNORECASE):
        return UnreadableImage("the picture is cut off")
    return UnreadableImage(f"the picture is damaged ({words})")
