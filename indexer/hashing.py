"""What bytes a file holds, and the stat that vouches for them."""

import hashlib
import os
import time
from dataclasses import dataclass

from diffsim.db.times import storable
from diffsim.retrieval.regular_files import open_regular, plain_reason

ATTEMPTS = 4
CHUNK = 1 << 20
# A file system may stamp times as coarsely as 2 s (FAT): a file that is younger than that when it is read could change
# again without its stat showing it.
RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Digest:
    """The times are None where an equal stat would not prove equal bytes."""

    sha256: bytes
    size: int
    mtime_ns: int | None
    ctime_ns: int | None


@dataclass(frozen=True, slots=True)
class Unread:
    """`lasting`: trying again is pointless until the file's stat changes."""

    reason: str
    lasting: bool


def read_digest(path: bytes) -> Digest | Unread:
    """SHA-256 of a file, read again when it changed meanwhile."""
    try:
        for _ in range(ATTEMPTS):
            digest = _read_once(path)
            if digest:
                return digest
    except PermissionError as error:
        return Unread(plain_reason(error), lasting=True)
    except OSError as error:
        return Unread(plain_reason(error), lasting=False)
    return Unread("keeps changing while it is read", lasting=False)


def without_reading(path: bytes) -> Digest | Unread:
    """What `read_digest` gives, for a file that is known to be like no other: something else stands in for the hash."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return Unread(plain_reason(error), lasting=False)
    return Digest(hashlib.sha256(b"not read: " + path).digest(), size, None, None)


def trusted_times(mtime_ns: int, ctime_ns: int, read_ns: int) -> tuple[int, int] | tuple[None, None]:
    """The times of a file that was read at `read_ns`, as a catalog can hold them, or None twice when it had been
    modified just before."""
    racy = any(read_ns - RACY_NS < modified <= read_ns + RACY_NS for modified in (mtime_ns, ctime_ns))
    return (None, None) if racy else (storable(mtime_ns), storable(ctime_ns))


def _read_once(path: bytes) -> Digest | None:
    read_ns = time.time_ns()
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        sha256 = hashlib.sha256()
        size = 0
        # Not past the size that it had: a file may grow faster than it is read.
        while size <= before.st_size and (chunk := file.read(CHUNK)):
            sha256.update(chunk)
            size += len(chunk)
        after = os.fstat(file.fileno())  # a file that was replaced lost its name, which shows in its ctime
    unchanged = (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    if not unchanged or size != before.st_size:
        return None
    return Digest(sha256.digest(), size, *trusted_times(after.st_mtime_ns, after.st_ctime_ns, read_ns))
