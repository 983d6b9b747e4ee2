"""Files that are complete or absent: written elsewhere, synced, renamed into place."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file's contents, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(part: Path, target: Path) -> None:
    """Rename a finished file over `target`, in the same file system; not even a power cut leaves a partial file."""
    sync(part)
    os.replace(part, target)
    sync(target.parent)
