"""Text in drawings: any file name, in the first font of this machine that has its letters.

Pillow brings a font with the letters of English. Others are looked for by name where the system keeps its fonts, when a
text needs them; none is shipped, because those with Chinese letters take tens of megabytes.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from PIL import ImageFont

BOX = "\ufffd"
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc"),
    *("DroidSansFallbackFull.ttf", "Arial Unicode.ttf", "msyh.ttc", "malgun.ttf"),
)
"""Latin, Cyrillic, Greek, Arabic and Hebrew; then Chinese, Japanese and Korean. On Linux, macOS and Windows."""
_LOOKALIKES = {"–": "-", "—": "-", "−": "-", "×": "x", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE"}
_LOOKALIKES |= {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i", "þ": "th", "ð": "d"}
_MANY_MARKS = re.compile("([\u0300-\u036f]{2})[\u0300-\u036f]+")
"""More would leave their line."""
_NO_LETTER = "\U0010fffe"
_MOST = 200

Face = ImageFont.FreeTypeFont


@cache
def font(size: int) -> Face:
    """Pillow's own."""
    face = ImageFont.load_default(size)
    assert isinstance(face, Face)  # Pillow returns its bitmap font only if no size is given
    return face


def fitted(text: str, size: int, width: float) -> tuple[str, Face]:
    """The text with its middle left out if it would be wider than `width` pixels, and the font to draw it in."""
    text, face = lettered(text, size)
    if len(text) > _MOST:
        text = _shortened(text, _MOST)
    if face.getlength(text) <= width:
        return text, face
    kept = len(text) - 1
    while kept > 2 and face.getlength(_shortened(text, kept)) > width:
        kept -= 1
    return _shortened(text, kept), face


def _shortened(text: str, kept: int) -> str:
    # The end of a file name says more than its beginning: it holds the number and the suffix.
    return text[: kept - kept * 3 // 5] + "…" + text[len(text) - kept * 3 // 5 :]


def lettered(text: str, size: int) -> tuple[str, Face]:
    """The text in letters of one font, the first of those that lack fewest: letters that it lacks lose their accents, a
    box stands for the rest, invisible characters are left out.

    File names may hold anything: undecodable bytes (surrogates), marks that change the direction of writing, emoji.
    """
    text = "".join(" " if each.isspace() else each for each in unicodedata.normalize("NFC", text) if not _hidden(each))
    text = _MANY_MARKS.sub(r"\1", text)
    found = font(size)
    lacking = {each for each in text if not _has(found, each)}
    for face in _others(size) if lacking else ():
        lacks = {each for each in text if not _has(face, each)}
        if len(lacks) < len(lacking):
            found, lacking = face, lacks
        if not lacking:
            break
    return "".join(_alike(each, found) if each in lacking else each for each in text), found


def boxes(text: str) -> bool:
    """Whether letters of a text are drawn as boxes, because no font with them was found."""
    return BOX in lettered("".join(each for each in text if unicodedata.category(each)[0] == "L"), 14)[0]


def _hidden(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _alike(character: str, face: Face) -> str:
    drawn = ""
    for piece in unicodedata.normalize("NFKD", _LOOKALIKES.get(character, character)):
        if _has(face, piece):
            drawn += piece
        elif unicodedata.category(piece) not in ("Mn", "Cf"):
            drawn += " " if piece.isspace() else BOX
    return drawn


def _others(size: int) -> Iterator[Face]:
    for name in FONTS:
        face = _named(name, size)
        if face is not None:
            yield face


@cache
def _named(name: str, size: int) -> Face | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _has(face: Face, character: str) -> bool:
    """Whether the font has a letter of its own for a character: for any that it lacks, it draws the same box."""
    if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return False
    if character == " ":
        return True
    return bytes(face.getmask(character)) != bytes(face.getmask(_NO_LETTER))
