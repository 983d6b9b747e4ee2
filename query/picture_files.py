"""Opens a query's picture for the guarded decoders, which read open files, and for its hash, which is its identity."""

import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from diffsim.indexer.paths import given_path
from diffsim.retrieval.pictures.colour import to_rgb
from diffsim.retrieval.pictures.decode_pool import Job
from diffsim.retrieval.regular_files import MAX_FILE_BYTES, NotRegular, open_regular

from .query import BadQuery, Subject, Text


@dataclass(frozen=True)
class PictureFile:
    """A picture as an open regular file. name: what messages call it."""

    file: io.BufferedIOBase
    name: str

    def sha256(self) -> bytes:
        """Of its bytes. Raises BadQuery."""
        try:
            self.file.seek(0)
            return hashlib.file_digest(self.file, "sha256").digest()
        except OSError as problem:
            raise _unreadable(self.name, problem.strerror or str(problem)) from problem

    def job(self, number: int = 0, sha256: bytes = b"") -> Job:
        """For a decoder; the file must stay open until it has answered."""
        return Job(number, os.fsencode(self.name), sha256, self.file.fileno())


@contextmanager
def picture_file(subject: Subject) -> Iterator[PictureFile]:
    """A picture, not an id, as a file; links are followed, because the user named it. Raises BadQuery."""
    if isinstance(subject, str | os.PathLike):
        with _opened(given_path(subject)) as file:
            yield PictureFile(file, os.fspath(subject))
        return
    with nameless_file(subject if isinstance(subject, bytes) else _png(subject)) as file:
        yield PictureFile(file, "the picture")


@contextmanager
def nameless_file(data: bytes) -> Iterator[io.BufferedIOBase]:
    """Bytes as an open file without a name, which is gone when this process ends, however it ends."""
    with open(os.memfd_create("diffsim"), "w+b") if sys.platform == "linux" else tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file


_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


def _png(picture: object) -> bytes:
    """An image in memory as a lossless file. Raises BadQuery."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise BadQuery(
                f"An array {picture.dtype} {list(picture.shape)} is not a picture; give uint8 [height, width, 3] of "
                "RGB."
            )
        picture = Image.fromarray(picture)
    if isinstance(picture, Text):
        raise BadQuery("A text is no picture and has nothing to extract; give it to a query.")
    if not isinstance(picture, Image.Image):
        raise BadQuery(
            f"A {type(picture).__name__} cannot be queried with; give a path, bytes of a picture file, a Pillow image, "
            "an array uint8 [height, width, 3], an id of the index or an extracted picture."
        )
    if picture.mode == "F" or not min(picture.size):
        raise BadQuery(
            f"A Pillow image of mode {picture.mode} with {picture.width} x {picture.height} pixels cannot be queried "
            "with; convert it to RGB with at least one pixel."
        )
    file = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(picture)
        upright = upright if upright.mode in _PNG_MODES else to_rgb(upright)
        upright.save(file, "PNG", compress_level=1)
    except (OSError, ValueError) as problem:  # Pillow reads a file's pixels only now
        raise BadQuery(f"The Pillow image cannot be read ({problem}); give another picture.") from problem
    return file.getvalue()


def _opened(picture: Path) -> io.BufferedReader:
    """Raises BadQuery."""
    try:
        file = open_regular(picture, follow_links=True)
    except NotRegular:
        raise BadQuery(f"{picture} is not a file; give the path of a picture.") from None
    except OSError as problem:
        raise _unreadable(picture, problem.strerror or str(problem)) from problem
    if (size := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
        file.close()
        raise _unreadable(picture, f"{size / 2**30:,.1f} GB, over the limit of {MAX_FILE_BYTES >> 30} GB")
    return file


def sha256_of(picture: Path) -> bytes:
    """SHA-256 of a file's bytes; links are followed. Raises BadQuery."""
    with picture_file(picture) as opened:
        return opened.sha256()


def _unreadable(picture: object, reason: str) -> BadQuery:
    return BadQuery(f"The picture {picture} cannot be read ({reason}); give the path of a picture.")
