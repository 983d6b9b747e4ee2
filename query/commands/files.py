"""Arguments of several commands: pictures to read, from files or pipes, and files to write."""

import os
import re
import select
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from diffsim.retrieval.regular_files import MAX_FILE_BYTES

from ..errors import QueryError
from .options import FilePath

Command = TypeVar("Command", bound=Callable[..., Any])

_STDIN = "-"
_PIECE = 1 << 20


class NoPictureThere(QueryError):
    """A picture cannot be read from where the command was told."""


@dataclass(frozen=True)
class GivenPicture:
    """A picture that the command was given. subject: its path, or its bytes if it came through a pipe. path: as it was
    given."""

    subject: Path | bytes
    path: str

    @property
    def name(self) -> str:
        """For titles."""
        return "standard input" if self.path == _STDIN else Path(self.path).name


class Picture(click.ParamType):
    """A picture's file; a pipe, as of process substitution; or `-`, standard input."""

    name = "picture"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> GivenPicture:
        if isinstance(value, GivenPicture):
            return value
        if not value:
            self.fail("the path is empty; name a picture, or - for standard input.", param, ctx)
        return _given(value)


class WeighedText(click.ParamType):
    """A text with a weight before a colon; one that itself begins like that is written 1:12:30 train."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, str]:
        return value if isinstance(value, tuple) else _weighed(value, self, param, ctx)


class WeighedPicture(Picture):
    """A picture with a weight before a colon, as in rclip; a file name that begins like that is written ./2:cat.png."""

    def convert(  # type: ignore[override]
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, GivenPicture]:
        if isinstance(value, tuple):
            return value
        weight, path = _weighed(value, self, param, ctx)
        return weight, super().convert(path, param, ctx)


WEIGHED_PICTURE = WeighedPicture()
WEIGHED_TEXT = WeighedText()


def _weighed(
    value: str, kind: click.ParamType, param: click.Parameter | None, ctx: click.Context | None
) -> tuple[float, str]:
    found = re.fullmatch(r"([0-9]*\.?[0-9]+):(.*)", value, re.DOTALL)
    weight, rest = (float(found[1]), found[2]) if found else (1.0, value)
    if not weight:
        kind.fail(f"{value!r} has weight 0 and would change nothing; leave it out.", param, ctx)
    return weight, rest


def _given(path: str) -> GivenPicture:
    """Raises NoPictureThere."""
    if path == _STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise NoPictureThere("Nothing is piped into standard input; write for example: diffsim query - < cat.jpg.")
        return GivenPicture(_read(sys.stdin.fileno(), path), path)
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        if re.match(r"[a-z][a-z0-9+.-]*://", path, re.IGNORECASE):
            raise NoPictureThere(
                f"{path} is an address, and nothing is downloaded here; save the picture and give its path, or pipe "
                "it: curl ADDRESS | diffsim query -."
            ) from None
        return GivenPicture(Path(path), path)
    if not stat.S_ISFIFO(mode):
        return GivenPicture(Path(path), path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise NoPictureThere(f"The pipe {path} cannot be read ({problem.strerror}); give a picture.") from problem
    try:
        return GivenPicture(_read(descriptor, path), path)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: str) -> bytes:
    """Everything up to the end, of a pipe from somebody who writes to it; a pipe without a writer is at its end."""
    name = "Standard input" if path == _STDIN else f"The pipe {path}"
    data = bytearray()
    while True:
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            select.select([descriptor], [], [])
            continue
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise NoPictureThere(f"{name} cannot be read ({reason}); give the path of a picture.") from problem
        if not piece:
            break
        data += piece
        if len(data) > MAX_FILE_BYTES:
            raise NoPictureThere(f"{name} gave more than {MAX_FILE_BYTES >> 30} GB; give one picture.")
    if not data:
        raise NoPictureThere(f"{name} gave nothing; give the bytes of a picture, or its path.")
    return bytes(data)


def output_option(name: str, help: str) -> Callable[[Command], Command]:
    """An option that names a file to write, and --force beside it."""

    def decorate(command: Command) -> Command:
        about = f"Let {name} replace a file that this program did not write."
        forced = click.option("--force", is_flag=True, help=about)(command)
        return click.option(name, type=FilePath(), help=help)(forced)

    return decorate
