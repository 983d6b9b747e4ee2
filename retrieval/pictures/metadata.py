"""What a picture's file says of the picture: camera, lens, place, rating, keywords and caption.

Of EXIF, XMP and IPTC, by Pillow; XMP is XML, read by defusedxml, which refuses document types and entities. Files may
hold anything here, so every value is checked, cleaned and bounded, and what is wrong is as if it were not there.
Serial numbers and names of owners are never read.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring
from PIL import Image
from PIL.IptcImagePlugin import getiptcinfo

MOST_KEYWORDS = 1000
LONGEST_NAME = 100
"""Characters of a keyword, a camera or a lens."""
LONGEST_CAPTION = 4000
_LARGEST_XMP = 1 << 22
"""Bytes; a larger packet is not read."""

_IN_EXIF, _GPS = 0x8769, 0x8825
_MAKE, _MODEL, _LENS, _DESCRIPTION, _RATING = 0x010F, 0x0110, 0xA434, 0x010E, 0x4746
_IPTC_KEYWORDS, _IPTC_CAPTION = (2, 25), (2, 120)

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_SUBJECT = "{http://purl.org/dc/elements/1.1/}subject"
_TEXT = "{http://purl.org/dc/elements/1.1/}description"
_STARS = "{http://ns.adobe.com/xap/1.0/}Rating"
_XMP_LENS = "{http://ns.adobe.com/exif/1.0/aux/}Lens"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"

_JOINERS = "\u200c\u200d"  # letters of some scripts need them


@dataclass(frozen=True)
class Metadata:
    """What a file says; empty or None where it says nothing. camera: maker and model. rating: 1 to 5 stars, or -1 for
    rejected. latitude, longitude: degrees, north and east positive; both or none. keywords: each once, whatever the
    case of its letters. All texts are one line each, without control characters."""

    camera: str = ""
    lens: str = ""
    rating: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    keywords: tuple[str, ...] = ()
    caption: str = ""

    def as_message(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Metadata":
        """Of a process that may have been taken over by a file. Raises ValueError, TypeError or LookupError."""
        given = cls(**{**message, "keywords": tuple(message["keywords"])})
        place = given.latitude, given.longitude
        sound = (
            all(text == _line(text) for text in (given.camera, given.lens, *given.keywords))
            and given.caption == _line(given.caption, LONGEST_CAPTION)
            and len(given.keywords) <= MOST_KEYWORDS
            and given.rating == _stars(given.rating)
            and place == _place(*place)
        )
        if not sound:
            raise ValueError(f"{message=}")
        return given


NOTHING_SAID = Metadata()


def read_metadata(picture: Image.Image) -> Metadata:
    """picture: opened from a file. Never raises: broken metadata do not make a picture unreadable."""
    exif, in_exif, gps = _exif(picture)
    xmp = _xmp(picture.info.get("xmp"))
    iptc = _iptc(picture)
    latitude, longitude = _gps(gps)
    return Metadata(
        camera=_camera(_told(exif.get(_MAKE)), _told(exif.get(_MODEL))),
        lens=_told(in_exif.get(_LENS)) or next(map(_line, _values(xmp, _XMP_LENS)), ""),
        rating=next(filter(None, map(_stars, [*_values(xmp, _STARS), exif.get(_RATING)])), None),
        latitude=latitude,
        longitude=longitude,
        keywords=_keywords([*map(_line, _values(xmp, _SUBJECT)), *map(_told, iptc.get(_IPTC_KEYWORDS, ()))]),
        caption=next(filter(None, _captions(exif, xmp, iptc)), ""),
    )


def _exif(picture: Image.Image) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    """The first group of tags, that of the exposure, that of the place."""
    try:
        exif = picture.getexif()
        return dict(exif), exif.get_ifd(_IN_EXIF), exif.get_ifd(_GPS)
    except Exception:
        return {}, {}, {}


def _iptc(picture: Image.Image) -> Mapping[tuple[int, int], list[bytes]]:
    try:
        found = getiptcinfo(picture) or {}  # type: ignore[arg-type]  # of other formats it says nothing
    except Exception:
        return {}
    return {name: each if isinstance(each, list) else [each] for name, each in found.items()}


def _xmp(packet: Any) -> Element | None:
    if not isinstance(packet, bytes) or len(packet) > _LARGEST_XMP:
        return None
    try:
        root: Element = fromstring(packet.strip(b"\0 \t\r\n"), forbid_dtd=True)
    except Exception:
        return None
    return root


def _values(root: Element | None, name: str) -> Iterator[str]:
    """The values of a property: of an attribute, an element, or each item of a list."""
    if root is None:
        return
    for element in root.iter():
        if name in element.attrib:
            yield element.attrib[name]
        if element.tag == name:
            yield from _texts(element)


def _texts(element: Element) -> Iterator[str]:
    """A text in several languages begins with that which is meant where no other is asked for."""
    items = [item for items in element for item in items if item.tag == f"{_RDF}li"]
    items.sort(key=lambda item: item.get(_LANGUAGE, "x-default") != "x-default")
    for item in items or [element]:
        yield item.text or ""


def _captions(
    exif: Mapping[int, Any], xmp: Element | None, iptc: Mapping[tuple[int, int], list[bytes]]
) -> Iterator[str]:
    for text in _values(xmp, _TEXT):
        yield _line(text, LONGEST_CAPTION)
    for told in [*iptc.get(_IPTC_CAPTION, ()), exif.get(_DESCRIPTION)]:
        yield _told(told, LONGEST_CAPTION)


def _keywords(words: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for word in filter(None, words):
        if len(found) < MOST_KEYWORDS:
            found.setdefault(word.casefold(), word)
    return tuple(found.values())


def _camera(make: str, model: str) -> str:
    """Canon and Canon EOS R5 are one name, NIKON CORPORATION and NIKON D850 too."""
    first = make.split(" ")[0]
    return model if model.casefold().startswith(first.casefold()) else f"{make} {model}".strip()[:LONGEST_NAME].strip()


def _stars(value: Any) -> int | None:
    """0 stands for no rating."""
    try:
        stars = int(value) if isinstance(value, int) else round(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return stars if stars in (-1, 1, 2, 3, 4, 5) else None


def _gps(tags: Mapping[int, Any]) -> tuple[float | None, float | None]:
    try:
        return _place(_degrees(tags[2], tags.get(1), "NS"), _degrees(tags[4], tags.get(3), "EW"))
    except Exception:
        return None, None


def _degrees(parts: Any, side: Any, sides: str) -> float:
    """Degrees, minutes and seconds; NaN where they are none."""
    degrees, minutes, seconds = map(float, parts)
    letter = _told(side).upper()
    if letter not in tuple(sides) or not (0 <= degrees <= 180 and 0 <= minutes < 60 and 0 <= seconds <= 60):
        return math.nan
    size = degrees + minutes / 60 + seconds / 3600
    return size if letter == sides[0] else -size


def _place(latitude: float | None, longitude: float | None) -> tuple[float | None, float | None]:
    """In range, to a tenth of a metre; 0, 0 is what cameras write that do not know where they are."""
    if latitude is None or longitude is None or not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None, None
    place = round(latitude, 6), round(longitude, 6)
    return (None, None) if place == (0, 0) else place


def _line(text: str, most: int = LONGEST_NAME) -> str:
    """As one line."""
    text = unicodedata.normalize("NFC", text[: 8 * most])
    shown = "".join(" " if _hidden(character) else character for character in text)
    return " ".join(shown.split())[:most].strip()


def _told(value: Any, most: int = LONGEST_NAME) -> str:
    """A value of EXIF or IPTC as one line. They do not say their encoding: UTF-8 where it is that, else Latin-1."""
    if isinstance(value, str):  # Pillow has read it as Latin-1
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return ""
    try:
        return _line(value.decode(), most)
    except UnicodeDecodeError:
        return _line(value.decode("latin-1"), most)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
