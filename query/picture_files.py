"""Makes a query's picture available as a file: the guarded decoders read files, and a file's hash is its identity."""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from diffsim.indexer.paths import given_path
from diffsim.retrieval.pictures.colour import to_rgb
from diffsim.retrieval.regular_files import NotRegular, open_regular

from .query import BadQuery, Subject


@dataclass(frozen=True)
class PictureFile:
    """A picture as a file, for the guarded decoders. name: what messages call it."""

    path: Path
    name: str


@contextmanager
def picture_file(subject: Subject) -> Iterator[PictureFile]:
    """A picture, not an id, as a file; one in memory becomes a private temporary file. Raises BadQuery."""
    if isinstance(subject, str | os.PathLike):
        yield PictureFile(given_path(subject), os.fspath(subject))
        return
    data = subject if isinstance(subject, bytes) else _png(subject)
    with tempfile.NamedTemporaryFile(prefix="diffsim-") as file:
        file.write(data)
        file.flush()
        yield PictureFile(Path(file.name), "the picture")


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


def sha256_of(picture: Path) -> bytes:
    """SHA-256 of a file's bytes; links are followed. Raises BadQuery."""
    try:
        with open_regular(picture, follow_links=True) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except NotRegular:
        raise BadQuery(f"{picture} is not a file; give the path of a picture.") from None
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise BadQuery(f"The picture {picture} cannot be read ({reason}); give the path of a picture.") from problem
