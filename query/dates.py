"""What is told of a hit: its date, its own or that of its file, and what its file says; and what a filter went by."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from diffsim.db.catalog import Catalog
from diffsim.db.metadata import PictureMetadata
from diffsim.db.times import moment, storable

from .notes import damaged_rows
from .query import Answer, Hit

DateOf = Literal["picture", "file"]


def described(catalog: Catalog, answer: Answer) -> Answer:
    """An answer whose hits have their dates and metadata."""
    damaged: set[int] = set()
    ids = {each.content_id for hit in answer.hits for each in (hit, *hit.duplicates)}
    own, said = catalog.own_dates(ids, damaged), catalog.metadata(ids, damaged)
    hits = [
        replace(_described(hit, own, said), duplicates=tuple(_described(copy, own, said) for copy in hit.duplicates))
        for hit in answer.hits
    ]
    notes = [*answer.notes, damaged_rows(len(damaged))] if damaged else answer.notes
    return replace(answer, hits=hits, notes=notes)


def date_of(own_ns: int | None, paths: Iterable[str]) -> tuple[datetime | None, DateOf | None]:
    """The date of a picture and whose it is. own_ns: its own, if it has one. paths: its files; the first is asked."""
    if own_ns is not None:
        return moment(own_ns), "picture"
    try:
        return moment(storable(Path(next(iter(paths))).stat().st_mtime_ns)), "file"
    except (OSError, StopIteration):
        return None, None


def dates_used(undated: int, pictures: int) -> list[str]:
    """A note on a filter by date. undated: how many of the pictures that it looked at have no date of their own."""
    if not undated:
        return []
    having = "has no date of its own" if undated == 1 else "have no date of their own"
    return [f"{undated:,} of {pictures:,} pictures {having} (EXIF); the date filter took that of their file."]


def metadata_used(unread: int) -> list[str]:
    """A note on a filter by metadata. unread: how many pictures were indexed before metadata were read."""
    if not unread:
        return []
    return [
        f"What the files of {unread:,} pictures say was not read yet, so the filter left them out; the next "
        "`diffsim index` reads it."
    ]


def _described(hit: Hit, own: dict[int, int], said: dict[int, PictureMetadata]) -> Hit:
    date, whose = date_of(own.get(hit.content_id), hit.paths)
    return replace(hit, date=date, date_of=whose, metadata=said.get(hit.content_id))
