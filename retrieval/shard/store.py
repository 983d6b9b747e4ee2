"""The feature store: a shard's descriptors and tokens, two tables in one LMDB environment, keyed by content id.

Why LMDB, measured against SQLite and append-only segments: docs/stores.md. A record is the SHA-256 of the
picture's bytes (32 bytes), the CRC-32 of the payload (4 bytes, big-endian) and the payload. A record under another
hash than the catalog names is an orphan (of an interrupted run, of a picture that changed): it is never returned,
and overwritten later.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

import lmdb
import numpy as np

from .lmdb_environment import Environment

HASH_BYTES = 32
HEADER_BYTES = HASH_BYTES + 4
# Records per read transaction. Transactions are short, because the writer cannot reuse pages that may be being read.
_DESCRIPTORS_AT_ONCE = 512
_TOKENS_AT_ONCE = 16


@dataclass(frozen=True)
class Record:
    content_id: int  # >= 0
    sha256: bytes  # [32], of the picture's bytes
    descriptor: np.ndarray  # float16 [D]
    tokens: bytes


class FeatureStore:
    """One shard folder, such as `spaces/<fingerprint>/shards/0000`.

    Any number of readers beside one writer, in this process or in others; threads may share a store, and so may a
    process and its forked children. `readonly=True` creates no file and works where nothing can be written. Raises
    StoreMissing, StoreDamaged, or StoreFull if a writer has no room for the first page.
    """

    def __init__(self, folder: Path, *, readonly: bool) -> None:
        self.folder = folder
        self.readonly = readonly
        self._environment: Environment | None = Environment.acquire(folder, writable=not readonly)

    def close(self) -> None:
        """Closing twice is harmless."""
        if self._environment is not None:
            self._environment.release()
            self._environment = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, records: Iterable[Record]) -> None:
        """Store all records or none, in both tables, on the disk when this returns; replaces records of the same id.

        Raises StoreFull, and ValueError for a hash that is not 32 bytes or a descriptor unlike those stored.
        """
        environment = self._writable
        # By id, because LMDB fills pages well in key order; of two records with one id the last wins.
        batch = [record for _, record in sorted({record.content_id: record for record in records}.items())]
        for record in batch:
            if len(record.sha256) != HASH_BYTES:
                raise ValueError(f"sha256 of content {record.content_id} has {len(record.sha256)} bytes, not 32")
            if record.descriptor.dtype != np.float16 or record.descriptor.ndim != 1:
                found = f"{record.descriptor.dtype} {list(record.descriptor.shape)}"
                raise ValueError(f"descriptor of content {record.content_id} is {found}, not float16 [D]")
        if batch:
            environment.run(partial(self._put, batch), write=True)

    def _put(self, batch: list[Record], txn: lmdb.Transaction) -> None:
        with txn.cursor(self._live.descriptors) as cursor:
            width = len(cursor.value()) - HEADER_BYTES if cursor.first() else batch[0].descriptor.nbytes
        for record in batch:
            if record.descriptor.nbytes != width:
                raise ValueError(
                    f"descriptor of content {record.content_id} has {len(record.descriptor)} numbers, "
                    f"others in {self.folder} have {width // 2}"
                )
            value = _frame(record.sha256, record.descriptor.tobytes())
            txn.put(_key(record.content_id), value, db=self._live.descriptors)
        # After all descriptors, so that these are adjacent in the file and a cold scan of them reads few tokens.
        for record in batch:
            txn.put(_key(record.content_id), _frame(record.sha256, record.tokens), db=self._live.tokens)

    def delete(self, ids: Iterable[int]) -> None:
        """Delete these ids, all or none; ids that are not stored are ignored. Raises StoreFull."""
        self._writable.run(partial(self._delete, [_key(content_id) for content_id in ids]), write=True)

    def _delete(self, keys: list[bytes], txn: lmdb.Transaction) -> None:
        for key in keys:
            txn.delete(key, db=self._live.descriptors)
            txn.delete(key, db=self._live.tokens)

    def descriptors(self, wanted: Mapping[int, bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [n], ascending, and descriptors float16 [n, D], of those of `wanted` (id -> SHA-256) that are
        stored under that hash and undamaged. D is 0 if there is none."""
        found: list[int] = []
        matrix = bytearray()
        ordered = iter(sorted(wanted))
        while chunk := list(islice(ordered, _DESCRIPTORS_AT_ONCE)):
            ids, rows = self._live.run(partial(self._rows, chunk, wanted))
            found += ids
            matrix += rows
        width = len(matrix) // 2 // max(1, len(found))
        return np.array(found, np.int64), np.frombuffer(matrix, np.float16).reshape(len(found), width)

    def _rows(self, chunk: list[int], wanted: Mapping[int, bytes], txn: lmdb.Transaction) -> tuple[list[int], bytes]:
        ids, rows = [], []
        with txn.cursor(self._live.descriptors) as cursor:
            for key, value in cursor.getmulti(map(_key, chunk)):
                content_id = int.from_bytes(key, "big")
                view = memoryview(value)
                # If the page was reused while we read it (`overtaken`), the key may be anything.
                if is_sound(view, wanted.get(content_id, b"")):
                    ids.append(content_id)
                    rows.append(view[HEADER_BYTES:])
            return ids, b"".join(rows)

    def tokens(self, wanted: Mapping[int, bytes]) -> Iterator[tuple[int, memoryview]]:
        """(id, token record) in the order of `wanted`, by the same rule as `descriptors`.

        Each view is on its own copy and stays valid; copies are made 16 at a time.
        """
        ordered = iter(wanted)
        while chunk := list(islice(ordered, _TOKENS_AT_ONCE)):
            for content_id, value in self._live.run(partial(self._copies, chunk)):
                view = memoryview(value)
                if is_sound(view, wanted[content_id]):
                    yield content_id, view[HEADER_BYTES:]

    def _copies(self, chunk: list[int], txn: lmdb.Transaction) -> list[tuple[int, bytes]]:
        values = ((content_id, txn.get(_key(content_id), db=self._live.tokens)) for content_id in chunk)
        return [(content_id, bytes(value)) for content_id, value in values if value is not None]

    def check(self, wanted: Mapping[int, bytes]) -> list[int]:
        """Those of `wanted` whose descriptor or tokens are missing, foreign or damaged, ascending. Reads everything."""
        ordered = dict(sorted(wanted.items()))
        sound = set(self.descriptors(ordered)[0].tolist())
        sound &= {content_id for content_id, _ in self.tokens(ordered)}
        return [content_id for content_id in ordered if content_id not in sound]

    def ids(self) -> np.ndarray:
        """Everything stored, orphans included: int64 [n], ascending."""
        return np.frombuffer(self._live.run(self._keys), ">i8").astype(np.int64)

    def _keys(self, txn: lmdb.Transaction) -> bytes:
        with txn.cursor(self._live.descriptors) as cursor:
            return b"".join(cursor.iternext(keys=True, values=False))

    def nbytes(self) -> int:
        """Bytes on the disk, free pages included."""
        return self._live.data_path.stat().st_blocks * 512

    def compact(self) -> bool:
        """Return the disk space freed by deletions, if it is more than a quarter of the file; returns whether it did.

        Needs room for a copy of what is left. Readers in other processes switch to the new file automatically.
        Raises StoreFull, with the store as it was.
        """
        return self._writable.compact()

    @property
    def _live(self) -> Environment:
        if self._environment is None:
            raise ValueError(f"the feature store {self.folder} is closed")
        return self._environment

    @property
    def _writable(self) -> Environment:
        if self.readonly:
            raise ValueError(f"the feature store {self.folder} was opened read-only")
        return self._live


def _key(content_id: int) -> bytes:
    return int(content_id).to_bytes(8, "big")


def _frame(sha256: bytes, payload: bytes) -> bytes:
    return b"".join((sha256, zlib.crc32(payload).to_bytes(4, "big"), payload))


def is_sound(value: memoryview, sha256: bytes) -> bool:
    """Whether a stored value is that of a picture with this hash, unaltered."""
    if len(value) < HEADER_BYTES or value[:HASH_BYTES] != sha256:
        return False
    return zlib.crc32(value[HEADER_BYTES:]) == int.from_bytes(value[HASH_BYTES:HEADER_BYTES], "big")
