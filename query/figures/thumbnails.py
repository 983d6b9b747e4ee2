"""Small pictures for sheets: upright, on white, for any file, from the guarded decoders."""

from collections.abc import Sequence
from contextlib import closing

from PIL import Image

from diffsim.errors import Error
from diffsim.retrieval.pictures.decode_pool import Decoded

from ..decoders import THUMBNAIL_SIDE, Decoders, picture_of
from ..picture_files import picture_file
from ..query import Subject, Text
from .text_tile import text_tile


def thumbnail(subject: Subject) -> Image.Image:
    """A picture, not an id, at most 384 pixels wide and high, or a text; a plain grey square if it cannot be read now."""
    return thumbnails([subject])[0]


def thumbnails(subjects: Sequence[Subject]) -> list[Image.Image]:
    """The same for several."""
    with closing(Decoders(1)) as decoders:
        return [_thumbnail(subject, decoders) for subject in subjects]


def _thumbnail(subject: Subject, decoders: Decoders) -> Image.Image:
    if isinstance(subject, Text):
        return text_tile(subject.text, THUMBNAIL_SIDE)
    try:
        with picture_file(subject) as file:
            found = decoders.decode(file.job(), THUMBNAIL_SIDE)
    except Error:
        return blank()
    return picture_of(found, THUMBNAIL_SIDE) if isinstance(found, Decoded) else blank()


def blank() -> Image.Image:
    """The placeholder for a picture that cannot be read now."""
    return Image.new("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE), (225, 225, 225))
