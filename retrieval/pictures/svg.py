"""SVG, drawn by resvg (the extra `svg`): no scripts, no network, no other file.

resvg runs no scripts and has no network, but would draw a local picture that an SVG names. Therefore it never gets the
file itself: the document is parsed here (the parser of the standard library loads nothing from outside and refuses
entities that grow without end), what refers to anything outside is removed, and resvg gets what was left.
"""

import io
import re
import zlib
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from .errors import NO_PICTURE, UnreadableImage
from .opened import Opened

SIDE = 1024
"""A drawing has no pixels of its own: it is drawn so that its longer side has this many."""

_GZIP = b"\x1f\x8b"
_MOST_TEXT = 1 << 26
_HEAD = 1 << 16
_ROOT = re.compile(rb"<([\w.-]+:)?svg[\s>/]")
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_MOST_DEPTH = 200


def is_one(data: bytes) -> bool:
    head = _unzipped(data, _HEAD)[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"<") and _ROOT.search(head) is not None


def open_one(data: bytes, most_pixels: int) -> Opened:
    """Raises UnreadableImage, ValueError (from resvg)."""
    import resvg_py

    drawing = _self_contained(data)
    has_text = "text" in drawing  # looking up the fonts of a machine takes longer than most drawings
    drawn = resvg_py.svg_to_bytes(svg_string=drawing, width=SIDE, height=SIDE, skip_system_fonts=not has_text)
    return Opened(Image.open(io.BytesIO(drawn), formats=["PNG"]), "SVG")


def _self_contained(data: bytes) -> str:
    text = _unzipped(data, _MOST_TEXT + 1)
    if len(text) > _MOST_TEXT:
        raise UnreadableImage(f"an SVG of more than {_MOST_TEXT >> 20} MB")
    try:
        root = _parsed(text)
    except ElementTree.ParseError as error:
        raise UnreadableImage(f"the picture is damaged ({error})") from None
    if root.tag != f"{_NAMESPACE}svg":
        raise UnreadableImage(NO_PICTURE)
    for element in root.iter():
        for name, value in list(element.items()):
            is_link = name.rpartition("}")[2] == "href"
            if is_link and not value.startswith(("#", "data:")):
                del element.attrib[name]
    return ElementTree.tostring(root, encoding="unicode")


def _parsed(text: bytes) -> ElementTree.Element:
    """Raises ElementTree.ParseError, UnreadableImage."""
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth = 0
    root: ElementTree.Element | None = None
    for at in range(0, len(text), _HEAD):
        parser.feed(text[at : at + _HEAD])
        for event, element in parser.read_events():
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            if depth > _MOST_DEPTH:
                raise UnreadableImage(f"an SVG whose parts are nested more than {_MOST_DEPTH} deep")
    parser.close()
    if root is None:
        raise UnreadableImage(NO_PICTURE)
    return root


def _unzipped(data: bytes, most: int) -> bytes:
    """The first `most` bytes or more."""
    if not data.startswith(_GZIP):
        return data
    try:
        return zlib.decompressobj(wbits=31).decompress(data, most)
    except zlib.error:
        return b""
