"""The whole index as a list: its pictures by folder and name, and its folders."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from sqlalchemy import Connection, func, select

from .arrays import ascending, int64_column, raw_rows
from .changes import generation_of
from .chunks import chunks
from .files import by_path
from .tables import PRESENT, Change, Content, Feature, File, Generation, Root, Space

_FEW = 2000
_SHARE = 200

Place = tuple[bytes, bytes]
"""The path of a root, and a file's path in it."""


@dataclass(frozen=True)
class PictureOrder:
    """Every content that was decoded once and has a present file: once, where its first path stands.

    generation: of the catalog at this reading. roots: (id, path) of the folders that were known then.
    """

    ids: np.ndarray  # int64 [n]
    generation: int
    roots: frozenset[tuple[int, bytes]]


def read_order(connection: Connection, before: PictureOrder | None) -> PictureOrder:
    """The pictures by folder and name. With what was read before, only what changed since is read, unless that is much
    or not known any more."""
    now = generation_of(connection)
    if before is not None and before.generation == now:
        return before
    roots = frozenset((root, path) for root, path in connection.execute(select(Root.id, Root.path)))
    ids = None
    if before is not None and before.roots <= roots:
        changed = read_changed(connection, before.generation)
        if changed is not None and len(changed) <= max(_FEW, len(before.ids) // _SHARE):
            ids = _merged(connection, before.ids, changed)
    return PictureOrder(_all(connection, roots) if ids is None else ids, now, roots)


def read_changed(connection: Connection, since: int) -> np.ndarray | None:
    """Contents whose files or features changed in a commit after generation `since`: int64, ascending. None where that
    is not known any more."""
    now, oldest = connection.execute(select(Generation.value, Generation.oldest)).one()
    if not oldest <= since <= now:
        return None
    written = select(Feature.content_id).where(Feature.space_id.in_(select(Space.id)), Feature.generation > since)
    seen = select(Change.content_id).where(Change.generation > since)
    return ascending(np.concatenate([int64_column(connection, written), int64_column(connection, seen)]))


def _all(connection: Connection, roots: Iterable[tuple[int, bytes]]) -> np.ndarray:
    of_roots = [
        select(File.content_id).where(File.root_id == root, PRESENT).order_by(*by_path())
        for root, _ in sorted(roots, key=lambda root: root[1])
    ]
    ids = np.concatenate([np.empty(0, np.int64), *(int64_column(connection, statement) for statement in of_roots)])
    # One row of files after another would look its content up; and contents that are not decoded are mostly few.
    undecoded = int64_column(connection, select(Content.id).where(Content.format.is_(None)))
    first = np.sort(np.unique(ids, return_index=True)[1])
    ids = ids[first]
    return ids[~np.isin(ids, undecoded)]


def _merged(connection: Connection, ids: np.ndarray, changed: np.ndarray) -> np.ndarray | None:
    """The order after these contents changed: they are taken out, and those that belong to it are put in where their
    first path stands now. None where the order does not fit the catalog."""
    places = _first_places(connection, changed.tolist())
    ids = ids[~np.isin(ids, changed)]
    added = sorted(places, key=places.__getitem__)
    found = _positions(connection, ids, [places[content_id] for content_id in added])
    return None if found is None else np.insert(ids, found, np.array(added, np.int64))


def _positions(connection: Connection, ids: np.ndarray, places: Sequence[Place]) -> np.ndarray | None:
    """Where these places, in order, stand among pictures, whose places are looked up: a binary search for all at once.

    None where one of the pictures has none.
    """
    low, high = np.zeros(len(places), np.int64), np.full(len(places), len(ids), np.int64)
    while len(open_ := np.flatnonzero(low < high)):
        middle = (low[open_] + high[open_]) // 2
        pivots = ids[ascending(middle)].tolist()
        known = _first_places(connection, pivots)
        if len(known) < len(pivots):
            return None
        for place, at in zip(open_.tolist(), middle.tolist(), strict=True):
            if known[int(ids[at])] < places[place]:
                low[place] = at + 1
            else:
                high[place] = at
    return low


def _first_places(connection: Connection, ids: Iterable[int]) -> dict[int, Place]:
    """The first path of each of these contents that was decoded once and has a present file."""
    found: dict[int, Place] = {}
    for some in chunks(ids):
        statement = (
            select(File.content_id, Root.path, File.path)
            .join(Root, Root.id == File.root_id)
            .join(Content, Content.id == File.content_id)
            .where(File.content_id.in_(some), PRESENT, Content.format.is_not(None))
        )
        for content_id, root, path in connection.execute(statement):
            if content_id is not None:
                found[content_id] = min(found.get(content_id, (root, path)), (root, path))
    return found


def read_values(connection: Connection, of: Literal["date", "size"]) -> tuple[np.ndarray, np.ndarray]:
    """Contents with a present file, int64, ascending, and of each its own date, or the latest of its files', or 0; or
    its size in bytes."""
    value = func.max(func.coalesce(Content.taken_ns, File.mtime_ns, 0)) if of == "date" else func.max(Content.size)
    statement = (
        select(File.content_id, value)
        .join(Content, Content.id == File.content_id)
        .where(PRESENT)
        .group_by(File.content_id)
        .order_by(File.content_id)
    )
    rows = chain.from_iterable(raw_rows(connection, statement))
    columns = np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def read_folders(connection: Connection, most: int) -> list[tuple[bytes, int]]:
    """Folders with present files below them, by path, absolute, with how many these are; the roots, and of the others
    the largest, `most` in all."""
    roots = connection.execute(select(Root.id, Root.path)).all()
    counts: Counter[bytes] = Counter()
    for root_id, root in roots:
        for folder, files in _direct(connection, root_id).items():
            counts[root] += files
            while folder:
                counts[os.path.join(root, folder)] += files
                folder = folder.rpartition(b"/")[0]
    paths = {path for _, path in roots}
    chosen = sorted(counts, key=lambda folder: (folder not in paths, -counts[folder], folder))[:most]
    return [(folder, counts[folder]) for folder in sorted(chosen)]


def _direct(connection: Connection, root_id: int) -> Counter[bytes]:
    """Folders of a root, relative to it, with how many present files each holds itself."""
    direct: Counter[bytes] = Counter()
    for rows in raw_rows(connection, select(File.path).where(File.root_id == root_id, PRESENT)):
        direct.update(path.rpartition(b"/")[0] for (path,) in rows)
    return direct
