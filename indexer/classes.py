"""New, changed, moved, copied or unchanged: what became of a file since the last scan."""

import os
from collections.abc import Collection, Iterable, Iterator
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


class KnownContents:
    """What a scan must know of the contents that it meets: every file of one is looked at once, however many are alike
    and however many commits the scan makes."""

    def __init__(self, catalog: Catalog, is_gone: GoneFiles) -> None:
        self._catalog = catalog
        self._is_gone = is_gone
        self._known: dict[bytes, Holders] = {}
        self._gone: dict[bytes, Iterator[FileRow]] = {}  # of their files those that left the disk, each given once
        self._met: set[bytes] = set()  # contents that a file of this scan has, as far as they are looked up already
        self._left: set[int] = set()  # rows that lost their content in this scan

    def look_up(self, sha256s: Iterable[bytes]) -> None:
        """Read what the catalog knows of these, once in a scan."""
        self._met &= self._known.keys()
        for sha256, holders in self._catalog.files.holders(set(sha256s) - self._known.keys()).items():
            self._known[sha256] = holders
            self._gone[sha256] = (row for row in holders.files if row.id not in self._left and self._is_gone(row))

    def id_of(self, sha256: bytes) -> int | None:
        return self._known[sha256].content_id if sha256 in self._known else None

    def add(self, sha256: bytes) -> None:
        """Note that a file has this content."""
        self._met.add(sha256)

    def leaves(self, row_id: int) -> None:
        """Note that a row has another content now, or none."""
        self._left.add(row_id)

    def class_of_new_path(self, sha256: bytes) -> tuple[FileClass, int | None]:
        """The class of a file at a path that had no content yet, and the row that it moved away from."""
        if row := next(self._gone.get(sha256, iter(())), None):
            return FileClass.MOVED, row.id
        known = self._known.get(sha256)
        if sha256 in self._met or (known and any(row.id not in self._left for row in known.files)):
            return FileClass.COPIED, None
        # A known content without any file: something else was written over its old place.
        return (FileClass.MOVED if known else FileClass.NEW), None
