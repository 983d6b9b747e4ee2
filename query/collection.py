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
from diffsim.retrieval.shard.unlike import unlike

from .query import Unanswered
from .shards import LocalShards, NoShardAnswers, Shards

SAMPLE_AHEAD = 4
"""Among so many times as many contents as a sample needs, unlike ones are looked for."""

_RECORDS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class _Sample:
    """A null sample that was drawn before. shown: the generations of its spaces then, and the shards that answered.
    size: how many were wanted. ids: int64 [at most size]."""

    shown: tuple[list[int], set[int]]
    size: int
    ids: np.ndarray


class Collection:
    """What a query searches. Call `refresh` on spaces before querying them."""

    def __init__(self, index: IndexFolder, catalog: Catalog, device: str, shard_timeout: float) -> None:
        self._index = index
        self._catalog = catalog
        self._device = device
        self._kits: dict[str, SpaceKit] = {}
        self._shards = _shards(index, device, shard_timeout)
        self._numbers: list[int] = []  # of all shards
        self._known: dict[str, dict[int, str | None]] = {}  # space -> shard -> digest of the snapshot that is open
        self._generations: dict[str, int] = {}  # space -> the catalog's generation that it shows
        self._current: dict[str, set[int]] = {}  # space -> shards that show it at this generation
        self._counted = -1  # the catalog's generation when the shards were counted
        self._samples: dict[tuple[str, ...], _Sample] = {}  # by spaces

    def close(self) -> None:
        """Release the index's files; `refresh` opens them again. Closing twice is harmless."""
        self._shards.close()
        for known in (self._known, self._generations, self._current, self._samples):
            known.clear()

    def kit(self, space: KnownSpace) -> SpaceKit:
        """What the space needs to work on stored tokens, on the device of the search. Raises DamagedKit."""
        if space.fingerprint not in self._kits:
            self._kits[space.fingerprint] = SpaceKit.load(self._index.space(space.fingerprint)).to(self._device)
        return self._kits[space.fingerprint]

    # Keeping up with the catalog

    def refresh(self, spaces: Sequence[KnownSpace]) -> None:
        """Begin a question: bring spaces up to date, free while the catalog is unchanged, otherwise proportional to the
        changes. Raises NoShardAnswers."""
        generation = self._catalog.generation()
        if self._counted != generation:
            self._numbers = [shard.number for shard in self._catalog.shards()]
            self._counted = generation
        fresh = self._shards.begin(self._numbers)
        for current in self._current.values():
            current -= fresh
        for space in spaces:
            shown = self._generations.get(space.fingerprint)
            if shown != generation or not self._current[space.fingerprint] >= self.answering:
                self._refresh(space, generation)
        self.check_answering()

    @property
    def answering(self) -> set[int]:
        """Numbers of the shards that take part in the present question."""
        return set(self._numbers) - set(self._shards.unanswered)

    def check_answering(self) -> None:
        """Raises NoShardAnswers."""
        if self._numbers and not self.answering:
            reasons = "; ".join(dict.fromkeys(self._shards.unanswered.values()))
            raise NoShardAnswers(
                f"None of the {len(self._numbers)} shards of the index answered ({reasons}); ask again in a minute, or "
                "see with `ray status` what is wrong with the cluster."
            )

    def unanswered(self, spaces: Sequence[KnownSpace]) -> list[Unanswered]:
        """The shards that take no part in the present question, by number."""
        return [
            Unanswered(number, max(self._catalog.count_indexed(space.id, number) for space in spaces), reason)
            for number, reason in sorted(self._shards.unanswered.items())
        ]

    def _refresh(self, space: KnownSpace, reached: int) -> None:
        """reached: the catalog's generation when this began."""
        digests = {number: recorded.digest for number, recorded in self._catalog.recall_files(space.id).items()}
        known = self._known.setdefault(space.fingerprint, {})
        numbers = self.answering
        up_to_date = numbers & self._current.get(space.fingerprint, set())
        shown = self._generations.get(space.fingerprint, -1)
        stale = {n for n in numbers if n not in up_to_date or n not in known or known[n] != digests.get(n)}
        changes = self._catalog.space_changes(space.id, shown) if stale != numbers else None
        if changes is None or changes.complete:
            stale = numbers  # nothing is open yet, or too much has happened since
        else:
            reached = min(reached, changes.generation)
            new = {n: (space.fingerprint, _of_shard(changes, n, shown)) for n in sorted(numbers - stale)}
            self._shards.call("update", new)
        reached = min(reached, self._open(space, sorted(stale)))
        self._generations[space.fingerprint] = reached
        # A shard that was lost or late meanwhile may lack these changes: it is opened anew when it is back.
        self._current[space.fingerprint] = numbers & self.answering

    def _open(self, space: KnownSpace, numbers: Sequence[int]) -> int:
        """Open the snapshots of shards and apply later changes; returns the generation that they then show."""
        fingerprint, kit = space.fingerprint, self.kit(space)
        recorded = self._catalog.recall_files(space.id)
        since = {n: recorded[n].generation if n in recorded else -1 for n in numbers}
        changes = {n: self._catalog.space_changes(space.id, since[n], n) for n in numbers}
        reached = min((found.generation for found in changes.values()), default=self._catalog.generation())
        # In some shards the space has nothing yet.
        there = {n: self._index.shard(fingerprint, n) for n in numbers if n in recorded or len(changes[n].ids)}
        self._shards.call("drop", {n: (fingerprint,) for n in numbers if n not in there})
        for n in set(numbers) - set(there):
            self._known[fingerprint].pop(n, None)
        digest = {n: recorded[n].digest if n in recorded else None for n in there}
        whole = self._shards.call("open", {n: (fingerprint, there[n], kit, digest[n]) for n in there})
        without = {}  # shards whose later changes are no longer recorded
        for n, has_snapshot in whole.items():
            if not has_snapshot and not changes[n].complete:
                since[n] = -1
                changes[n] = self._catalog.space_changes(space.id, -1, n)
                reached = min(reached, changes[n].generation)
            elif has_snapshot and changes[n].complete:
                without[n] = (fingerprint, there[n], kit, None)
        self._shards.call("open", without)
        updated = self._shards.call("update", {n: (fingerprint, _of_shard(changes[n], n, since[n])) for n in whole})
        for n in updated:
            # Without a sound snapshot, the next refresh looks for one again.
            self._known[fingerprint][n] = digest[n] if whole[n] else None
        return reached

    # Querying

    def count(self, spaces: Sequence[str], allowed: np.ndarray | None = None) -> int:
        """How many pictures can be hits in every one of the spaces (fingerprints). allowed: count only these ids."""
        return sum(self._shards.ask("count", spaces, allowed))

    def among(self, spaces: Sequence[str], ids: np.ndarray) -> np.ndarray:
        """Which of the ids can be hits in every one of the spaces: bool, in their order."""
        found = self._shards.ask("among", spaces, ids)
        mask: np.ndarray = np.isin(ids, np.concatenate(found)) if found else np.zeros(len(ids), np.bool_)
        return mask

    def recall(self, query: SpaceQuery, count: int | None, allowed: np.ndarray | None = None) -> Found:
        """The `count` nearest to the query by descriptor (None: all, compared exactly), best first: ids int64, cosines
        float32."""
        return merge(self._shards.ask("recall", query, count, allowed), count)

    def score(self, queries: Sequence[SpaceQuery], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Full scores of the contents that could be read in every space of the queries: ids int64 [n], scores float32
        [queries, n] in [-1, 1]."""
        parts = self._shards.ask("score", queries, ids)
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
        shown = [self._generations.get(space, -1) for space in key], self.answering
        known = self._samples.get(key)
        if known is None or known.shown != shown or known.size < size + len(without):
            known = self._samples[key] = _Sample(shown, size + len(without), self._unlike(key, size + len(without)))
        return known.ids[~np.isin(known.ids, without)][:size]

    def _unlike(self, spaces: Sequence[str], size: int) -> np.ndarray:
        """At most `size` of the contents with the smallest hashes that are not much like one before them."""
        ahead = SAMPLE_AHEAD * size
        nobody = np.empty(0, np.int64)
        ids = smallest_of(self._shards.ask("null_sample", spaces, ahead, nobody), ahead)[1]
        read = [self.descriptors(space, ids) for space in spaces]
        for found, _ in read:
            ids = ids[np.isin(ids, found)]
        chosen = np.ones(len(ids), np.bool_)
        for found, descriptors in read:
            chosen &= unlike(descriptors[np.searchsorted(found, ids)])
        return ids[chosen][:size]

    def features(self, space: str, content_id: int) -> PictureFeatures | None:
        """The stored features of one picture in a space; None if they are missing or damaged."""
        found = self._shards.ask("features", space, content_id)
        return next((features for features in found if features is not None), None)

    def ids(self, space: str) -> np.ndarray:
        """Every picture that can be a hit in a space: int64, ascending."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *self._shards.ask("ids", space)]))

    def descriptors(self, space: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the ids that have a sound descriptor, int64 [n] ascending, and these, float16 [n, dimensions]."""
        parts = self._shards.ask("descriptors", space, ids)
        parts = [part for part in parts if len(part[0])]
        if not parts:
            return np.empty(0, np.int64), np.empty((0, 0), np.float16)
        found, descriptors = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(found)
        return found[order], descriptors[order]

    def tokens(self, space: str, ids: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """(id, token record) for each of the ids that has a sound record."""
        for some in range(0, len(ids), _RECORDS_AT_ONCE):
            for found in self._shards.ask("records", space, ids[some : some + _RECORDS_AT_ONCE]):
                yield from ((row, memoryview(record)) for row, record in found)

    def notes(self, spaces: Sequence[str], unread: int = 0) -> list[str]:
        """Notes on the index for the user, as sentences. unread: pictures whose features could not be read."""
        notes = list(dict.fromkeys(warning for found in self._shards.ask("warnings", spaces) for warning in found))
        if unread:
            notes.append(
                f"{unread} pictures have no readable features and were left out; `diffsim verify` repairs them."
            )
        return notes

    def parts(self, space: str) -> list[SpacePart]:
        """Each shard's part of a space, for inspection, of shards in this process."""
        return self._shards.parts(space) if isinstance(self._shards, LocalShards) else []


def _shards(index: IndexFolder, device: str, timeout: float) -> Shards:
    if index.cluster is None:
        return LocalShards()
    from .cluster import ClusterShards  # needs Ray

    return ClusterShards(index.path, index.cluster, device, timeout)


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
