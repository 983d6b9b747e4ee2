"""Walk a folder for pictures: by name and kind of file only, nothing is opened."""

import fnmatch
import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass

from diffsim.db.times import storable
from diffsim.retrieval.pictures.images import PICTURE_SUFFIXES
from diffsim.retrieval.regular_files import plain_reason

from .index_folder import is_index

DEFAULT_EXCLUDE_DIRS = frozenset(
    {
        b"@eaDir",
        b"node_modules",
        b".git",
        b"System Volume Information",
        b"$RECYCLE.BIN",
        b"$Recycle.Bin",
        b"lost+found",
        b".Trash*",
        b"__MACOSX",
    }
)
"""Directories that hold thumbnails, deleted files or programs. Shell patterns, matched against a directory's name."""

_SYSTEM_FILES = {b"Thumbs.db", b".DS_Store"}
_SUFFIXES = frozenset(os.fsencode(suffix) for suffix in PICTURE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file that is a picture by its name. `path`: relative to the root, bytes of `os.fsencode`; the rest as
    in `os.lstat`: `size` in bytes, times in nanoseconds, the nearest that a catalog can hold."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True)
class Skipped:
    """A file or directory left out on purpose. A directory stands for itself: what is in it is neither looked at nor
    counted."""

    path: bytes
    reason: str


@dataclass(frozen=True)
class Unreadable:
    """A file or directory that could not be looked at; the path is empty where that is the root itself."""

    path: bytes
    reason: str


def walk(
    root: bytes, *, exclude_dirs: frozenset[bytes] = DEFAULT_EXCLUDE_DIRS, include_hidden: bool = False
) -> Iterator[Entry | Skipped | Unreadable]:
    """All that lies under `root`, in byte order of the whole relative path (so `a-b`, `a.jpg`, `a/b`).

    Links below the root are never followed, so nothing outside it is reached and no loop is walked; the root itself may
    be a link. A folder that holds an index is left out: its thumbnails are no pictures of anybody's. Holds the names of
    the directories on the way down, not of the whole tree.
    """
    # The heap always holds the smallest path not yet seen, because a directory's content sorts behind the directory.
    heap: list[tuple[bytes, os.DirEntry[bytes]]] = []
    unreadable = _push_content(heap, root, b"")
    if unreadable:
        yield unreadable
    while heap:
        path, entry = heapq.heappop(heap)
        try:
            reason = _reason_to_skip(entry, exclude_dirs, include_hidden)
            if reason:
                yield Skipped(path, reason)
            elif entry.is_dir(follow_symlinks=False):
                if is_index(entry.path):
                    yield Skipped(path, "index folder")
                elif unreadable := _push_content(heap, entry.path, path + b"/"):
                    yield unreadable
            else:
                found = entry.stat(follow_symlinks=False)
                yield Entry(path, found.st_size, storable(found.st_mtime_ns), storable(found.st_ctime_ns))
        except OSError as error:
            yield Unreadable(path, plain_reason(error))


def _push_content(heap: list[tuple[bytes, os.DirEntry[bytes]]], folder: bytes, prefix: bytes) -> Unreadable | None:
    try:
        with os.scandir(folder) as content:
            for entry in content:
                heapq.heappush(heap, (prefix + entry.name, entry))
    except OSError as error:
        return Unreadable(prefix.rstrip(b"/"), plain_reason(error))
    return None


def _reason_to_skip(entry: os.DirEntry[bytes], exclude_dirs: frozenset[bytes], include_hidden: bool) -> str | None:
    name = entry.name
    if name.startswith(b"._") or name in _SYSTEM_FILES:
        return "a system's side file"
    if name.startswith(b".") and not include_hidden:
        return "hidden"
    if entry.is_symlink():
        return "symbolic link"
    if entry.is_dir(follow_symlinks=False):
        return "excluded directory" if any(fnmatch.fnmatchcase(name, p) for p in exclude_dirs) else None
    if not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    _, dot, suffix = name.rpartition(b".")
    return None if dot + suffix.lower() in _SUFFIXES else "not a picture by its name"
