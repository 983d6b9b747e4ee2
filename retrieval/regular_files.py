"""Opens files that others may have created: never a pipe or a device; and says why one could not be read."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_FILE_BYTES = 1 << 30
"""No picture file is larger."""


class NotRegular(OSError):
    """The path is a folder, a pipe, a socket or a device."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "not a regular file")


def open_regular(path: bytes | str | Path, *, follow_links: bool = False) -> BufferedReader:
    """Open a regular file for reading. Never blocks on a pipe; follows a link in the last part of the path only if
    `follow_links` is set. Raises NotRegular and every other OSError of opening."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_whole(descriptor: int) -> bytes:
    """All bytes of an open regular file, wherever its position is, which others may share. Raises NotRegular."""
    whole = os.fstat(descriptor)
    if not stat.S_ISREG(whole.st_mode):
        raise NotRegular
    data = bytearray()
    while piece := os.pread(descriptor, max(1 << 16, whole.st_size - len(data)), len(data)):
        data += piece
    return bytes(data)


def plain_reason(error: OSError) -> str:
    """Why a file could not be opened or inspected, in a few plain words."""
    if isinstance(error, NotRegular):
        return "not a regular file"
    known = {
        errno.ENOENT: "no longer there",
        errno.ENOTDIR: "not a directory",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.ELOOP: "symbolic link",
        errno.ENXIO: "not a regular file",
    }
    return known.get(error.errno or 0) or os.strerror(error.errno or errno.EIO).lower()
