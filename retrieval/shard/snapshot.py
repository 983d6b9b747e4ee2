"""A shard's snapshot in one feature space: a FAISS index over its descriptors, and the contents they belong to.

Two immutable files, built elsewhere, synced and renamed. They are named by one digest of both, which is in the catalog,
so a new snapshot never replaces one that another process is about to open:

recall-<digest>.faiss   the FAISS index, which identifies pictures by their position
    recall-<digest>.npy     uint8 [n, 41], one row per position, ascending by id: content id (8 bytes, little-endian),
                            SHA-256 of the content (32), whether it was visible (1)

They are a cache: the catalog records later changes, and they can be rebuilt from the descriptors.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader, BytesIO
from pathlib import Path

import faiss
import numpy as np

from ..durable import put_in_place
from .recall import build_index

KEPT_IN_ORDER = 4096
"""How many of the smallest content hashes are kept in order: a null sample needs a few hundred that can be hits."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Contents of one space in one shard.

    ids: int64 [n], ascending. sha256: uint8 [n, 32], of their bytes. visible: bool [n], whether each can be a hit.
    """

    ids: np.ndarray
    sha256: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, chosen: np.ndarray) -> "Rows":
        return Rows(self.ids[chosen], self.sha256[chosen], self.visible[chosen])

    def by_hash(self, count: int) -> np.ndarray:
        """Positions of the `count` smallest hashes, int64, in ascending order of hash. The first few are cached."""
        return self._first_by_hash[:count] if count <= KEPT_IN_ORDER else self._by_hash(count)

    @cached_property
    def _first_by_hash(self) -> np.ndarray:
        return self._by_hash(KEPT_IN_ORDER)

    def _by_hash(self, count: int) -> np.ndarray:
        # The first eight bytes distinguish almost all hashes; the other bytes order those that share them.
        keys = np.ascontiguousarray(self.sha256[:, :8]).view(">u8").ravel().astype(np.uint64)
        if count < len(keys):
            limit = np.partition(keys, count - 1)[count - 1]
            some = np.flatnonzero(keys <= limit)
        else:
            some = np.arange(len(keys))
        first: np.ndarray = some[in_order(self.sha256[some])][:count]
        return first


def in_order(hashes: np.ndarray) -> np.ndarray:
    """Positions of hashes uint8 [n, 32] in their ascending order."""
    return np.argsort(np.ascontiguousarray(hashes).view("S32").ravel(), kind="stable")


@dataclass(frozen=True)
class BuiltSnapshot:
    """digest: of both files. factory: the index in FAISS's own notation. loss: share of the exact candidates that it
    misses, 0 if every descriptor is compared."""

    digest: str
    factory: str
    loss: float


@dataclass(frozen=True)
class Snapshot:
    """index: FAISS, over the descriptors of `rows` in their order; memory-mapped if FAISS supports it."""

    index: faiss.Index
    rows: Rows


def build_snapshot(folder: Path, rows: Rows, descriptors: np.ndarray, memory: int) -> BuiltSnapshot:
    """Build the snapshot of a shard and put it into its folder.

    descriptors: float16 [n, dimensions], unit norm, of the rows in their order. memory: bytes that the index may use
    when it is searched. The same input gives the same files. Raises OverBudget, OSError.
    """
    index, factory, loss = build_index(descriptors, memory)
    raw = np.concatenate(
        [rows.ids.astype("<i8").view(np.uint8).reshape(-1, 8), rows.sha256, rows.visible[:, None].view(np.uint8)],
        axis=1,
    )
    index_part, rows_part = folder / "recall.faiss.part", folder / "recall.npy.part"
    # By Python's files: FAISS does not notice that the disk is full when it closes one, and numpy does not say so.
    with open(index_part, "wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    rows_data = BytesIO()
    np.save(rows_data, raw)
    rows_part.write_bytes(rows_data.getbuffer())
    with open(index_part, "rb") as index_file, open(rows_part, "rb") as rows_file:
        digest = _digest(index_file, rows_file)
    for part, target in zip((index_part, rows_part), snapshot_files(folder, digest), strict=True):
        put_in_place(part, target)
    return BuiltSnapshot(digest, factory, loss)


def snapshot_files(folder: Path, digest: str) -> tuple[Path, Path]:
    """Where the index and the rows of a snapshot are."""
    return folder / f"recall-{digest[:16]}.faiss", folder / f"recall-{digest[:16]}.npy"


def remove_other_snapshots(folder: Path, digest: str | None) -> None:
    """Delete every snapshot except this one (None: all), and the remains of an interrupted build."""
    kept = snapshot_files(folder, digest) if digest else ()
    for path in folder.glob("recall*"):
        if path not in kept:
            path.unlink(missing_ok=True)


def snapshot_is_sound(folder: Path, digest: str) -> bool:
    """Whether both files are there, byte for byte as they were built."""
    index_path, rows_path = snapshot_files(folder, digest)
    try:
        with open(index_path, "rb") as index_file, open(rows_path, "rb") as rows_file:
            return _digest(index_file, rows_file) == digest
    except OSError:
        return False


def open_snapshot(folder: Path, digest: str) -> Snapshot | None:
    """The snapshot of a shard; None if a file is missing or not byte for byte the one that was built."""
    index_path, rows_path = snapshot_files(folder, digest)
    try:
        with open(index_path, "rb") as index_file, open(rows_path, "rb") as rows_file:
            if _digest(index_file, rows_file) != digest:
                return None
            # Read the files that were hashed, not others that may have just taken their names.
            raw = np.load(_path_of(rows_file, rows_path), mmap_mode="r")
            index = faiss.read_index(_path_of(index_file, index_path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError, ValueError):
        return None
    ids = np.ascontiguousarray(raw[:, :8]).view("<i8").ravel().astype(np.int64, copy=False)
    return Snapshot(index, Rows(ids, raw[:, 8:40], raw[:, 40].astype(np.bool_)))


def _digest(index: BufferedReader, rows: BufferedReader) -> str:
    both = (hashlib.file_digest(file, "sha256").digest() for file in (index, rows))
    return hashlib.sha256(b"".join(both)).hexdigest()


def _path_of(file: BufferedReader, name: Path) -> str:
    """A path to this open file, even if its name now refers to another file."""
    descriptor = Path(f"/proc/self/fd/{file.fileno()}")
    return os.fspath(descriptor if descriptor.exists() else name)
