"""The pictures that pass a query's filters, updated when the catalog changes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.chunks import chunks
from diffsim.db.filters import Filters
from diffsim.indexer.choose import UnknownSpace
from diffsim.retrieval.names import COLOUR

from .choose import SpaceChooser
from .collection import Collection
from .colours import BadColour, Colour

K = TypeVar("K")
T = TypeVar("T")

_KEPT = 8
"""Filters whose result is cached: the web page repeats the same ones."""

_READ_TOGETHER = 65_536
"""Descriptors."""


class Allowed:
    """Caches the contents that pass each filter; one thread at a time."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[Filters, tuple[int, np.ndarray]] = {}  # with the catalog's generation
        self._undated: dict[Filters, tuple[int, tuple[int, int]]] = {}
        self._unread = -1, 0

    def ids(self, filters: Filters) -> np.ndarray:
        """The contents that pass: int64, ascending. The same array object while nothing has changed. A content that was
        never decoded, and so is not in any feature space, may be absent. Raises BadFilter for a folder of which the
        index knows nothing."""
        known = self._known.pop(filters, None)
        known = self._read(filters) if known is None else self._renewed(filters, *known)
        return _kept(self._known, filters, known)[1]

    def count_undated(self, filters: Filters) -> tuple[int, int]:
        """How many of the pictures that a filter by date looked at have no date of their own, and how many those
        were."""
        generation = self._catalog.generation()
        known = self._undated.pop(filters, None)
        if known is None or known[0] != generation:
            known = generation, self._catalog.count_undated(filters)
        return _kept(self._undated, filters, known)[1]

    def count_unread(self) -> int:
        """How many pictures were indexed before metadata were read."""
        generation = self._catalog.generation()
        if self._unread[0] != generation:
            self._unread = generation, self._catalog.count_unread()
        return self._unread[1]

    def _read(self, filters: Filters) -> tuple[int, np.ndarray]:
        generation = self._catalog.generation()
        return generation, passing(self._catalog, filters)

    def _renewed(self, filters: Filters, since: int, ids: np.ndarray) -> tuple[int, np.ndarray]:
        changed, generation = self._catalog.changed(since)
        if generation == since:
            return since, ids
        # A file that was touched but holds the same bytes is not recorded as a change, nor are metadata read later.
        if changed is None or filters.dated or filters.of_metadata or len(changed) > max(1000, len(ids) // 10):
            return self._read(filters)
        if not len(changed):
            return generation, ids
        now = passing(self._catalog, filters, changed.tolist())
        ids = ids[~np.isin(ids, changed)]
        return generation, np.insert(ids, np.searchsorted(ids, now), now)


class Coloured:
    """Caches the contents that have enough of some colours until the catalog changes or other shards answer; one
    thread at a time."""

    def __init__(self, collection: Collection, chooser: SpaceChooser, generation: Callable[[], int]) -> None:
        self._collection = collection
        self._chooser = chooser
        self._generation = generation
        self._known: dict[tuple[Colour, ...], tuple[tuple[int, set[int]], np.ndarray]] = {}

    def ids(self, colours: Sequence[Colour]) -> np.ndarray:
        """The contents that have enough of every one of the colours: int64, ascending. A picture that is not in the
        colour space yet is not among them. The collection must have been refreshed on that space. Raises BadColour."""
        shown = self._generation(), self._collection.answering
        known = self._known.pop(tuple(colours), None)
        if known is None or known[0] != shown:
            known = shown, self._found(colours)
        return _kept(self._known, tuple(colours), known)[1]

    def space(self) -> KnownSpace:
        """The space that knows the colours. Raises BadColour for an index without one."""
        try:
            return self._chooser.one(f"{COLOUR}/{COLOUR}")
        except UnknownSpace as problem:
            raise BadColour(
                "The index knows no colours yet; `diffsim index --by colour` adds them, in about a millisecond a "
                "picture and without a network."
            ) from problem

    def _found(self, colours: Sequence[Colour]) -> np.ndarray:
        from diffsim.retrieval.colour import shares_of

        space = self.space()
        passing = [np.empty(0, np.int64)]
        for some in chunks(self._collection.ids(space.fingerprint), _READ_TOGETHER):
            ids, descriptors = self._collection.descriptors(space.fingerprint, np.asarray(some))
            enough = np.ones(len(ids), np.bool_)
            for colour in colours:
                enough &= shares_of(descriptors, colour.rgb) >= colour.share
            passing.append(ids[enough])
        return np.concatenate(passing)


def _kept(results: dict[K, T], filters: K, result: T) -> T:
    """The result, now the newest of those that are cached; the oldest makes room for it."""
    results[filters] = result
    if len(results) > _KEPT:
        results.pop(next(iter(results)))
    return result


def passing(catalog: Catalog, filters: Filters, among: Sequence[int] | None = None) -> np.ndarray:
    """The contents of the catalog that pass, int64, ascending. among: consider only these contents."""
    ids, undated = catalog.matching(filters, among)
    # The catalog stores no time for a file that had just been modified when it was scanned.
    late = [content_id for content_id, path in undated if _in_time(path, filters)]
    return np.union1d(ids, np.array(late, np.int64)) if late else ids


def _in_time(path: bytes, filters: Filters) -> bool:
    try:
        return filters.in_time(Path(os.fsdecode(path)).stat().st_mtime_ns)
    except OSError:
        return False
