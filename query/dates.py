"""The dates of pictures: their own where they have one, else that of their file; and which of the two a filter used."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from diffsim.db.catalog import Catalog
from diffsim.db.times import moment, storable

from .notes import damaged_rows
from .query import Answer, Hit

DateOf = Literal["picture", "file"]


def with_dates(catalog: Catalog, answer: Answer) -> Answer:
    """An answer whose hits have their dates."""
    damaged: set[int] = set()
    own = catalog.own_dates({each.content_id for hit in answer.hits for each in (hit, *hit.duplicates)}, damaged)
    hits = [
        replace(_dated(hit, own), duplicates=tuple(_dated(copy, own) for copy in hit.duplicates)) for hit in answer.hits
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


def _dated(hit: Hit, own: dict[int, int]) -> Hit:
    date, whose = date_of(own.get(hit.content_id), hit.paths)
    return replace(hit, date=date, date_of=whose)
