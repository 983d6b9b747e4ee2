"""One feature space of one shard: which contents it has, and their descriptors and token records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..kit import SpaceKit
from ..region import region_features
from ..score import score, score_one_way
from .block import Block, joined
from .gpu_recall import WORTH_IT, to_gpu
from .members import Members
from .messages import SpaceChanges, SpaceQuery
from .recall import Found, merge, search_exact
from .rerank import score_queries
from .snapshot import KEPT_IN_ORDER, Rows, in_order, open_snapshot
from .store import FeatureStore

_NO_SNAPSHOT = (
    "A FAISS file is missing or not the one that was built, so descriptors were compared one by one; "
    "`diffsim verify` rebuilds it."
)

_NO_GPU_INDEX = (
    "FAISS does not run on this GPU, so candidates are recalled on the CPU; install faiss-gpu in the place of "
    "faiss-cpu."
)


@dataclass(frozen=True, eq=False)
class SpacePart:
    """blocks: the snapshot first, if there is one, then later additions, compared exactly, largest first.

    members: the contents that can be hits. warning: about the snapshot, for the user.
    """

    store: FeatureStore
    kit: SpaceKit
    blocks: tuple[Block, ...]
    members: Members
    warning: str | None

    @classmethod
    def open(cls, folder: Path, kit: SpaceKit, digest: str | None) -> "SpacePart":
        """Open a shard's folder of one space, with the contents of the snapshot of this digest. If that is missing or
        damaged, the part is empty and has a warning: `updated` must then add everything. Raises StoreMissing, ..."""
        store = FeatureStore(folder, readonly=True)
        snapshot = open_snapshot(folder, digest) if digest else None
        if snapshot is None:
            return cls(store, kit, (), Members.of(np.empty(0, np.int64)), _NO_SNAPSHOT if digest else None)
        rows = snapshot.rows
        gpu_index, warning = None, None
        if kit.device.type == "cuda" and len(rows) >= WORTH_IT:
            gpu_index = to_gpu(snapshot.index, kit.device)
            warning = None if gpu_index else _NO_GPU_INDEX
        block = Block.of_snapshot(rows, snapshot.index, gpu_index)
        return cls(store, kit, (block,), Members.of(rows.ids[rows.visible]), warning)

    @property
    def has_snapshot(self) -> bool:
        return bool(self.blocks) and self.blocks[0].index is not None

    def updated(self, changes: SpaceChanges) -> "SpacePart":
        """The part after these changes; the cost grows with the changes, not with the part."""
        fresh = changes.rewritten.copy()
        known = np.zeros(len(fresh), np.bool_)
        for block in self.blocks:
            known |= block.position(changes.ids)[0]
        fresh |= ~known
        kept = tuple(
            block.without(np.concatenate([changes.gone, changes.ids[fresh]])).shown(
                changes.ids[~fresh], changes.visible[~fresh]
            )
            for block in self.blocks
        )
        if fresh.any():
            rows = Rows(changes.ids[fresh], changes.sha256[fresh], changes.visible[fresh])
            found, descriptors = self.store.descriptors(_wanted(rows))
            kept = _added(kept, Block.of_descriptors(rows, found, descriptors))
        hidden = np.concatenate([changes.gone, changes.ids[~changes.visible]])
        members = self.members.changed(changes.ids[changes.visible], hidden)
        return replace(self, blocks=kept, members=members)

    def close(self) -> None:
        self.store.close()

    def recall(self, descriptor: np.ndarray, count: int | None, allowed: Members | None) -> Found:
        """The `count` nearest by descriptor among `allowed` (count None: all, compared exactly), best first."""
        if count is None:
            ids = (self.members if allowed is None else self.members.within(allowed)).ids()
            return search_exact(*self.descriptors(ids), descriptor, len(ids))
        masks = [None if allowed is None else allowed.has(block.rows.ids) for block in self.blocks]
        found = [block.search(descriptor, count, mask) for block, mask in zip(self.blocks, masks, strict=True)]
        return merge(found, count)

    def score(self, queries: Sequence[SpaceQuery], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The full token-level scores of queries in this space, on the kit's device; in a space without a token stage
        the cosine of the embeddings. ids: in any order; those that are missing or unreadable are left out.

        Returns ids int64 [n] and scores float32 [queries, n] in [-1, 1].
        """
        if self.kit.has_tokens:
            asked = [
                (region_features(features, query.region), score_one_way) if query.region else (features, score)
                for query in queries
                for features in [self.kit.read([query.tokens])]
            ]
            return score_queries(self.kit, asked, self.tokens(ids))
        found, descriptors = self.descriptors(ids)
        vectors, examples = (
            array.astype(np.float32) for array in (descriptors, np.stack([query.descriptor for query in queries]))
        )
        lengths = np.linalg.norm(examples, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        return found, np.clip(examples @ vectors.T / lengths, -1, 1) if len(found) else np.empty((len(queries), 0))

    def descriptors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [n], ascending, and descriptors float16 [n, dimensions] of those that are present and sound."""
        return self.store.descriptors(self._wanted(ids))

    def tokens(self, ids: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """(id, token record) of those that are present and sound."""
        return self.store.tokens(self._wanted(ids))

    def smallest(self, count: int, among: Members) -> tuple[np.ndarray, np.ndarray]:
        """The `count` contents with the smallest hashes: hashes uint8 [n, 32], ascending, and ids int64 [n]."""
        parts = [_smallest(block, count, among) for block in self.blocks]
        return smallest_of(parts, count)

    def _wanted(self, ids: np.ndarray) -> dict[int, bytes]:
        """Id -> content hash of those of the ids that are present, in their order."""
        found: dict[int, bytes] = {}
        for block in self.blocks:
            here, positions = block.position(ids)
            hashes = block.rows.sha256[positions]
            found.update((int(row), hashes[number].tobytes()) for number, row in enumerate(ids[here].tolist()))
        return {row: found[row] for row in ids.tolist() if row in found}


def smallest_of(parts: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` smallest hashes of several (hashes, ids), in order."""
    if not parts:
        return np.empty((0, 32), np.uint8), np.empty(0, np.int64)
    hashes, ids = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = in_order(hashes)[:count]
    return hashes[order], ids[order]


def _wanted(rows: Rows) -> dict[int, bytes]:
    return {row: sha256.tobytes() for row, sha256 in zip(rows.ids.tolist(), rows.sha256, strict=True)}


def _added(blocks: tuple[Block, ...], newest: Block) -> tuple[Block, ...]:
    """Add a block; blocks of similar size are joined, so that there are few and rows are rarely copied."""
    *rest, last = (*blocks, newest)
    while rest and rest[-1].index is None and len(rest[-1]) < 2 * len(last):
        last = joined(rest.pop(), last)
    return (*rest, last)


def _smallest(block: Block, count: int, among: Members) -> tuple[np.ndarray, np.ndarray]:
    for ahead in (KEPT_IN_ORDER, len(block)):
        positions = block.rows.by_hash(ahead)
        kept = positions[block.current[positions] & among.has(block.rows.ids[positions])][:count]
        if len(kept) == count or len(positions) == len(block):
            break
    return block.rows.sha256[kept], block.rows.ids[kept]
