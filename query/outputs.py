"""Files that a command writes beside its answer: checked before the work, and never over what is somebody else's."""

import os
import secrets
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import QueryError

if TYPE_CHECKING:
    from PIL import Image

    from diffsim.db.catalog import Catalog

MARK = "diffsim-search"
"""Stands in every picture that this program writes, so that the next run may replace it."""
PICTURES = (".png", ".jpg", ".jpeg")

_MARKS = (b"tEXtSoftware\0" + MARK.encode(), b"\xff\xfe\0\x10" + MARK.encode(), b"<dc:title>" + MARK.encode())
"""As PNG, JPEG and SVG hold it."""
_BEGINNING = 8192
_QUALITY = 92


class CannotWrite(QueryError):
    """The file cannot be written, or must not be."""


def check_output(
    path: Path,
    suffixes: Collection[str] = PICTURES,
    *,
    force: bool = False,
    catalog: "Catalog | None" = None,
) -> None:
    """Check that a file can be written, before the work is done.

    A file that is there is replaced only if this program wrote it and it is not in the index, or by force. catalog: of
    the index. Raises CannotWrite.
    """
    if path.suffix.lower() not in suffixes:
        raise CannotWrite(f"The name {path} does not say which kind of file; end it in {' or '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise CannotWrite(f"There is no folder {path.parent} for {path.name}; make it, or name another file.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CannotWrite(f"The folder {path.parent} cannot be written to; name a file in another.")
    try:
        there = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise CannotWrite(f"{path} is a link to nothing; name another file.") from None
        return
    except OSError as problem:
        raise CannotWrite(f"{path} cannot be written ({problem.strerror}); name another file.") from problem
    if not stat.S_ISREG(there.st_mode):
        raise CannotWrite(f"{path} is there already and is not a file; name another.")
    if force:
        return
    if not _is_ours(path):
        raise CannotWrite(
            f"{path} is there already and does not say that this program wrote it; name another file, or give --force."
        )
    if catalog is not None and catalog.has_file(os.path.realpath(os.fsencode(path))):
        raise CannotWrite(f"{path} is a picture of the index; name another file, or replace it with --force.")


def _is_ours(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:
        return False
    return any(mark in beginning for mark in _MARKS)


def write_output(path: Path, write: Callable[[Path], None]) -> None:
    """Write elsewhere, then rename, so that a half-written file never replaces an old one. write: to this path, whose
    suffix is that of the file."""
    part = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def save_picture(drawing: "Image.Image", path: Path) -> None:
    """A drawing as the PNG or JPEG that its suffix says, marked as this program's."""
    write_output(path, lambda part: _save(drawing, part))


def _save(drawing: "Image.Image", path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    if path.suffix.lower() == ".png":
        info = PngInfo()
        info.add_text("Software", MARK)
        drawing.save(path, "PNG", pnginfo=info)
    else:
        drawing.save(path, "JPEG", quality=_QUALITY, subsampling=0, comment=MARK)
