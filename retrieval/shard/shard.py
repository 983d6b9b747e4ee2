"""A shard: some contents of an index in all their feature spaces, searched where they are stored.

Only plain values go in and out, and a query never returns tokens of the gallery, so a shard could also be in another
process or on another machine. It has neither a catalog nor a network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..features import PictureFeatures
from ..kit import SpaceKit
from .members import Members, common
from .messages import SpaceChanges, SpaceQuery
from .part import SpacePart
from .recall import Found


class Shard(Protocol):
    """Content ids are int64 arrays in any order; those that a shard does not have are ignored. Spaces are named by
    their fingerprints."""

    def count(self, spaces: Sequence[str], allowed: np.ndarray | None = None) -> int:
        """How many contents can be hits in every one of the spaces. allowed: count only these."""
        ...

    def among(self, spaces: Sequence[str], ids: np.ndarray) -> np.ndarray:
        """Those of the ids that can be hits in every one of the spaces, in their order."""
        ...

    def recall(self, query: SpaceQuery, count: int | None, allowed: np.ndarray | None = None) -> Found:
        """The `count` nearest to the query by descriptor (None: all, compared exactly), best first: ids int64, cosines
        float32. allowed: recall only these."""
        ...

    def score(self, queries: Sequence[SpaceQuery], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Full scores of those contents that could be read in every space of the queries: ids int64 [n], scores float32
        [queries, n] in [-1, 1]."""
        ...

    def null_sample(self, spaces: Sequence[str], count: int, without: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The `count` contents with the smallest hashes that can be hits in every one of the spaces: hashes uint8
        [n, 32], ascending, and ids int64 [n]. without: ids to exclude."""
        ...

    def ids(self, space: str) -> np.ndarray:
        """Every content that can be a hit in the space, int64, ascending."""
        ...

    def descriptors(self, space: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The descriptors of those that could be read: ids int64 [n], ascending, and unit vectors float16 [n,
        dimensions]."""
        ...

    def features(self, space: str, content_id: int) -> PictureFeatures | None:
        """The stored features of one picture; None if they are missing or damaged."""
        ...

    def records(self, space: str, ids: np.ndarray) -> list[tuple[int, bytes]]:
        """(id, token record) of those that could be read."""
        ...


class LocalShard:
    """A shard in folders of this machine: one folder, and one `SpacePart`, for each space that has pictures here."""

    def __init__(self) -> None:
        self._parts: dict[str, SpacePart] = {}

    def close(self) -> None:
        """Release all files. Closing twice is harmless."""
        for space in list(self._parts):
            self.drop(space)

    def drop(self, space: str) -> None:
        """Release one space."""
        part = self._parts.pop(space, None)
        if part is not None:
            part.close()

    def open(self, space: str, folder: Path, kit: SpaceKit, digest: str | None) -> bool:
        """Open a space, with the snapshot whose digest the catalog names; apply later changes by `update`. Returns
        False if there is no sound snapshot: then `update` must add everything. Raises StoreMissing, StoreDamaged."""
        self.drop(space)
        part = self._parts[space] = SpacePart.open(folder, kit, digest)
        return part.has_snapshot

    def update(self, space: str, changes: SpaceChanges) -> None:
        """Bring an open space up to date."""
        self._parts[space] = self._parts[space].updated(changes)

    def part(self, space: str) -> SpacePart | None:
        """The space's part of this shard; None if it has no pictures here."""
        return self._parts.get(space)

    def warnings(self, spaces: Sequence[str]) -> list[str]:
        """Warnings for the user, as sentences."""
        parts = (self._parts.get(space) for space in spaces)
        return [part.warning for part in parts if part is not None and part.warning]

    def count(self, spaces: Sequence[str], allowed: np.ndarray | None = None) -> int:
        return len(self._members(spaces, allowed))

    def among(self, spaces: Sequence[str], ids: np.ndarray) -> np.ndarray:
        kept: np.ndarray = ids[self._members(spaces).has(ids)]
        return kept

    def recall(self, query: SpaceQuery, count: int | None, allowed: np.ndarray | None = None) -> Found:
        part = self._parts.get(query.space)
        if part is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        return part.recall(query.descriptor, count, None if allowed is None else Members.of(allowed))

    def score(self, queries: Sequence[SpaceQuery], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.empty((len(queries), len(ids)), np.float32)
        read = np.ones(len(ids), np.bool_)
        order = np.argsort(ids)
        for space in dict.fromkeys(query.space for query in queries):
            asked = np.array([number for number, query in enumerate(queries) if query.space == space])
            part = self._parts.get(space)
            if part is None:
                return np.empty(0, np.int64), np.empty((len(queries), 0), np.float32)
            found, rows = part.score([queries[number] for number in asked.tolist()], ids)
            places = order[np.searchsorted(ids, found, sorter=order)]
            scores[np.ix_(asked, places)] = rows
            here = np.zeros(len(ids), np.bool_)
            here[places] = True
            read &= here
        return ids[read], scores[:, read]

    def null_sample(self, spaces: Sequence[str], count: int, without: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = self._parts.get(spaces[0])
        if part is None:
            return np.empty((0, 32), np.uint8), np.empty(0, np.int64)
        nobody = np.empty(0, np.int64)
        return part.smallest(count, self._members(spaces).changed(nobody, without))

    def ids(self, space: str) -> np.ndarray:
        part = self._parts.get(space)
        return part.members.ids() if part else np.empty(0, np.int64)

    def descriptors(self, space: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = self._parts.get(space)
        return part.descriptors(ids) if part else (np.empty(0, np.int64), np.empty((0, 0), np.float16))

    def features(self, space: str, content_id: int) -> PictureFeatures | None:
        part = self._parts.get(space)
        if part is None:
            return None
        wanted = np.array([content_id], np.int64)
        _, descriptors = part.descriptors(wanted)
        records = [bytes(record) for _, record in part.tokens(wanted)]
        return PictureFeatures(descriptors[0], records[0]) if len(descriptors) and records else None

    def records(self, space: str, ids: np.ndarray) -> list[tuple[int, bytes]]:
        part = self._parts.get(space)
        return [(row, bytes(record)) for row, record in part.tokens(ids)] if part else []

    def _members(self, spaces: Sequence[str], allowed: np.ndarray | None = None) -> Members:
        parts = [self._parts.get(space) for space in spaces]
        sets = [Members.of(np.empty(0, np.int64)) if part is None else part.members for part in parts]
        return common(sets if allowed is None else [*sets, Members.of(allowed)])
