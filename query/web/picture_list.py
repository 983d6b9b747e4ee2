"""All pictures of the index by folder and name, or those that pass filters, from any number on.

The order is held as one array of ids, 8 bytes a picture, which is brought up to date with what changed in the catalog.
So the scroll bar can ask for any place, and nothing is read for each of a million pictures after a commit.
"""

import threading
from collections import OrderedDict

import numpy as np

from diffsim.db.catalog import Catalog
from diffsim.db.filters import Filters
from diffsim.db.listing import PictureOrder

from ..allowed import Allowed

_KEPT = 4
"""Filters whose list is held: a page asks for one piece after the other of the same."""


class PictureList:
    """Safe to use from several threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._allowed = Allowed(catalog)
        self._order: PictureOrder | None = None
        self._passed: OrderedDict[Filters, tuple[np.ndarray, np.ndarray, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self, filters: Filters) -> tuple[np.ndarray, int]:
        """Ids in order, int64, and the catalog's generation that they show."""
        with self._lock:
            self._order = self._catalog.picture_order(self._order)
            ids = self._passing(self._order.ids, filters) if filters else self._order.ids
            return ids, self._order.generation

    def _passing(self, ids: np.ndarray, filters: Filters) -> np.ndarray:
        allowed = self._allowed.ids(filters)
        of_ids, of_allowed, passed = self._passed.pop(filters, (None, None, ids))
        if of_ids is not ids or of_allowed is not allowed:
            passed = ids[np.isin(ids, allowed)]
        self._passed[filters] = ids, allowed, passed
        if len(self._passed) > _KEPT:
            self._passed.popitem(last=False)
        return passed
