"""Files that lack nothing of their pixels and that Pillow refuses all the same: the bytes that it takes."""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_END = b"\xff\xd9"

MOST_TEXT = 1 << 26
"""The largest profile or text of a PNG, decompressed, in bytes."""

_FILLERS = (b"", bytes(64), b"\x55" * 64, b"\xaa" * 64, b"\xfe" * 64)
"""What is put before the end of a JPEG that has none: where all pixels are there, none of it is decoded."""


def mended(data: bytes, look: Callable[[bytes], object]) -> bytes | None:
    """Bytes with the same pixels, for a file that could not be decoded; None where pixels are missing, or nothing can
    be done. look: decodes, and gives equal values for equal pixels; what it raises passes."""
    if data.startswith(_PNG):
        plain = b"".join(_chunks_that_matter(data))
        return None if plain == data else plain
    if data.startswith(_JPEG):
        end = _end_of_scans(data)
        if end is not None:
            body = data[:end].rstrip(b"\xff")
            attempts = [body + filler + _END for filler in _FILLERS]
            return attempts[0] if len({look(attempt) for attempt in attempts}) == 1 else None
    return None


def _chunks_that_matter(data: bytes) -> Iterator[bytes]:
    """A PNG's pixels, and of what is sound beside them that which changes how they are shown."""
    yield _PNG
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        whole = data[at : at + 12 + length]
        if not kind[0] & 0x20 or (len(whole) == 12 + length and _is_sound(kind, whole, colour_type=data[25])):
            yield whole
        at += 12 + length
    yield data[at:]


def _is_sound(kind: bytes, chunk: bytes, colour_type: int) -> bool:
    body = chunk[8:-4]
    if zlib.crc32(kind + body) != int.from_bytes(chunk[-4:]):
        return False
    if kind == b"tRNS":
        return {0: len(body) == 2, 2: len(body) == 6, 3: len(body) <= 256}.get(colour_type, False)
    if kind == b"iCCP":
        packed = body.partition(b"\0")[2][1:]
        try:
            unpacker = zlib.decompressobj()
            unpacker.decompress(packed, MOST_TEXT)
        except zlib.error:
            return False
        return unpacker.eof
    return kind == b"eXIf"


def _end_of_scans(data: bytes) -> int | None:
    """Where the entropy-coded bytes of a JPEG's last scan end, if no end of the picture follows there; None where one
    does, where scans are missing, or where the file cannot be understood."""
    lacking: dict[int, set[int]] = {}  # of each component the coefficients that no scan has given in full yet
    progressive = False
    at = 2
    try:
        while True:
            marker = re.compile(rb"\xff+([^\xff])", re.DOTALL).match(data, at)
            if marker is None:
                return None
            kind, at = marker[1][0], marker.end()
            if kind == 0x01 or 0xD0 <= kind <= 0xD7:  # these stand alone
                continue
            if kind in (0xD8, 0xD9):
                return None
            (length,) = struct.unpack_from(">H", data, at)
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
                progressive = kind in (0xC2, 0xC6, 0xCA, 0xCE)
                lacking = {data[at + 8 + 3 * number]: set(range(64)) for number in range(data[at + 7])}
            if kind != 0xDA:
                at += length
                continue
            count = data[at + 2]
            first, last, precision = data[at + 3 + 2 * count : at + 6 + 2 * count]
            for component in data[at + 3 : at + 3 + 2 * count : 2]:
                if not progressive:
                    lacking[component].clear()
                elif precision & 15 == 0:
                    lacking[component] -= set(range(first, last + 1))
            after = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL).search(data, at + length)
            at = after.start() if after else len(data)
            if not any(lacking.values()):
                return None if after and after[0] == _END else at
    except (struct.error, LookupError, ValueError):
        return None
