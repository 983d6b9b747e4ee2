"""Contents of a space that were added together: their rows, how they are searched, and which are still current.

A space's part of a shard is a few blocks: the snapshot with its FAISS index, and later additions, compared exactly.
"""

from dataclasses import dataclass, replace

import faiss
import numpy as np

from .gpu_recall import search_gpu
from .recall import Found, search_exact, search_index
from .snapshot import Rows


@dataclass(frozen=True, eq=False)
class Block:
    """rows: ascending by id; their `visible` is the initial one.

    current: bool [n], the row holds the content's latest features: not forgotten, not rewritten in a later block.
    visible: bool [n], the content can be a hit. findable: bool [n], its descriptor is sound.
    index: FAISS over the descriptors by position, or None if `descriptors`, float16 [n, dimensions], are compared.
    gpu_index: the same on a GPU, if there is one.
    """

    rows: Rows
    current: np.ndarray
    visible: np.ndarray
    findable: np.ndarray
    index: faiss.Index | None
    descriptors: np.ndarray | None
    gpu_index: faiss.Index | None = None

    @classmethod
    def of_snapshot(cls, rows: Rows, index: faiss.Index, gpu_index: faiss.Index | None) -> "Block":
        every = np.ones(len(rows), np.bool_)
        return cls(rows, every, rows.visible, every, index, None, gpu_index)

    @classmethod
    def of_descriptors(cls, rows: Rows, found: np.ndarray, descriptors: np.ndarray) -> "Block":
        """found: ids, ascending, of the rows that have a sound descriptor. descriptors: theirs, in this order."""
        findable = np.isin(rows.ids, found, assume_unique=True)
        every = np.zeros((len(rows), descriptors.shape[1]), np.float16)
        every[findable] = descriptors
        return cls(rows, np.ones(len(rows), np.bool_), rows.visible, findable, None, every)

    def __len__(self) -> int:
        return len(self.rows)

    def position(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Locate ids: (which of them are current rows here: bool, positions of those: int64)."""
        positions = np.searchsorted(self.rows.ids, ids)
        inside = positions < len(self.rows)
        here = np.zeros(len(ids), np.bool_)
        here[inside] = self.rows.ids[positions[inside]] == ids[inside]
        here[here] = self.current[positions[here]]
        return here, positions[here]

    def without(self, ids: np.ndarray) -> "Block":
        """Mark these ids, if present, as no longer current."""
        here, positions = self.position(ids)
        if not here.any():
            return self
        current = self.current.copy()
        current[positions] = False
        return replace(self, current=current)

    def shown(self, ids: np.ndarray, visible: np.ndarray) -> "Block":
        """Set the visibility of these ids, if they are current here."""
        here, positions = self.position(ids)
        if np.array_equal(self.visible[positions], visible[here]):
            return self
        now = self.visible.copy()
        now[positions] = visible[here]
        return replace(self, visible=now)

    def search(self, descriptor: np.ndarray, count: int, allowed: np.ndarray | None) -> Found:
        """The `count` nearest that can be hits, best first. allowed: bool [n], None for all."""
        hits = self.current & self.visible & self.findable
        if allowed is not None:
            hits &= allowed
        if self.index is not None:
            found = search_gpu(self.gpu_index, descriptor, count, hits) if self.gpu_index else None
            positions, similarities = found or search_index(self.index, descriptor, count, hits)
            return self.rows.ids[positions], similarities
        assert self.descriptors is not None
        if hits.all():  # without a copy
            return search_exact(self.rows.ids, self.descriptors, descriptor, count)
        return search_exact(self.rows.ids[hits], self.descriptors[hits], descriptor, count)


def joined(first: Block, second: Block) -> Block:
    """Join two blocks that are compared exactly into one, with their current rows only."""
    parts = [(block, block.current) for block in (first, second)]
    ids = np.concatenate([block.rows.ids[kept] for block, kept in parts])
    order = np.argsort(ids)

    def both(name: str) -> np.ndarray:
        whole: np.ndarray = np.concatenate([getattr(block, name)[kept] for block, kept in parts])[order]
        return whole

    sha256 = np.concatenate([block.rows.sha256[kept] for block, kept in parts])[order]
    visible = both("visible")
    every = np.ones(len(ids), np.bool_)
    return Block(Rows(ids[order], sha256, visible), every, visible, both("findable"), None, both("descriptors"))
