"""The date of a picture itself: which of its dates, in which zone, and everything else that may stand there."""

import io
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffsim.retrieval.pictures.dates import taken_ns
from diffsim.retrieval.pictures.images import decode

ORIGINAL, DIGITIZED, CHANGED = 0x9003, 0x9004, 0x0132
OFFSET_CHANGED, OFFSET_ORIGINAL, OFFSET_DIGITIZED = 0x9010, 0x9011, 0x9012
NOON = 1_580_731_200  # 2020-02-03 12:00 UTC


@pytest.fixture(autouse=True)
def _new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def dated(tags: dict[int, Any], format_name: str = "JPEG") -> bytes:
    exif = Image.Exif()
    if CHANGED in tags:
        exif[CHANGED] = tags[CHANGED]
    exif.get_ifd(0x8769).update({tag: value for tag, value in tags.items() if tag != CHANGED})
    data = io.BytesIO()
    Image.new("RGB", (20, 10), (9, 99, 9)).save(data, format_name, exif=exif.tobytes())
    return data.getvalue()


def taken(tags: dict[int, Any], format_name: str = "JPEG") -> float | None:
    """Seconds since 1970."""
    ns = decode(dated(tags, format_name), 8).taken_ns
    return None if ns is None else ns / 1e9


@pytest.mark.parametrize("format_name", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_with_exif(format_name: str) -> None:
    assert taken({ORIGINAL: "2020:02:03 12:00:00", OFFSET_ORIGINAL: "+00:00"}, format_name) == NOON
    assert taken({}, format_name) is None


@pytest.mark.parametrize(
    ("tags", "seconds"),
    [
        ({ORIGINAL: "2020:02:03 12:00:00", DIGITIZED: "2021:01:01 00:00:00", CHANGED: "2022:01:01 00:00:00"}, 5 * 3600),
        ({DIGITIZED: "2020:02:03 12:00:00", CHANGED: "2022:01:01 00:00:00"}, 5 * 3600),
        ({CHANGED: "2020:02:03 12:00:00"}, 5 * 3600),
        ({ORIGINAL: "0000:00:00 00:00:00", DIGITIZED: "2020:02:03 12:00:00"}, 5 * 3600),
        ({ORIGINAL: "2020:02:03 12:00:00", OFFSET_ORIGINAL: "+05:30"}, -5.5 * 3600),
        ({DIGITIZED: "2020:02:03 12:00:00", OFFSET_DIGITIZED: "-08:00"}, 8 * 3600),
        ({CHANGED: "2020:02:03 12:00:00", OFFSET_CHANGED: "Z"}, 0),
        ({ORIGINAL: "2020:02:03 12:00:00", OFFSET_CHANGED: "Z"}, 5 * 3600),  # the zone of another date
        ({ORIGINAL: "2020:02:03 12:00:00", OFFSET_ORIGINAL: "   :  "}, 5 * 3600),
        ({ORIGINAL: "2020:02:03 12:00:00", OFFSET_ORIGINAL: "+99:00"}, 5 * 3600),
        ({ORIGINAL: "2020-02-03T12:00:00.75"}, 5 * 3600),
        ({ORIGINAL: "2020:02:03 12:00:00\0\0 "}, 5 * 3600),
    ],
)
def test_which_date_in_which_zone(tags: dict[int, Any], seconds: float) -> None:
    assert taken(tags) == NOON + seconds


HOSTILE = (
    "0000:00:00 00:00:00",
    "0000:01:01 00:00:00",
    "0001:01:01 00:00:00",
    "9999:12:31 23:59:59",
    "1600:01:01 00:00:00",
    "2300:01:01 00:00:00",
    "2020:02:30 12:00:00",
    "2020:13:01 12:00:00",
    "2020:01:01 24:00:00",
    "2020:01:01 00:00:60",
    "    :  :     :  :  ",
    "\0\0\0\0",
    "2020\0:01:01 00:00:00",
    "",
    "yesterday",
    "２０２０:02:03 12:00:00",
    "2020:02:03 12:00:00" * 1000,
)


@pytest.mark.parametrize("date", HOSTILE, ids=lambda date: ascii(date)[:20])
@pytest.mark.parametrize("tag", [ORIGINAL, DIGITIZED, CHANGED])
def test_a_date_that_cannot_be_is_none(tag: int, date: str) -> None:
    assert taken({tag: date}) is None


@pytest.mark.parametrize("value", [7, (1, 2), b"2020:02:03 12:00:00", 1.5, ("2020:02:03 12:00:00", "x")])
def test_a_date_of_another_type_is_none(value: Any) -> None:
    picture = Image.new("RGB", (1, 1))
    picture.getexif()[CHANGED] = value
    assert taken_ns(picture) is None


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 70), junk=st.binary(min_size=1, max_size=8))
def test_a_broken_exif_block_costs_no_picture(at: int, junk: bytes) -> None:
    whole = dated({ORIGINAL: "2020:02:03 12:00:00", CHANGED: "2020:02:03 12:00:00"})
    at += whole.index(b"Exif\0\0") + 6
    broken = decode(whole[:at] + junk + whole[at + len(junk) :], 8)
    assert broken.pixels.shape == (8, 8, 3)
    assert broken.taken_ns is None or abs(broken.taken_ns) < 2**63
