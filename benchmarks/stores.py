"""Compare stores for the feature records: LMDB, SQLite blobs, append-only segments, and our FeatureStore.

    python benchmarks/stores.py --folder /a/disk/that/matters --rounds 3

Every store gets the same records in the same run, and each round begins with another store. The table shows the
median of the rounds and, in brackets, the ratio to bare LMDB. Scratch files stay below 1 GB and are removed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import statistics
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import lmdb
import numpy as np

from diffsim.retrieval.shard.store import FeatureStore
from diffsim.retrieval.shard.store import Record as StoredRecord

T = TypeVar("T")

BATCH = 16
READS = 200


@dataclass(frozen=True)
class Size:
    name: str
    descriptor: int  # bytes
    tokens: int  # bytes
    count: int


SIZES = (Size("mini", 1024, 32 * 1024, 6000), Size("sd15", 5 * 1024, 655_360, 400))


@dataclass(frozen=True)
class Row:
    content_id: int
    sha256: bytes
    descriptor: bytes
    tokens: bytes


def rows(size: Size, ids: Iterable[int]) -> list[Row]:
    """Incompressible records: the same bytes for the same id."""
    made = []
    for content_id in ids:
        noise = np.random.default_rng(content_id).bytes(size.descriptor + size.tokens)
        digest = sha256(content_id.to_bytes(8, "big")).digest()
        made.append(Row(content_id, digest, noise[: size.descriptor], noise[size.descriptor :]))
    return made


def framed(row: Row, payload: bytes) -> bytes:
    return row.sha256 + zlib.crc32(payload).to_bytes(4, "big") + payload


def key(content_id: int) -> bytes:
    return content_id.to_bytes(8, "big")


class Lmdb:
    """One environment, two named databases, the layout that FeatureStore uses, without its checks."""

    readahead = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = lmdb.open(str(folder), map_size=4 << 30, max_dbs=2, readahead=self.readahead)
        self.descriptors = self.env.open_db(b"descriptors")
        self.tokens = self.env.open_db(b"tokens")

    def put(self, batch: Sequence[Row]) -> None:
        with self.env.begin(write=True) as txn:
            for row in batch:
                txn.put(key(row.content_id), framed(row, row.descriptor), db=self.descriptors)
            for row in batch:
                txn.put(key(row.content_id), framed(row, row.tokens), db=self.tokens)

    def delete(self, ids: Sequence[int]) -> None:
        with self.env.begin(write=True) as txn:
            for content_id in ids:
                txn.delete(key(content_id), db=self.descriptors)
                txn.delete(key(content_id), db=self.tokens)

    def read_tokens(self, ids: Sequence[int]) -> int:
        with self.env.begin(db=self.tokens) as txn:
            return sum(len(txn.get(key(content_id)) or b"") for content_id in ids)

    def scan_descriptors(self) -> int:
        with self.env.begin(db=self.descriptors) as txn:
            return sum(len(value) for _, value in txn.cursor())

    def begin_read(self) -> object:
        self.held = self.env.begin(db=self.tokens)
        self.held.get(key(0))
        return self.held

    def compact(self) -> None:
        sibling = self.folder / "compact"
        sibling.mkdir()
        self.env.copy(str(sibling), compact=True)
        self.env.close()
        os.replace(sibling / "data.mdb", self.folder / "data.mdb")
        sibling.rmdir()

    def close(self) -> None:
        self.env.close()


class LmdbNoReadahead(Lmdb):
    readahead = False


class Sqlite:
    """Two blob tables in WAL mode, every commit synced."""

    page_size = 4096

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "features.sqlite", isolation_level=None)
        self.db.execute(f"PRAGMA page_size={self.page_size}")
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        for table in ("descriptors", "tokens"):
            columns = "id INTEGER PRIMARY KEY, record BLOB NOT NULL"
            self.db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")

    def put(self, batch: Sequence[Row]) -> None:
        records = [(row.content_id, framed(row, row.descriptor), framed(row, row.tokens)) for row in batch]
        self.db.execute("BEGIN IMMEDIATE")
        insert = "INSERT OR REPLACE INTO {} VALUES (?, ?)"
        self.db.executemany(insert.format("descriptors"), [(i, descriptor) for i, descriptor, _ in records])
        self.db.executemany(insert.format("tokens"), [(i, tokens) for i, _, tokens in records])
        self.db.execute("COMMIT")

    def delete(self, ids: Sequence[int]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for table in ("descriptors", "tokens"):
            self.db.executemany(f"DELETE FROM {table} WHERE id=?", [(content_id,) for content_id in ids])
        self.db.execute("COMMIT")

    def read_tokens(self, ids: Sequence[int]) -> int:
        found = (self.db.execute("SELECT record FROM tokens WHERE id=?", (i,)).fetchone() for i in ids)
        return sum(len(row[0]) for row in found if row)

    def scan_descriptors(self) -> int:
        return sum(len(row[0]) for row in self.db.execute("SELECT record FROM descriptors ORDER BY id"))

    def begin_read(self) -> object:
        self.db.execute("BEGIN")
        return self.db.execute("SELECT record FROM tokens LIMIT 1").fetchone()

    def compact(self) -> None:
        self.db.execute("VACUUM")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self.db.close()


class Sqlite16k(Sqlite):
    page_size = 16384


class Segments:
    """Append-only data and append-only index (id, table, offset, length); a deletion is an entry of length 0.

    Commit: sync the data, then append to the index and sync it. Nothing is reused until compact() rewrites all.
    """

    entry = struct.Struct(">qBqq")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self.data = os.open(self.folder / "segment", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.log = os.open(self.folder / "index", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.where: dict[tuple[int, int], tuple[int, int]] = {}
        for content_id, table, offset, length in self.entry.iter_unpack((self.folder / "index").read_bytes()):
            self._remember(content_id, table, offset, length)

    def _remember(self, content_id: int, table: int, offset: int, length: int) -> None:
        if length:
            self.where[content_id, table] = offset, length
        else:
            self.where.pop((content_id, table), None)

    def _commit(self, entries: list[tuple[int, int, int, int]]) -> None:
        os.write(self.log, b"".join(self.entry.pack(*entry) for entry in entries))
        os.fdatasync(self.log)
        for entry in entries:
            self._remember(*entry)

    def put(self, batch: Sequence[Row]) -> None:
        offset, entries = os.fstat(self.data).st_size, []
        for row in batch:
            for table, payload in enumerate((row.descriptor, row.tokens)):
                record = framed(row, payload)
                os.write(self.data, record)
                entries.append((row.content_id, table, offset, len(record)))
                offset += len(record)
        os.fdatasync(self.data)
        self._commit(entries)

    def delete(self, ids: Sequence[int]) -> None:
        self._commit([(content_id, table, 0, 0) for content_id in ids for table in (0, 1)])

    def _read(self, content_id: int, table: int) -> bytes:
        offset, length = self.where[content_id, table]
        return os.pread(self.data, length, offset)

    def read_tokens(self, ids: Sequence[int]) -> int:
        return sum(len(self._read(content_id, 1)) for content_id in ids)

    def scan_descriptors(self) -> int:
        return sum(len(self._read(content_id, table)) for content_id, table in self.where if table == 0)

    def begin_read(self) -> object:
        return self._read(0, 1)

    def compact(self) -> None:
        entries, offset = [], 0
        with open(self.folder / "segment.new", "wb") as out:
            for (content_id, table), (_, length) in self.where.items():
                out.write(self._read(content_id, table))
                entries.append(self.entry.pack(content_id, table, offset, length))
                offset += length
            out.flush()
            os.fsync(out.fileno())
        (self.folder / "index.new").write_bytes(b"".join(entries))
        self.close()
        os.replace(self.folder / "segment.new", self.folder / "segment")
        os.replace(self.folder / "index.new", self.folder / "index")
        self._open()

    def close(self) -> None:
        os.close(self.data)
        os.close(self.log)


class Ours:
    """FeatureStore itself: LMDB with hash, checksum, growth of the map and retries."""

    held: lmdb.Transaction | None = None

    def __init__(self, folder: Path) -> None:
        self.store = FeatureStore(folder / "shard", readonly=False)

    def put(self, batch: Sequence[Row]) -> None:
        self.store.put(
            StoredRecord(row.content_id, row.sha256, np.frombuffer(row.descriptor, np.float16), row.tokens)
            for row in batch
        )

    def delete(self, ids: Sequence[int]) -> None:
        self.store.delete(ids)

    def read_tokens(self, ids: Sequence[int]) -> int:
        wanted = {content_id: sha256(content_id.to_bytes(8, "big")).digest() for content_id in ids}
        return sum(len(tokens) for _, tokens in self.store.tokens(wanted))

    def scan_descriptors(self) -> int:
        ids = self.store.ids().tolist()
        wanted = {content_id: sha256(content_id.to_bytes(8, "big")).digest() for content_id in ids}
        return int(self.store.descriptors(wanted)[1].nbytes)

    def begin_read(self) -> object:
        self.store.close()  # a transaction held open is not something that a FeatureStore can do
        self.held = lmdb.open(str(self.store.folder), readonly=True, max_dbs=2).begin()
        return self.held

    def compact(self) -> None:
        self.store.compact()

    def close(self) -> None:
        if self.held is not None:
            self.held.abort()
        self.store.close()


Store = Lmdb | Sqlite | Segments | Ours
STORES: dict[str, type[Store]] = {
    "LMDB": Lmdb,
    "LMDB no readahead": LmdbNoReadahead,
    "SQLite 4K": Sqlite,
    "SQLite 16K": Sqlite16k,
    "segments": Segments,
    "FeatureStore": Ours,
}


def disk_bytes(folder: Path) -> int:
    """Blocks in use, so that a sparse file does not count for its length."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def forget_cache(folder: Path) -> None:
    """Ask the kernel to drop the files' pages; nothing may have them mapped."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def timed_put(store: Store, size: Size, ids: Sequence[int]) -> float:
    """MB/s of payload in synced commits of a batch each; making the records is not counted."""
    spent = 0.0
    for start in range(0, len(ids), BATCH):
        batch = rows(size, ids[start : start + BATCH])
        spent += seconds(partial(store.put, batch))
    return len(ids) * (size.descriptor + size.tokens) / spent / 1e6


def measure(make: type[Store], size: Size, folder: Path) -> dict[str, float]:
    """One store through the whole life of its records: figures by name."""
    figures: dict[str, float] = {}
    chance = random.Random(1)
    live = list(range(size.count))

    def disk_over_payload() -> float:
        return disk_bytes(folder) / (len(live) * (size.descriptor + size.tokens))

    store = make(folder)
    figures["synced write, MB/s"] = timed_put(store, size, live)
    store.close()
    figures["disk / payload"] = disk_over_payload()

    chosen = chance.sample(live, min(READS, size.count))
    for what, work in (
        (f"{len(chosen)} tokens", lambda opened: opened.read_tokens(chosen)),
        ("all descriptors", lambda opened: opened.scan_descriptors()),
    ):
        forget_cache(folder)
        store = make(folder)
        figures[f"{what} cold, ms"] = 1e3 * seconds(partial(work, store))
        figures[f"{what} warm, ms"] = 1e3 * min(seconds(partial(work, store)) for _ in range(3))
        store.close()

    store = make(folder)
    for cycle in range(1, 6):
        gone = set(chance.sample(live, round(0.3 * size.count)))
        for start in range(0, len(gone), BATCH):
            store.delete(sorted(gone)[start : start + BATCH])
        fresh = list(range(live[-1] + 1, live[-1] + 1 + len(gone)))
        live = [content_id for content_id in live if content_id not in gone] + fresh
        rate = timed_put(store, size, fresh)
        if cycle in (1, 5):
            store.close()
            figures[f"after {cycle} x (-30 % +30 %): disk / payload"] = disk_over_payload()
            figures[f"after {cycle} x (-30 % +30 %): write, MB/s"] = rate
            store = make(folder)

    gone = set(chance.sample(live, round(0.3 * size.count)))
    store.delete(sorted(gone))
    store.close()
    live = [content_id for content_id in live if content_id not in gone]
    figures["then -30 %: disk / payload"] = disk_over_payload()
    store = make(folder)
    figures["compact, s"] = seconds(store.compact)
    store.close()
    figures["compacted: disk / payload"] = disk_over_payload()
    return figures


def grown_by_overwriting(make: type[Store], size: Size, folder: Path, *, kill: bool) -> float:
    """Disk over payload after overwriting 64 records five times; a reader's transaction ended before, or its process
    was killed with the transaction open."""
    ids = list(range(64))
    store = make(folder)
    timed_put(store, size, ids)
    store.close()
    told, tell = os.pipe()
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        reader = make(folder)
        reader.begin_read()
        os.write(tell, b"x")
        os.read(hold, 1)
        reader.close()
        os._exit(0)
    os.read(told, 1)
    store = make(folder)  # before the reader dies: the first to open a store alone would clean up after it
    os.kill(child, signal.SIGKILL if kill else signal.SIGCONT)
    if not kill:
        os.write(release, b"x")
    os.waitpid(child, 0)
    for _ in range(5):
        timed_put(store, size, ids)
    store.close()
    for end in (told, tell, hold, release):
        os.close(end)
    return disk_bytes(folder) / (len(ids) * (size.descriptor + size.tokens))


def in_scratch(parent: Path, work: Callable[[Path], T]) -> T:
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        return work(folder)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for scratch files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=6000, help="at most so many of each size")
    options = parser.parse_args()
    names = list(STORES)
    for size in (replace(size, count=min(size.count, options.records)) for size in SIZES):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(options.rounds):
            for name in names[turn:] + names[:turn]:
                figures = in_scratch(options.folder, partial(measure, STORES[name], size))
                for kill in (False, True):
                    work = partial(grown_by_overwriting, STORES[name], size, kill=kill)
                    what = "reader killed: " if kill else ""
                    figures[f"{what}overwritten 5 x: disk / payload"] = in_scratch(options.folder, work)
                runs[name].append(figures)
        print(f"\n{size.name}: {size.count} records of {size.descriptor} + {size.tokens} bytes\n")
        print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
        for what in runs["LMDB"][0]:
            medians = [statistics.median(run[what] for run in runs[name]) for name in names]
            cells = [f"{median:.3g} ({median / medians[0]:.2f})" for median in medians]
            print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
