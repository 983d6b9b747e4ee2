"""The shards of an index as one collection: updated from the catalog, queried together, results merged.

A merge is a sort: scores, cosines and null samples of different shards are comparable, because a picture's features
depend on the picture and the space alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.changes import SpaceChanges as CatalogChanges
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.shard.messages import SpaceChanges, SpaceQuery
from diffsim.retrieval.shard.part import SpacePart, smallest_of
from diffsim.retrieval.shard.recall import Found, merge
from diffsim.retrieval.shard.shard import LocalShard, Shard
from diffsim.retrieval.shard.unlike import unlike

SAMPLE_AHEAD = 4
"""Among so many times as many contents as a sample needs, unlike ones are looked for."""


@dataclass(frozen=True, eq=False)
class _Sample:
    """A null sample that was drawn before. shown: the generations of its spaces then. size: how many were wanted.
    ids: int64 [at most size]."""

    shown: list[int]
    size: int
    ids: np.ndarray


class Collection:
    """What a query searches. Call `refresh` on spaces before querying them."""

    def __init__(self, index: IndexFolder, catalog: Catalog, device: str) -> None:
        self._index = index
        self._catalog = catalog
        self._device = device
        self._kits: dict[str, SpaceKit] = {}
        self._shards: dict[int, LocalShard] = {}
        self._known: dict[str, dict[int, str | None]] = {}  # space -> shard -> digest of the snapshot that is open
        self._generations: dict[str, int] = {}  # space -> the catalog's generation that it shows
        self._samples: dict[tuple[str, ...], _Sample] = {}  # by spaces

    def close(self) -> None:
        """Release the index's files; `refresh` opens them again. Closing twice is harmless."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()
        self._known.clear()
        self._generations.clear()
        self._samples.clear()

    def kit(self, space: KnownSpace) -> SpaceKit:
        """What the space needs to work on stored tokens, on the device of the search. Raises DamagedKit."""
        if space.fingerprint not in self._kits:
            self._kits[space.fingerprint] = SpaceKit.load(self._index.space(space.fingerprint)).to(self._device)
        return self._kits[space.fingerprint]

    # Keeping up with the catalog

    def refresh(self, spaces: Sequence[KnownSpace]) -> None:
        """Bring spaces up to date: free while the catalog is unchanged, otherwise proportional to the changes."""
        generation = self._catalog.generation()
        for space in spaces:
            if self._generations.get(space.fingerprint) != generation:
                self._refresh(space, generation)

    def _refresh(self, space: KnownSpace, reached: int) -> None:
        """reached: the catalog's generation when this began."""
        digests = {number: recorded.digest for number, recorded in self._catalog.recall_files(space.id).items()}
        known = self._known.setdefault(space.fingerprint, {})
        numbers = [shard.number for shard in self._catalog.shards()]
        shown = self._generations.get(space.fingerprint, -1)
        stale = [number for number in numbers if number not in known or known[number] != digests.get(number)]
        changes = self._catalog.space_changes(space.id, shown) if len(stale) < len(numbers) else None
        if changes is None or changes.complete:
            stale = numbers  # nothing is open yet, or too much has happened since
        else:
            reached = min(reached, changes.generation)
            for number in set(known) - set(stale):
                self._shards[number].update(space.fingerprint, _of_shard(changes, number, shown))
        for number in stale:
            reached = min(reached, self._open(space, number))
        self._generations[space.fingerprint] = reached

    def _open(self, space: KnownSpace, number: int) -> int:
        """Open a shard's snapshot and apply later changes; returns the generation that it then shows."""
        shard = self._shards.setdefault(number, LocalShard())
        shard.drop(space.fingerprint)
        recorded = self._catalog.recall_files(space.id).get(number)
        folder = self._index.shard(space.fingerprint, number)
        since = recorded.generation if recorded else -1
        changes = self._catalog.space_changes(space.id, since, number)
        if recorded or len(changes.ids):  # else the space has nothing in this shard yet
            digest = recorded.digest if recorded else None
            whole = shard.open(space.fingerprint, folder, self.kit(space), digest)
            if not whole and not changes.complete:
                since = -1
                changes = self._catalog.space_changes(space.id, since, number)
            elif whole and changes.complete:  # the later changes are no longer recorded
                shard.open(space.fingerprint, folder, self.kit(space), None)
            shard.update(space.fingerprint, _of_shard(changes, number, since))
            # Without a sound snapshot, the next refresh looks for one again.
            self._known[space.fingerprint][number] = digest if whole else None
        generation: int = changes.generation
        return generation

    # Querying

    def count(self, spaces: Sequence[str], allowed: np.ndarray | None = None) -> int:
        """How many pictures can be hits in every one of the spaces (fingerprints). allowed: count only these ids."""
        return sum(shard.count(spaces, allowed) for shard in self._asked())

    def among(self, spaces: Sequence[str], ids: np.ndarray) -> np.ndarray:
        """Which of the ids can be hits in every one of the spaces: bool, in their order."""
        found = [shard.among(spaces, ids) for shard in self._asked()]
        mask: np.ndarray = np.isin(ids, np.concatenate(found)) if found else np.zeros(len(ids), np.bool_)
        return mask

    def recall(self, query: SpaceQuery, count: int | None, allowed: np.ndarray | None = None) -> Found:
        """The `count` nearest to the query by descriptor (None: all, compared exactly), best first: ids int64, cosines
        float32."""
        return merge([shard.recall(query, count, allowed) for shard in self._asked()], count)

    def score(self, queries: Sequence[SpaceQuery], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Full scores of the contents that could be read in every space of the queries: ids int64 [n], scores float32
        [queries, n] in [-1, 1]."""
        parts = [shard.score(queries, ids) for shard in self._asked()]
        if not parts:
            return np.empty(0, np.int64), np.empty((len(queries), 0), np.float32)
        found, scores = zip(*parts, strict=True)
        return np.concatenate(found), np.concatenate(scores, axis=1)

    def null_sample(self, spaces: Sequence[str], size: int, without: np.ndarray) -> np.ndarray:
        """The fixed sample for judging against chance: the contents with the smallest hashes, and of those that are
        much alike the first alone, or a burst of photographs would be all that chance looks like. It is as good as a
        random draw, independent of filters, stable as the collection grows, and can be merged across shards.

        Drawn from contents that can be hits in every one of the spaces. without: ids to exclude, the examples.
        Returns ids int64.
        """
        key = tuple(sorted(spaces))
        shown = [self._generations.get(space, -1) for space in key]
        known = self._samples.get(key)
        if known is None or known.shown != shown or known.size < size + len(without):
            known = self._samples[key] = _Sample(shown, size + len(without), self._unlike(key, size + len(without)))
        return known.ids[~np.isin(known.ids, without)][:size]

    def _unlike(self, spaces: Sequence[str], size: int) -> np.ndarray:
        """At most `size` of the contents with the smallest hashes that are not much like one before them."""
        ahead = SAMPLE_AHEAD * size
        nobody = np.empty(0, np.int64)
        ids = smallest_of([shard.null_sample(spaces, ahead, nobody) for shard in self._asked()], ahead)[1]
        read = [self.descriptors(space, ids) for space in spaces]
        for found, _ in read:
            ids = ids[np.isin(ids, found)]
        chosen = np.ones(len(ids), np.bool_)
        for found, descriptors in read:
            chosen &= unlike(descriptors[np.searchsorted(found, ids)])
        return ids[chosen][:size]

    def features(self, space: str, content_id: int) -> PictureFeatures | None:
        """The stored features of one picture in a space; None if they are missing or damaged."""
        found = (shard.features(space, content_id) for shard in self._asked())
        return next((features for features in found if features is not None), None)

    def ids(self, space: str) -> np.ndarray:
        """Every picture that can be a hit in a space: int64, ascending."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *(part.members.ids() for part in self.parts(space))]))

    def descriptors(self, space: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the ids that have a sound descriptor, int64 [n] ascending, and these, float16 [n, dimensions]."""
        parts = [shard.descriptors(space, ids) for shard in self._asked()]
        parts = [part for part in parts if len(part[0])]
        if not parts:
            return np.empty(0, np.int64), np.empty((0, 0), np.float16)
        found, descriptors = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(found)
        return found[order], descriptors[order]

    def tokens(self, space: str, ids: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """(id, token record) for each of the ids that has a sound record."""
        for part in self.parts(space):
            yield from part.tokens(ids)

    def notes(self, spaces: Sequence[str], unread: int = 0) -> list[str]:
        """Notes on the index for the user, as sentences. unread: pictures whose features could not be read."""
        notes = list(dict.fromkeys(warning for shard in self._shards.values() for warning in shard.warnings(spaces)))
        if unread:
            notes.append(
                f"{unread} pictures have no readable features and were left out; `diffsim verify` repairs them."
            )
        return notes

    def _asked(self) -> Sequence[Shard]:
        return [self._shards[number] for number in sorted(self._shards)]

    def parts(self, space: str) -> list[SpacePart]:
        """Each shard's part of a space, for inspection."""
        return [
            part for part in (self._shards[number].part(space) for number in sorted(self._shards)) if part is not None
        ]


def _of_shard(changes: CatalogChanges, number: int, since: int) -> SpaceChanges:
    """The catalog's changes of one shard, in the form that the shard takes."""
    here = changes.shards == number
    return SpaceChanges(
        changes.ids[here],
        changes.sha256[here],
        changes.visible[here],
        changes.generations[here] > since,
        changes.gone,
    )
