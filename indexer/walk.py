"""Walk a folder for pictures: by name and kind of file only, nothing is opened."""

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass

from diffsim.db.times import storable
from diffsim.retrieval.pictures.extras import package_needed
from diffsim.retrieval.pictures.images import PICTURE_SUFFIXES
from diffsim.retrieval.regular_files import plain_reason

from .exclusions import Exclusions
from .index_folder import is_index

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
    root: bytes, *, exclusions: Exclusions | None = None, include_hidden: bool = False, within: bytes = b""
) -> Iterator[Entry | Skipped | Unreadable]:
    """All that lies under `root`, in byte order of the whole relative path (so `a-b`, `a.jpg`, `a/b`).

    exclusions: None are the default ones; they see paths below `within`, where `root` is only a part of their root.

    Links below the root are never followed, so nothing outside it is reached and no loop is walked; the root itself may
    be a link. A folder that holds an index is left out: its thumbnails are no pictures of anybody's. Holds the names of
    the directories on the way down, not of the whole tree.
    """
    exclusions = exclusions or Exclusions()
    above = within + b"/" if within else b""
    # The heap always holds the smallest path not yet seen, because a directory's content sorts behind the directory.
    heap: list[tuple[bytes, os.DirEntry[bytes]]] = []
    unreadable = _push_content(heap, root, b"")
    if unreadable:
        yield unreadable
    while heap:
        path, entry = heapq.heappop(heap)
        try:
            reason = _reason_to_skip(entry, above + path, exclusions, include_hidden)
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


def _reason_to_skip(entry: os.DirEntry[bytes], path: bytes, exclusions: Exclusions, include_hidden: bool) -> str | None:
    name = entry.name
    if name.startswith(b"._") or name in _SYSTEM_FILES:
        return "a system's side file"
    if name.startswith(b".") and not include_hidden:
        return "hidden"
    if entry.is_symlink():
        return "symbolic link"
    if entry.is_dir(follow_symlinks=False):
        return exclusions.reason(path, is_dir=True)
    if not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    if reason := exclusions.reason(path, is_dir=False):
        return reason
    _, dot, suffix = name.rpartition(b".")
    suffix = dot + suffix.lower()
    return package_needed(os.fsdecode(suffix)) if suffix in _SUFFIXES else "not a picture by its name"
