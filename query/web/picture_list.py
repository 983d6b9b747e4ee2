"""All pictures of the index by folder and name, date or size, or those that pass filters, from any number on.

The order is held as one array of ids, 8 bytes a picture, which is brought up to date with what changed in the catalog.
So the scroll bar can ask for any place, and nothing is read for each of a million pictures after a commit.
"""

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from diffsim.db.catalog import Catalog
from diffsim.db.chunks import chunks
from diffsim.db.filters import Filters
from diffsim.db.listing import PictureOrder
from diffsim.db.times import storable

from ..allowed import Allowed

ListOrder = Literal["path", "newest", "oldest", "largest", "smallest"]
"""By folder and name, by the picture's date (or its file's), by the size of its file."""

_KEPT = 4
"""Filters whose list is held: a page asks for one piece after the other of the same."""


class PictureList:
    """Safe to use from several threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._allowed = Allowed(catalog)
        self._order: PictureOrder | None = None
        self._passed: OrderedDict[tuple[Filters, ListOrder], tuple[np.ndarray, np.ndarray, np.ndarray]] = OrderedDict()
        self._orders: dict[ListOrder, tuple[np.ndarray, np.ndarray]] = {}  # of which order, and that one sorted
        self._lock = threading.Lock()

    def ids(self, filters: Filters, order: ListOrder = "path") -> tuple[np.ndarray, int]:
        """Ids in order, int64, and the catalog's generation that they show."""
        with self._lock:
            self._order = self._catalog.picture_order(self._order)
            ids = self._order.ids if order == "path" else self._sorted(self._order, order)
            ids = self._passing(ids, filters, order) if filters else ids
            return ids, self._order.generation

    def _sorted(self, all_: PictureOrder, order: ListOrder) -> np.ndarray:
        """The same pictures in another order; where two are alike in it, by folder and name."""
        of, ids = self._orders.get(order, (None, all_.ids))
        if of is not all_.ids:
            by_date = order in ("newest", "oldest")
            known, values = self._catalog.picture_values("date" if by_date else "size")
            values = self._with_late(known, values) if by_date else values
            places = np.minimum(np.searchsorted(known, all_.ids), max(0, len(known) - 1))
            found = values[places] if len(known) else np.zeros(len(all_.ids), np.int64)
            ids = all_.ids[np.argsort(-found if order in ("newest", "largest") else found, kind="stable")]
            self._orders[order] = all_.ids, ids
        return ids

    def _with_late(self, ids: np.ndarray, dates: np.ndarray) -> np.ndarray:
        """The catalog stores no time for a file that had just been modified when it was scanned: it is asked now."""
        late: dict[int, int] = {}
        for some in chunks(ids[dates == 0].tolist()):
            for content_id, files in self._catalog.files_of(some).items():
                for file in files:
                    with suppress(OSError):
                        late[content_id] = max(
                            late.get(content_id, 0), storable(Path(os.fsdecode(file.path)).stat().st_mtime_ns)
                        )
        dates = dates.copy()
        dates[np.searchsorted(ids, list(late))] = list(late.values())
        return dates

    def _passing(self, ids: np.ndarray, filters: Filters, order: ListOrder) -> np.ndarray:
        allowed = self._allowed.ids(filters)
        of_ids, of_allowed, passed = self._passed.pop((filters, order), (None, None, ids))
        if of_ids is not ids or of_allowed is not allowed:
            passed = ids[np.isin(ids, allowed)]
        self._passed[filters, order] = ids, allowed, passed
        if len(self._passed) > _KEPT:
            self._passed.popitem(last=False)
        return passed
