"""Filters of a query: which pictures pass, asked anew only when the catalog has changed."""

import os
from pathlib import Path

import numpy as np

from diffsim.db.catalog import Catalog
from diffsim.db.filters import Filters

_KEPT = 8
"""Filters whose answer is remembered: a page asks with the same ones again and again."""


class Allowed:
    """Remembers what passed; one searcher's own."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[Filters, tuple[int, np.ndarray]] = {}  # with the catalog's generation

    def ids(self, filters: Filters) -> np.ndarray:
        """The contents that pass: int64, ascending."""
        generation = self._catalog.generation()
        known = self._known.pop(filters, None)
        if known is None or known[0] != generation:
            known = generation, passing(self._catalog, filters)
        self._known[filters] = known
        if len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)))
        return known[1]


def passing(catalog: Catalog, filters: Filters) -> np.ndarray:
    """The contents of the catalog that pass, int64, ascending."""
    ids, undated = catalog.matching(filters)
    # A file that had just been modified when it was scanned: the catalog keeps no time for it.
    ids += [content_id for content_id, path in undated if _in_time(path, filters)]
    return np.unique(np.array(ids, np.int64))


def _in_time(path: bytes, filters: Filters) -> bool:
    try:
        return filters.in_time(Path(os.fsdecode(path)).stat().st_mtime_ns)
    except OSError:
        return False
