"""New, changed, moved, copied or unchanged: what became of a file since the last scan."""

import os
from collections.abc import Collection
from enum import StrEnum

from diffsim.db.catalog import Catalog
from diffsim.db.files import FileRow, Holders

from .roots import Scope, join, unavailable_reason, within


class FileClass(StrEnum):
    NEW = "new"
    CHANGED = "changed"  # another content at a known path
    MOVED = "moved"  # a known content at a new path, and no longer at its old one
    COPIED = "copied"  # a known content at a new path, and still at its old one
    UNCHANGED = "unchanged"


class GoneFiles:
    """Tells whether the file of a row left the disk; one below an offline folder did not."""

    def __init__(self, catalog: Catalog, scopes: list[Scope], gone: Collection[int]) -> None:
        """gone: the rows in the scopes whose files the walk did not meet."""
        self._roots = {root.id: root.path for root in catalog.roots()}
        self._walked = [(scope.root.id, scope.path) for scope in scopes if not scope.offline]
        self._offline = [scope.path for scope in scopes if scope.offline]
        self._online: dict[int, bool] = {}
        self._gone = gone

    def __call__(self, row: FileRow) -> bool:
        root = self._roots[row.root_id]
        path = join(root, row.path)
        if any(row.root_id == walked and within(path, folder) for walked, folder in self._walked):
            return row.id in self._gone
        if row.root_id not in self._online:
            self._online[row.root_id] = unavailable_reason(root, had_files=True) is None
        if not self._online[row.root_id] or any(within(path, folder) for folder in self._offline):
            return False
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False


def class_of_new_path(
    known: Holders | None, met: bool, left: set[int], is_gone: GoneFiles
) -> tuple[FileClass, int | None]:
    """The class of a file at a path that had no content yet, and the row that it moved away from."""
    others = [row for row in known.files if row.id not in left] if known else []
    for row in others:
        if is_gone(row):
            return FileClass.MOVED, row.id
    if others or met:
        return FileClass.COPIED, None
    # A known content without any file: something else was written over its old place.
    return (FileClass.MOVED if known else FileClass.NEW), None
