"""The date that a picture carries in its EXIF data: when it was taken, digitized or last changed, in this order."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL import Image

_IN_EXIF = 0x8769  # where the second and third group of tags is
_TAGS = ((0x9003, 0x9011), (0x9004, 0x9012), (0x0132, 0x9010))
"""(date, its offset from UTC): DateTimeOriginal, DateTimeDigitized, DateTime."""

_DATE = re.compile(r"([0-9]{4})[:/-]([0-9]{2})[:/-]([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]*)?")
_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):?([0-5][0-9])")
_START = datetime(1970, 1, 1, tzinfo=UTC)
_RANGE_NS = range(-(2**63), 2**63)


def taken_ns(picture: Image.Image) -> int | None:
    """Nanoseconds since 1970; local time where the picture does not say its offset. None where it has no date, or none
    that can be: files may hold anything here. picture: opened from a file."""
    try:
        exif = picture.getexif()
        tags = {**exif.get_ifd(_IN_EXIF), 0x0132: exif.get(0x0132)}
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return None
    dates = (_ns(tags.get(date), tags.get(offset)) for date, offset in _TAGS)
    return next((date for date in dates if date is not None), None)


def _ns(date: Any, offset: Any) -> int | None:
    found = _DATE.fullmatch(_text(date))
    if found is None:
        return None
    try:
        moment = datetime(*map(int, found.groups()), tzinfo=_zone(offset))  # type: ignore[arg-type, misc]
        if moment.tzinfo is None:
            moment = moment.astimezone()
        seconds = (moment - _START) // timedelta(seconds=1)
    except (ValueError, OverflowError, OSError):  # no such day, or none that the system's clock knows
        return None
    return seconds * 10**9 if seconds * 10**9 in _RANGE_NS else None


def _zone(offset: Any) -> timezone | None:
    text = _text(offset)
    if text == "Z":
        return UTC
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    ahead = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(ahead if found[1] == "+" else -ahead)


def _text(value: Any) -> str:
    return value.rstrip("\0 ") if isinstance(value, str) else ""
