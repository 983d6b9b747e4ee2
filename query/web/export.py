"""Downloads: a file, a ZIP of selected ones, and a search as a sheet like Figure 4 of the paper."""

import hashlib
import io
import os
import re
import time
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from diffsim.retrieval.regular_files import MAX_FILE_BYTES, open_regular

from ..figures.sheet import SheetExample, SheetHit, draw_comparison, draw_sheet, sheet_hits
from ..picture_cache import NoPicture, PictureCache
from ..query import Answer, Hit
from ..text import printable
from .engine import Engine

_CHUNK = 1 << 20
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
_RESERVED = re.compile("con|prn|aux|nul|conin\\$|conout\\$|(com|lpt)[0-9¹²³]", re.IGNORECASE)
_MOST_NAME = 240
"""Bytes; file systems take 255, some of them less."""
_MOST_SUFFIX = 20


class _Pipe(io.RawIOBase):
    """Where zipfile writes; its bytes are taken out as they come, so that the archive is never in memory as a whole."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def zip_of(engine: Engine, content_ids: Sequence[int]) -> Iterator[bytes]:
    """The pictures' files, unchanged, in pieces. A file whose bytes have changed since they were indexed is left out;
    LEFT-OUT.txt names it."""
    pipe, taken, left_out = _Pipe(), set[str](), list[str]()
    files = engine.catalog.files_of(content_ids)
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for content_id in dict.fromkeys(content_ids):
            places = files[content_id]
            for place in places:
                source = _unchanged(place.path, engine.pictures.known(content_id).sha256)
                if source is None:
                    continue
                info = zipfile.ZipInfo(_name(place.path, taken), _date(os.fstat(source.fileno()).st_mtime))
                info.external_attr = 0o644 << 16
                with source, archive.open(info, "w", force_zip64=True) as target:
                    while piece := source.read(_CHUNK):
                        target.write(piece)
                        yield pipe.take()
                break
            else:
                left_out.append(printable(os.fsdecode(places[0].path)) if places else f"picture {content_id}")
        if left_out:
            lines = ["These files are gone, offline or have changed since they were indexed:", *left_out]
            archive.writestr("LEFT-OUT.txt", "\n".join(lines) + "\n")
    yield pipe.take()


def original(engine: Engine, content_id: int) -> tuple[str, Iterator[bytes]]:
    """The name of one of the picture's files that holds the bytes that were indexed, and these, in pieces. Raises
    NoPicture if none does."""
    known = engine.pictures.known(content_id)
    for place in engine.catalog.files_of([content_id])[content_id]:
        if (source := _unchanged(place.path, known.sha256)) is not None:
            return _name(place.path, set()), _pieces(source)
    raise NoPicture(f"The file of the picture {content_id} is gone, offline or has changed since it was indexed.")


def _pieces(source: io.BufferedReader) -> Iterator[bytes]:
    with source:
        while piece := source.read(_CHUNK):
            yield piece


def _unchanged(path: bytes, sha256: bytes) -> io.BufferedReader | None:
    """The file, open at its beginning, if it is a regular one and its bytes are those that were indexed."""
    with suppress(OSError):
        file = open_regular(path)
        if os.fstat(file.fileno()).st_size <= MAX_FILE_BYTES and hashlib.file_digest(file, "sha256").digest() == sha256:
            file.seek(0)
            return file
        file.close()
    return None


def _date(seconds: float) -> tuple[int, int, int, int, int, int]:
    """A file's time as an archive can hold it: local, from 1980 to 2107."""
    try:
        year, month, day, hour, minute, second = time.localtime(seconds)[:6]
    except (OverflowError, ValueError, OSError):
        return _FIRST_DATE
    return (year, month, day, hour, minute, second) if 1980 <= year <= 2107 else _FIRST_DATE


def _name(path: bytes, taken: set[str]) -> str:
    """A name in the archive that every system can unpack: unique whatever the case of its letters, without a folder,
    short enough, and none that Windows keeps for itself."""
    name = "".join("_" if _is_odd(each) else each for each in Path(os.fsdecode(path)).name).rstrip(" .") or "picture"
    if _RESERVED.fullmatch(name.partition(".")[0].rstrip()):
        name = f"_{name}"
    suffix = Path(name).suffix
    suffix = suffix if len(suffix.encode()) <= _MOST_SUFFIX else ""
    stem = name.removesuffix(suffix)
    number, unique = 1, _short(stem, suffix)
    while unique.lower() in taken:
        number += 1
        unique = _short(stem, f" ({number}){suffix}")
    taken.add(unique.lower())
    return unique


def _is_odd(character: str) -> bool:
    """Whether it is none for a name: not on every system, or not seen. Joiners are letters in some scripts."""
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\u200c\u200d"
    return hidden or character in _NOT_IN_NAMES


def _short(stem: str, rest: str) -> str:
    """The stem, cut where the name would be too long, and the rest."""
    room = _MOST_NAME - len(rest.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") + rest


def sheet(
    examples: Sequence[SheetExample], answers: Sequence[Answer], only: Sequence[int], top: int, pictures: PictureCache
) -> bytes:
    """PNG: the query, further examples and the hits; a row for each answer if there are several."""
    rows = [(answer.name, _chosen(answer.hits, only, top, pictures)) for answer in answers]
    if len(rows) == 1:
        drawing = draw_sheet(examples, rows[0][1], f"by {rows[0][0]}")
    else:
        drawing = draw_comparison(examples, rows, "what each feature space finds similar")
    file = io.BytesIO()
    drawing.save(file, "PNG")
    return file.getvalue()


def _chosen(hits: Sequence[Hit], only: Sequence[int], top: int, pictures: PictureCache) -> list[SheetHit]:
    wanted = [hit for hit in hits if hit.content_id in only] if only else list(hits[:top])
    return sheet_hits(wanted, pictures)
