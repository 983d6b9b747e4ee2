"""Which folders a run looks at, and which of them are offline."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffsim.db.catalog import Catalog
from diffsim.db.files import KnownRoot, display_text
from diffsim.retrieval.regular_files import plain_reason

from .errors import IndexerError
from .exclusions import for_root, together
from .index_folder import index_around
from .walk import Unreadable, walk

_BELONGS = "belongs to the index "


class FolderNotFound(IndexerError):
    """A folder that was asked for cannot be scanned and was never known."""


@dataclass(frozen=True)
class Scope:
    """A root, or a folder of it, that a run covers; `folder` is relative, b"" for the whole root."""

    root: KnownRoot
    folder: bytes
    offline: str | None  # why it cannot be looked at now

    @property
    def path(self) -> bytes:
        return join(self.root.path, self.folder)


def join(folder: bytes, path: bytes) -> bytes:
    return os.path.join(folder, path) if path else folder


def within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def root_of(roots: Iterable[KnownRoot], path: bytes) -> KnownRoot | None:
    """The innermost root that holds an absolute path."""
    return max((root for root in roots if within(path, root.path)), key=lambda root: len(root.path), default=None)


def unavailable_reason(path: bytes, had_files: bool) -> str | None:
    """Why a folder cannot be looked at now; None if it can.

    A folder that had files and holds nothing at all is taken for a disk that is not mounted. What belongs to an index
    is not looked at either.
    """
    try:
        mode = Path(os.fsdecode(path)).stat().st_mode
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return plain_reason(error)
    if not stat.S_ISDIR(mode):
        return "is not a folder"
    if index := index_around(os.path.realpath(path)):
        return _BELONGS + display_text(index)
    first = next(walk(path), None)
    if isinstance(first, Unreadable) and not first.path:
        return first.reason
    return "is empty, though pictures were known there" if first is None and had_files else None


def offline_roots(catalog: Catalog) -> dict[int, str]:
    """The roots that cannot be looked at now, with the reason."""
    reasons = ((root, unavailable_reason(root.path, catalog.files.has_files(root.id, b""))) for root in catalog.roots())
    return {root.id: reason for root, reason in reasons if reason}


def resolve_roots(catalog: Catalog, folders: Sequence[Path], on_step: Callable[[str], None]) -> list[Scope]:
    """The scopes of these folders in byte order of their paths; their roots are in the catalog afterwards.

    A folder inside a root is a part of that root. A folder around roots absorbs them, save those that are offline:
    these stay roots of their own, and the run reports them.

    Raises:
        FolderNotFound: before anything changed.
    """
    return [scope for path in find_folders(catalog, folders) for scope in _resolve(catalog, path, on_step)]


def find_folders(catalog: Catalog | None, folders: Sequence[Path]) -> list[bytes]:
    """The absolute paths of folders, without those inside others. Raises FolderNotFound for one that cannot be scanned
    and was never known."""
    wanted = outermost(os.path.realpath(os.fsencode(folder)) for folder in folders)
    for path in wanted:
        reason = unavailable_reason(path, had_files=False)
        if reason and not (catalog and _is_known(catalog, path)):
            raise FolderNotFound(f"The folder {display_text(path)} cannot be indexed: {_advice(reason)}.")
    return wanted


def _resolve(catalog: Catalog, path: bytes, on_step: Callable[[str], None]) -> list[Scope]:
    outer = root_of(catalog.roots(), path)
    if outer is None:
        outer = catalog.files.add_root(path)
        on_step("root committed")
    folder = b"" if path == outer.path else os.path.relpath(path, outer.path)
    reason = unavailable_reason(path, catalog.files.has_files(outer.id, folder))
    scopes = []
    for inner in catalog.roots():
        if inner.id == outer.id or not within(inner.path, path):
            continue
        inner_reason = unavailable_reason(inner.path, catalog.files.has_files(inner.id, b""))
        if inner_reason:
            scopes.append(Scope(inner, b"", inner_reason))
        else:
            below = os.path.relpath(inner.path, outer.path)
            patterns = together(outer.left_out, (for_root(pattern, below, ()) for pattern in inner.left_out))
            outer = replace(outer, left_out=patterns)
            catalog.files.set_left_out(outer.id, patterns, outer.include_hidden)
            catalog.files.absorb(inner, outer)
            on_step("root committed")
    return [Scope(outer, folder, reason), *scopes]


def outermost(paths: Iterable[bytes]) -> list[bytes]:
    """Paths without those below others, in byte order."""
    kept: list[bytes] = []
    for path in sorted(set(paths), key=lambda path: path + b"/"):
        if not kept or not within(path, kept[-1]):
            kept.append(path)
    return kept


def _is_known(catalog: Catalog, path: bytes) -> bool:
    root = root_of(catalog.roots(), path)
    if root is None:
        return False
    folder = os.path.relpath(path, root.path)
    return path == root.path or catalog.files.has_files(root.id, folder, missing_too=True)


def _advice(reason: str) -> str:
    if reason == "does not exist":
        return "it does not exist; check the name, and whether its disk is mounted"
    if reason == "is not a folder":
        return "it is not a folder; name the folder that holds the pictures"
    if reason.startswith(_BELONGS):
        return f"it {reason}; name the folder that holds the pictures"
    return f"{reason}; make it readable for this user"
