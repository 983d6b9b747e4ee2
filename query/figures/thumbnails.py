"""Thumbnails for sheets: upright, on white, for any file."""

from pathlib import Path

from PIL import Image

from diffsim.retrieval.pictures.images import UnreadableImage, open_picture

_SIDE = 384


def thumbnail(path: Path) -> Image.Image:
    """The picture at most 384 pixels wide and high; a plain grey square if the file cannot be read now."""
    try:
        picture, _ = open_picture(path.read_bytes())
    except (OSError, UnreadableImage):
        return blank()
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return picture


def blank() -> Image.Image:
    """The placeholder for a picture that cannot be read now."""
    return Image.new("RGB", (_SIDE, _SIDE), (225, 225, 225))
