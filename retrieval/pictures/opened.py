"""A file as its reader opened it."""

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Opened:
    """`picture`: not necessarily loaded yet; `format`: its name; `whole`: width and height at full scale, where the
    picture is a smaller one in its place; `upright`: its EXIF orientation is applied already."""

    picture: Image.Image
    format: str
    whole: tuple[int, int] | None = None
    upright: bool = False
