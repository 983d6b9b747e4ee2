"""Judges a feature store before LMDB maps it, and saves what is left of a broken one."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..durable import sync
from .lmdb_file import LmdbFile, NotLmdb
from .store import HASH_BYTES, HEADER_BYTES, FeatureStore, Record, is_sound

_AT_ONCE = 64


def mend_store(folder: Path) -> bool:
    """Check how a store's file is built, and where that is broken build it again from the records that can be read ->
    whether it was. Nobody else may be writing to it; readers go over to the new file.

    Reads all but the records. Raises StoreFull, with the store as it was.
    """
    path = folder / "data.mdb"
    if not path.is_file() or not path.stat().st_size:
        return False
    part = folder / "compact"
    try:
        with LmdbFile(path) as file:
            if file.is_whole():
                return False
            shutil.rmtree(part, ignore_errors=True)
            with FeatureStore(part, readonly=False) as saved:
                for batch in _batches(file):
                    saved.put(batch)
        sync(part / "data.mdb")
        # The lock file holds the old file's transaction number and would mislead readers of the new one.
        (folder / "lock.mdb").unlink(missing_ok=True)
        os.replace(part / "data.mdb", path)
    except NotLmdb:
        path.unlink()
        (folder / "lock.mdb").unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync(folder)
    return True


def _batches(file: LmdbFile) -> Iterator[list[Record]]:
    """The records of which both parts can be read and belong to each other, some at a time."""
    descriptors = dict(_sound(file, b"descriptors"))
    widths = Counter(len(value) for value in descriptors.values())
    width = max(widths, key=widths.__getitem__, default=0)
    batch: list[Record] = []
    for key, value in _sound(file, b"tokens"):
        descriptor = descriptors.get(key, b"")
        if len(descriptor) == width and descriptor[:HASH_BYTES] == value[:HASH_BYTES]:
            numbers = np.frombuffer(descriptor[HEADER_BYTES:], np.float16)
            batch.append(Record(int.from_bytes(key, "big"), value[:HASH_BYTES], numbers, value[HEADER_BYTES:]))
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    yield batch


def _sound(file: LmdbFile, table: bytes) -> Iterator[tuple[bytes, bytes]]:
    for key, value in file.records(table):
        if len(key) == 8 and is_sound(memoryview(value), value[:HASH_BYTES]):
            yield key, value
