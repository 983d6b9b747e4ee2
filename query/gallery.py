"""The pictures of one feature space as a query sees them: one state of the catalog, its FAISS file and the tail."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import faiss
import numpy as np

from diffsim.db.catalog import IndexedContents, RecallFile
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.shard.recall import merge, open_recall_file, search_exact, search_file
from diffsim.retrieval.shard.store import FeatureStore


@dataclass(frozen=True)
class Gallery:
    """ids: int64 [n], ascending, of the pictures that can be hits, see `within`; sha256: the content hash of every
    picture with a present file.

    recall_file: which FAISS file the catalog names. covered: those that it answers for. tail_ids, tail: the others and
    their descriptors float16, searched exactly: what came after the file was built, or everything where there is no
    valid file. by_hash: the ids in the order of their content hashes.
    """

    contents: IndexedContents
    recall_file: RecallFile | None
    store: FeatureStore
    ids: np.ndarray
    sha256: dict[int, bytes]
    file: faiss.Index | None
    covered: np.ndarray
    tail_ids: np.ndarray
    tail: np.ndarray
    warning: str | None
    by_hash: np.ndarray

    @classmethod
    def load(
        cls, index: IndexFolder, fingerprint: str, contents: IndexedContents, recall: RecallFile | None
    ) -> "Gallery":
        """Read the catalog's state; a FAISS file that disagrees with the catalog is left alone and said so."""
        store = index.store(fingerprint, readonly=True)
        ids = contents.ids[contents.visible]
        generations = contents.generations[contents.visible]
        sha256 = {
            int(row): sha
            for row, sha, seen in zip(contents.ids, contents.sha256, contents.visible, strict=True)
            if seen
        }
        file = open_recall_file(index.recall_file(fingerprint), recall.digest) if recall else None
        warning = None
        if recall is not None and file is None:
            warning = (
                "The FAISS file is missing or not the one that was built, so every descriptor was compared; "
                "`diffsim verify` rebuilds it."
            )
        in_file = generations <= recall.generation if recall and file is not None else np.zeros(len(ids), bool)
        by_hash = np.array(sorted(sha256, key=sha256.__getitem__), np.int64)
        tail_ids, tail = store.descriptors({int(row): sha256[int(row)] for row in ids[~in_file]})
        return cls(contents, recall, store, ids, sha256, file, ids[in_file], tail_ids, tail, warning, by_hash)

    def is_current(self, contents: IndexedContents, recall: RecallFile | None) -> bool:
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
            covered=np.intersect1d(self.covered, allowed),
            tail_ids=self.tail_ids[tail],
            tail=self.tail[tail],
        )

    def recall(self, descriptor: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The `count` nearest by descriptor, best first: ids int64, cosines float32."""
        exact = search_exact(self.tail_ids, self.tail, descriptor, count)
        if self.file is None:
            return exact
        return merge(search_file(self.file, descriptor, count, self.covered), exact, count)

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
        wanted = {content_id: self.contents.sha256[position]}
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
