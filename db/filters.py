"""Which pictures pass a filter, by what the catalog knows of their files and contents."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
from sqlalchemy import Connection, Select, Text, and_, case, cast, exists, false, func, or_, select
from sqlalchemy.sql import ColumnElement

from diffsim.errors import did_you_mean

from .arrays import ascending
from .chunks import chunks
from .errors import CatalogError
from .files import KnownRoot, display_text, inside, present, read_roots
from .metadata import has_keyword, is_camera, is_near, search_key
from .tables import Content, File, Metadata, Root
from .times import storable


class BadFilter(CatalogError, ValueError):
    """A filter asks for something that cannot be."""


_FORMATS = {
    **{name: (name,) for name in ("PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "ICO", "PPM", "QOI", "TGA", "HEIF")},
    **{name: (name,) for name in ("JXL", "RAW", "SVG")},
    "JPEG": ("JPEG", "MPO"),
    "JPEG2000": ("JPEG2000",),
}
"""Formats by the name that a person gives -> as they stand in the catalog. MPO: a camera's JPEG with a preview."""

_ALSO = {"JPG": "JPEG", "TIF": "TIFF", "HEIC": "HEIF", "JP2": "JPEG2000", "JPEGXL": "JXL", "DNG": "RAW"}

FORMATS = tuple(sorted(_FORMATS))

_LONGEST = 100
"""Characters of a camera or a keyword that is looked for; no longer ones are stored."""
_ROUND_THE_EARTH_KM = 20_100


@dataclass(frozen=True)
class Filters:
    """What a picture must be to be a hit; empty fields ask nothing.

    folders: one of its files is below one of these, which the index must know. after, before: the picture's own date,
    or where it has none the time at which that file was modified, is this moment or later, and earlier than it (a date
    is its midnight; without a time zone it is local time). min_side, max_side: no side has fewer, or more, pixels.
    min_bytes, max_bytes: of the file. formats: JPEG, PNG, ... by the content, not by the name. name: a part of the path
    below the indexed folder; of the letters a to z the case does not matter.
    What its file says of it (EXIF, XMP, IPTC): camera: maker and model hold this text. keywords: it has every one.
    rating: at least so many stars, 1 to 5. near: (latitude, longitude, kilometres), taken within so far of a place in
    degrees, north and east positive. Letters of either case are the same. Raises BadFilter.
    """

    folders: Sequence[str | os.PathLike[str]] = ()
    after: date | datetime | None = None
    before: date | datetime | None = None
    min_side: int | None = None
    max_side: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    formats: Sequence[str] = ()
    camera: str | None = None
    keywords: Sequence[str] = ()
    rating: int | None = None
    near: tuple[float, float, float] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        folders = (self.folders,) if isinstance(self.folders, str | os.PathLike) else self.folders
        formats = (self.formats,) if isinstance(self.formats, str) else self.formats
        object.__setattr__(self, "folders", tuple(map(os.fspath, folders)))
        if "" in self.folders:
            raise BadFilter("The path of a folder is empty; name a folder of the index, or leave the filter out.")
        object.__setattr__(self, "formats", tuple(map(_format, formats)))
        keywords = (self.keywords,) if isinstance(self.keywords, str) else self.keywords
        object.__setattr__(self, "keywords", tuple(_text(word, "keyword") for word in keywords))
        if self.camera is not None:
            object.__setattr__(self, "camera", _text(self.camera, "camera"))
        if self.rating is not None and self.rating not in range(1, 6):
            raise BadFilter(f"The rating {self.rating} is not one that a picture can have; give 1 to 5 stars.")
        if self.near is not None:
            object.__setattr__(self, "near", _near(*self.near))
        for low, high, what in (
            (self.min_side, self.max_side, "sides"),
            (self.min_bytes, self.max_bytes, "sizes"),
            (_ns(self.after), _ns(self.before), "dates"),
        ):
            if low is not None and high is not None and low > high:
                raise BadFilter(f"The filter's lower bound for {what} is above its upper one; exchange the two.")

    def __bool__(self) -> bool:
        return self != NO_FILTERS

    @property
    def dated(self) -> bool:
        return self.after is not None or self.before is not None

    @property
    def of_metadata(self) -> bool:
        """Whether it asks for what files say of their pictures."""
        return self.camera is not None or bool(self.keywords) or self.rating is not None or self.near is not None

    def in_time(self, mtime_ns: int) -> bool:
        """Whether a file that was modified then passes."""
        after, before, mtime_ns = _ns(self.after), _ns(self.before), storable(mtime_ns)
        return (after is None or after <= mtime_ns) and (before is None or mtime_ns < before)


def _format(name: str) -> str:
    plain = name.upper().removeprefix(".")
    plain = _ALSO.get(plain, plain)
    if plain not in _FORMATS:
        meant = did_you_mean(plain, FORMATS)
        raise BadFilter(f"{name!r} is no format that is read here{meant}; choose one of {', '.join(FORMATS)}.")
    return plain


def _text(text: str, what: str) -> str:
    key = search_key(text)
    if not key or len(text) > _LONGEST or not key.isprintable():
        raise BadFilter(f"The {what} {text[:_LONGEST]!r} cannot be looked for; give 1 to {_LONGEST} plain characters.")
    return key


def _near(latitude: float, longitude: float, km: float) -> tuple[float, float, float]:
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise BadFilter(
            f"There is no place at latitude {latitude:g}, longitude {longitude:g}; give degrees from -90 to 90 and "
            "from -180 to 180, for example 48.2 and 16.4 for Vienna."
        )
    if not (math.isfinite(km) and km > 0):
        raise BadFilter(f"The distance {km:g} is not allowed; give kilometres above 0.")
    return latitude, longitude, min(km, _ROUND_THE_EARTH_KM)


def _ns(moment: date | datetime | None) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    try:
        return storable(round(moment.timestamp() * 1e6) * 1000)
    except (OverflowError, OSError, ValueError):
        raise BadFilter(f"The moment {moment} is outside of what file systems know; choose a later one.") from None


NO_FILTERS = Filters()


def matching(
    connection: Connection, filters: Filters, among: Sequence[int] | None = None
) -> tuple[np.ndarray, list[tuple[int, bytes]]]:
    """Contents with a present file that passes, int64, ascending, and those without a date of their own of which only
    the modification time is not known: (content id, absolute path), for `Filters.in_time` to decide. among: only these
    contents are looked at."""
    if among is not None:
        parts = [_matching(connection, filters, [File.content_id.in_(some)]) for some in chunks(among)]
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in parts)])
        return ascending(ids), [one for _, undated in parts for one in undated]
    ids, undated = _matching(connection, filters, [])
    return ascending(ids), undated


def _matching(
    connection: Connection, filters: Filters, among: Sequence[ColumnElement[bool]]
) -> tuple[np.ndarray, list[tuple[int, bytes]]]:
    base, wanted = _without_dates(connection, filters, among)
    date = func.coalesce(Content.taken_ns, File.mtime_ns)
    after, before = _ns(filters.after), _ns(filters.before)
    times = [] if after is None else [date >= after]
    times += [] if before is None else [date < before]
    found = base.where(*wanted, *times).subquery()
    # All ids as one text: to make a million rows of them would take longer than to find them.
    text = connection.scalar(select(func.aggregate_strings(cast(found.c.content_id, Text), ",")))
    undated: list[tuple[int, bytes]] = []
    if filters.dated:
        rows = connection.execute(
            base.add_columns(Root.path, File.path)
            .join(Root, Root.id == File.root_id)
            .where(*wanted, Content.taken_ns.is_(None), File.mtime_ns.is_(None))
            .order_by(File.id)
        )
        undated = [(content_id, os.path.join(root, path)) for content_id, root, path in rows]
    return np.fromstring(text, np.int64, sep=",") if text else np.empty(0, np.int64), undated


def _without_dates(
    connection: Connection, filters: Filters, among: Sequence[ColumnElement[bool]]
) -> tuple[Select, list[ColumnElement[bool]]]:
    """The ids of contents by their files, and every condition but those of dates."""
    of_content, of_metadata = _of_content(filters), _of_metadata(filters)
    wanted = [present(), *among, *of_content, *of_metadata]
    if filters.folders:
        below = or_(*(_below(connection, folder) for folder in filters.folders))
        # Among a few contents, the database must not walk the whole folder: inside a CASE it sees no index for that.
        wanted.append(case((below, 1), else_=0) == 1 if among else below)
    if filters.name:
        wanted.append(File.display.icontains(filters.name, autoescape=True))
    base = select(File.content_id)
    if of_content or filters.dated:
        base = base.join(Content, Content.id == File.content_id)
    if of_metadata:
        base = base.join(Metadata, Metadata.content_id == File.content_id)
    return base, wanted


def count_undated(connection: Connection, filters: Filters) -> tuple[int, int]:
    """Of the contents that pass all filters but those of dates: how many have no date of their own, and how many there
    are. filters: with a date. Contents that were never decoded do not count."""
    base, wanted = _without_dates(connection, filters, [])
    contents = base.add_columns(Content.taken_ns).where(*wanted, Content.format.is_not(None)).distinct().subquery()
    total, own = connection.execute(select(func.count(), func.count(contents.c.taken_ns)).select_from(contents)).one()
    return total - own, total


def _of_content(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.min_side is not None:
        conditions.append(and_(Content.width >= filters.min_side, Content.height >= filters.min_side))
    if filters.max_side is not None:
        conditions.append(and_(Content.width <= filters.max_side, Content.height <= filters.max_side))
    if filters.min_bytes is not None:
        conditions.append(Content.size >= filters.min_bytes)
    if filters.max_bytes is not None:
        conditions.append(Content.size <= filters.max_bytes)
    if filters.formats:
        conditions.append(Content.format.in_([name for chosen in filters.formats for name in _FORMATS[chosen]]))
    return conditions


def _of_metadata(filters: Filters) -> list[ColumnElement[bool]]:
    conditions = [has_keyword(word) for word in filters.keywords]
    if filters.camera is not None:
        conditions.append(is_camera(filters.camera))
    if filters.rating is not None:
        conditions.append(Metadata.rating >= filters.rating)
    if filters.near is not None:
        conditions.append(is_near(*filters.near))
    return conditions


def _below(connection: Connection, folder: str | os.PathLike[str]) -> ColumnElement[bool]:
    """Files below a folder anywhere. Raises BadFilter where none is known there, gone ones too."""
    path = os.path.realpath(os.fsencode(folder))
    roots = read_roots(connection)
    below = or_(false(), *(_below_in(root, path) for root in roots))
    if not connection.scalar(select(exists(select(File.id).where(below)))):
        names = ", ".join(root.display for root in roots) or "none, it is empty"
        raise BadFilter(
            f"No file of the folder {display_text(path)} is in the index; name a folder in or around one of: {names}."
        )
    return below


def _below_in(root: KnownRoot, path: bytes) -> ColumnElement[bool]:
    """Files of a root below a folder (absolute): in the root, the root itself, or around it."""
    if path == root.path or root.path.startswith(path.rstrip(b"/") + b"/"):
        return inside(root.id, b"")
    if path.startswith(root.path.rstrip(b"/") + b"/"):
        return inside(root.id, os.path.relpath(path, root.path))
    return false()
