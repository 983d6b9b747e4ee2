"""Moments as the catalog stores them: nanoseconds since 1970 in 64 bits, the years 1678 to 2262."""

from datetime import UTC, datetime, timedelta

_START = datetime(1970, 1, 1, tzinfo=UTC)


def storable(ns: int) -> int:
    """The nearest moment that can be stored. File systems know earlier and later ones."""
    return min(max(ns, -(2**63)), 2**63 - 1)


def moment(ns: int) -> datetime:
    """A stored moment, to the microsecond, in local time."""
    return (_START + timedelta(microseconds=ns // 1000)).astimezone()
