"""What the files say of their pictures, a row for each content: shown, and asked for by filters.

A content without a row was decoded by a program that did not read this; one that says nothing has an empty row.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, select
from sqlalchemy.sql import ColumnElement

from .chunks import chunks
from .seals import is_sound, metadata_seal
from .tables import Content, Metadata

_EARTH_CM = 637_100_880
"""Mean radius."""

_SAID = Metadata.camera, Metadata.lens, Metadata.rating, Metadata.x_cm, Metadata.y_cm, Metadata.z_cm, Metadata.keywords
SEALED = *_SAID, Metadata.caption, Metadata.camera_key, Metadata.keywords_key


@dataclass(frozen=True)
class PictureMetadata:
    """What a picture's file says of it (EXIF, XMP, IPTC); empty or None where it says nothing.

    camera: maker and model. rating: 1 to 5 stars, or -1 for rejected. latitude, longitude: degrees, north and east
    positive; both or none. keywords: each once.
    """

    camera: str = ""
    lens: str = ""
    rating: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    keywords: tuple[str, ...] = ()
    caption: str = ""


def search_key(text: str) -> str:
    """What two texts have in common that differ only in the case of their letters or in their spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def write_metadata(connection: Connection, said: Mapping[int, PictureMetadata]) -> None:
    """Put down, by content id, what was read, in the place of what was read before."""
    for ids in chunks(said):
        connection.execute(delete(Metadata).where(Metadata.content_id.in_(ids)))
        hashes = connection.execute(select(Content.id, Content.sha256).where(Content.id.in_(ids)))
        rows = [_row(content_id, sha256, said[content_id]) for content_id, sha256 in hashes]
        if rows:
            connection.execute(insert(Metadata), rows)


def read_metadata(connection: Connection, ids: Iterable[int], damaged: set[int]) -> dict[int, PictureMetadata]:
    """Of those of these contents whose metadata were read, by id. damaged: receives the contents whose row is damaged,
    which was left out."""
    found: dict[int, PictureMetadata] = {}
    for some in chunks(ids):
        rows = select(Metadata.content_id, Metadata.seal, Content.sha256, *SEALED)
        rows = rows.join(Content, Content.id == Metadata.content_id).where(Metadata.content_id.in_(some))
        for content_id, seal, sha256, *values in connection.execute(rows):
            if is_sound(seal, metadata_seal(sha256, values)):
                found[content_id] = _said(*values[: len(_SAID) + 1])
            else:
                damaged.add(content_id)
    return found


def is_unread() -> ColumnElement[bool]:
    """Contents that were decoded before metadata were read."""
    return and_(Content.format.is_not(None), ~exists().where(Metadata.content_id == Content.id))


def count_unread(connection: Connection) -> int:
    return connection.scalars(select(func.count()).where(is_unread())).one()


def is_near(latitude: float, longitude: float, km: float) -> ColumnElement[bool]:
    """Places at most so far away along the ground: a sum of squares, which is the same in every database, around the
    poles and across the date line too."""
    chord = 2 * _EARTH_CM * math.sin(min(km * 1e5 / (2 * _EARTH_CM), math.pi / 2))
    steps = [
        (column - there) * (column - there)
        for column, there in zip((Metadata.x_cm, Metadata.y_cm, Metadata.z_cm), _xyz(latitude, longitude), strict=True)
    ]
    return steps[0] + steps[1] + steps[2] <= round(chord * chord)


def has_keyword(word: str) -> ColumnElement[bool]:
    return Metadata.keywords_key.contains(f"\n{search_key(word)}\n", autoescape=True)


def is_camera(text: str) -> ColumnElement[bool]:
    """Cameras whose name holds this text."""
    return Metadata.camera_key.contains(search_key(text), autoescape=True)


def _row(content_id: int, sha256: bytes, said: PictureMetadata) -> dict[str, Any]:
    x, y, z = (None, None, None)
    if said.latitude is not None and said.longitude is not None:
        x, y, z = _xyz(said.latitude, said.longitude)
    row: dict[str, Any] = {
        "camera": said.camera,
        "lens": said.lens,
        "rating": said.rating,
        "x_cm": x,
        "y_cm": y,
        "z_cm": z,
        "keywords": "\n".join(said.keywords),
        "caption": said.caption,
        "camera_key": search_key(said.camera),
        "keywords_key": "".join(f"\n{search_key(word)}" for word in said.keywords) + "\n" * bool(said.keywords),
    }
    seal = metadata_seal(sha256, [row[column.key] for column in SEALED])
    return row | {"content_id": content_id, "seal": seal}


def _said(
    camera: str,
    lens: str,
    rating: int | None,
    x: int | None,
    y: int | None,
    z: int | None,
    keywords: str,
    caption: str,
) -> PictureMetadata:
    latitude = longitude = None
    if x is not None and y is not None and z is not None:
        latitude = round(math.degrees(math.atan2(z, math.hypot(x, y))), 6)
        longitude = round(math.degrees(math.atan2(y, x)), 6)
    words = tuple(keywords.split("\n")) if keywords else ()
    return PictureMetadata(camera, lens, rating, latitude, longitude, words, caption)


def _xyz(latitude: float, longitude: float) -> tuple[int, int, int]:
    """From the centre of the earth: towards 0° north 0° east, towards 0° north 90° east, towards the north pole."""
    north, east = math.radians(latitude), math.radians(longitude)
    x, y, z = math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)
    return round(x * _EARTH_CM), round(y * _EARTH_CM), round(z * _EARTH_CM)
