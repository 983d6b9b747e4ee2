"""Where a content's files are now: a file that is gone is not a hit; one on an absent disk is marked offline."""

import os
from collections.abc import Iterator, Sequence

from diffsim.db.catalog import Catalog, FileLocation
from diffsim.db.chunks import chunks

_AT_ONCE = 200


class Locator:
    """Looks up files for one answer; checks only once whether each root is present.

    damaged: contents met so far of which the catalog has a damaged row, which was left out.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.damaged: set[int] = set()
        self._offline: dict[bytes, bool] = {}

    def locate(self, content_id: int) -> tuple[tuple[str, ...], bool] | None:
        """(all its files, whether all are offline), readable files first; None if no file is left."""
        return next(self.locate_all([content_id]))

    def locate_all(self, content_ids: Sequence[int]) -> Iterator[tuple[tuple[str, ...], bool] | None]:
        """The same for several distinct ids, in order, looked up in batches: one query per id took most of the time."""
        for some in chunks(content_ids, _AT_ONCE):
            for files in self._catalog.files_of(some, self.damaged).values():
                yield self._located(files)

    def _located(self, files: Sequence[FileLocation]) -> tuple[tuple[str, ...], bool] | None:
        here, offline = [], []
        for file in files:
            if os.path.lexists(file.path):
                here.append(os.fsdecode(file.path))
            elif self._is_offline(file.root_path):
                offline.append(os.fsdecode(file.path))
        return (tuple(here + offline), not here) if here or offline else None

    def _is_offline(self, root: bytes) -> bool:
        """An absent, unreadable or empty root is treated as a disk that is not mounted."""
        if root not in self._offline:
            try:
                with os.scandir(root) as entries:
                    self._offline[root] = next(entries, None) is None
            except OSError:
                self._offline[root] = True
        return self._offline[root]
