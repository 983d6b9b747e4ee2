"""The pictures of one feature space as a query sees them: one state of the catalog, its FAISS file and the tail."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import faiss
import numpy as np

from diffsim.db.changes import SpaceChanges
from diffsim.db.shards import RecordedRecall
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.shard.recall import merge, open_recall_file, search_exact, search_file
from diffsim.retrieval.shard.store import FeatureStore


class ShardStores:
    """The feature stores of a space's shards, read as one."""

    def __init__(self, index: IndexFolder, fingerprint: str, contents: SpaceChanges) -> None:
        self._shard = dict(zip(contents.ids.tolist(), contents.shards.tolist(), strict=True))
        numbers = sorted({0, *self._shard.values()})
        self._stores: dict[int, FeatureStore] = {}
        for number in numbers:
            self._stores[number] = index.store(fingerprint, number, readonly=True)

    def close(self) -> None:
        for store in self._stores.values():
            store.close()

    def descriptors(self, wanted: Mapping[int, bytes]) -> tuple[np.ndarray, np.ndarray]:
        found = [self._stores[shard].descriptors(part) for shard, part in self._parts(wanted)]
        found = [part for part in found if len(part[0])]
        if not found:
            return np.empty(0, np.int64), np.empty((0, 0), np.float16)
        ids, descriptors = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(ids)
        return ids[order], descriptors[order]

    def tokens(self, wanted: Mapping[int, bytes]) -> Iterator[tuple[int, memoryview]]:
        found = {row: view for shard, part in self._parts(wanted) for row, view in self._stores[shard].tokens(part)}
        return ((row, found[row]) for row in wanted if row in found)

    def _parts(self, wanted: Mapping[int, bytes]) -> Iterator[tuple[int, dict[int, bytes]]]:
        for shard in self._stores:
            if part := {row: sha for row, sha in wanted.items() if self._shard.get(row) == shard}:
                yield shard, part


@dataclass(frozen=True)
class Gallery:
    """ids: int64 [n], ascending, of the pictures that can be hits, see `within`; sha256: the content hash of every
    picture with a present file.

    recall_file: which FAISS files the catalog names. files: each with the ids that it answers for. tail_ids, tail: the
    others and their descriptors float16, searched exactly: what came after the file was built, or everything where
    there is no valid file. by_hash: the ids in the order of their content hashes.
    """

    contents: SpaceChanges
    recall_file: dict[int, RecordedRecall]
    store: ShardStores
    ids: np.ndarray
    sha256: dict[int, bytes]
    files: list[tuple[faiss.Index, np.ndarray]]
    tail_ids: np.ndarray
    tail: np.ndarray
    warning: str | None
    by_hash: np.ndarray

    @classmethod
    def load(
        cls, index: IndexFolder, fingerprint: str, contents: SpaceChanges, recall: dict[int, RecordedRecall]
    ) -> "Gallery":
        """Read the catalog's state; a FAISS file that disagrees with the catalog is left alone and said so."""
        store = ShardStores(index, fingerprint, contents)
        ids = contents.ids[contents.visible]
        generations = contents.generations[contents.visible]
        shards = contents.shards[contents.visible]
        everything = contents.hashes()
        sha256 = {row: everything[row] for row in ids.tolist()}
        warning = None
        files = []
        in_file = np.zeros(len(ids), bool)
        for shard, recorded in recall.items():
            file = open_recall_file(index.recall_file(fingerprint, shard), recorded.digest)
            if file is None:
                warning = (
                    "The FAISS file is missing or not the one that was built, so every descriptor was compared; "
                    "`diffsim verify` rebuilds it."
                )
                continue
            covered = (generations <= recorded.generation) & (shards == shard)
            in_file |= covered
            files.append((file, ids[covered]))
        by_hash = np.array(sorted(sha256, key=sha256.__getitem__), np.int64)
        tail_ids, tail = store.descriptors({int(row): sha256[int(row)] for row in ids[~in_file]})
        return cls(contents, recall, store, ids, sha256, files, tail_ids, tail, warning, by_hash)

    def is_current(self, contents: SpaceChanges, recall: dict[int, RecordedRecall]) -> bool:
        """Whether the catalog says of this space what it said when this was loaded."""
        return (
            self.recall_file == recall
            and np.array_equal(self.contents.ids, contents.ids)
            and np.array_equal(self.contents.generations, contents.generations)
            and np.array_equal(self.contents.visible, contents.visible)
        )

    def within(self, allowed: np.ndarray) -> "Gallery":
        """The same, but only these ids can be hits. What chance looks like stays a matter of the whole collection."""
        tail = np.isin(self.tail_ids, allowed)
        return replace(
            self,
            ids=np.intersect1d(self.ids, allowed),
            files=[(file, np.intersect1d(covered, allowed)) for file, covered in self.files],
            tail_ids=self.tail_ids[tail],
            tail=self.tail[tail],
        )

    def recall(self, descriptor: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The `count` nearest by descriptor, best first: ids int64, cosines float32."""
        exact = search_exact(self.tail_ids, self.tail, descriptor, count)
        found = [search_file(file, descriptor, count, covered) for file, covered in self.files]
        return reduce(lambda a, b: merge(a, b, count), found, exact)

    def all_descriptors(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and descriptors of every picture that can be a hit."""
        return self.descriptors(self.ids)

    def descriptors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and descriptors of those of these pictures that have sound ones."""
        return self.store.descriptors({content_id: self.sha256[content_id] for content_id in ids.tolist()})

    def sample(self, size: int, without: np.ndarray, within: np.ndarray | None = None) -> np.ndarray:
        """The fixed sample for judging against chance: the contents with the smallest hashes, which are as good as
        drawn at random, stay the same as the collection grows and under any filter, and can be found shard by shard.

        without: not these ids, the examples. within: only of these, those that are in the other spaces too.
        """
        candidates = self.by_hash if within is None else self.by_hash[np.isin(self.by_hash, within)]
        some = candidates[: size + len(without)]  # the smallest come first
        return np.sort(some[~np.isin(some, without)][:size])

    def tokens(self, ids: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """Token records of these pictures."""
        return self.store.tokens({content_id: self.sha256[content_id] for content_id in ids.tolist()})

    def record(self, content_id: int) -> tuple[np.ndarray, bytes] | None:
        """Descriptor and token record of one picture of the catalog, None where it has none here."""
        position = int(np.searchsorted(self.contents.ids, content_id))
        if position == len(self.contents.ids) or self.contents.ids[position] != content_id:
            return None
        wanted = {content_id: self.contents.sha256[position].tobytes()}
        _, descriptors = self.store.descriptors(wanted)
        records = [bytes(record) for _, record in self.store.tokens(wanted)]
        return (descriptors[0], records[0]) if len(descriptors) and records else None

    def notes(self, unread: int = 0) -> list[str]:
        """What an asker should know. unread: pictures whose record could not be read."""
        notes = [self.warning] if self.warning else []
        if unread:
            notes.append(
                f"{unread} pictures have no readable features and were left out; `diffsim verify` repairs them."
            )
        return notes
