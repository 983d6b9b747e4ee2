"""Checksums of rows: a catalog lies on disks that may flip a bit, and SQLite itself has no checksums.

A seal covers what a row says together with what it refers to, so that a hit can be checked when it is shown, without
trusting the indexes that led there. Their formula never changes: every catalog is full of them.
"""

import zlib
from collections.abc import Sequence


def file_seal(path: bytes, content_id: int | None, sha256: bytes | None) -> int:
    """Of a row of `files`. path: absolute. sha256: of its content."""
    return zlib.crc32(repr((path, content_id, sha256)).encode())


def content_seal(
    sha256: bytes,
    size: int,
    shard: int,
    format: str | None,
    width: int | None,
    height: int | None,
    taken_ns: int | None = None,
) -> int:
    """Of a row of `contents`. A picture without a date of its own has the seal that it had before there were dates."""
    date = () if taken_ns is None else (taken_ns,)
    return zlib.crc32(repr((sha256, size, shard, format, width, height, *date)).encode())


def root_seal(path: bytes, left_out: str, include_hidden: bool) -> int:
    """Of a row of `roots`."""
    return zlib.crc32(repr((path, left_out, include_hidden)).encode())


def metadata_seal(sha256: bytes, values: Sequence[object]) -> int:
    """Of a row of `metadata`. sha256: of its content. values: of all other columns, as `metadata.SEALED` names them."""
    return zlib.crc32(repr((sha256, *values)).encode())


def is_sound(seal: int | None, expected: int) -> bool:
    """Whether a stored seal fits. A row that another program wrote may have none."""
    return seal is None or seal == expected
