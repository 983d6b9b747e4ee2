"""Files that are whole or absent: written elsewhere, synced, renamed into place."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Put what was written to a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(part: Path, target: Path) -> None:
    """Rename a finished file over `target`, in the same file system, so that not even a power cut leaves a half."""
    sync(part)
    os.replace(part, target)
    sync(target.parent)
