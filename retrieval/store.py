"""The feature store: a shard's descriptors and tokens, two tables in one LMDB environment, keyed by content id.

Why LMDB, measured against SQLite and append-only segments: docs/stores.md. A record is the SHA-256 of the
picture's bytes (32 bytes), the CRC-32 of the payload (4 bytes, big-endian) and the payload. A record under another
hash than the catalog names is an orphan (of an interrupted run, of a picture that changed): it is never returned,
and overwritten later.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import lmdb
import numpy as np

from .durable import sync
from .errors import RetrievalError

T = TypeVar("T")

_HASH_BYTES = 32
_HEADER_BYTES = _HASH_BYTES + 4
_FIRST_MAP_BYTES = 1 << 30  # address space, not disk; doubled whenever it is full
# Records per read transaction. Short ones, because the writer cannot reuse pages while somebody may be reading them.
_DESCRIPTORS_AT_ONCE = 512
_TOKENS_AT_ONCE = 16
_CUT_SHORT_BYTES = 1 << 20  # LMDB may leave some unused last pages unwritten; if more is missing, the file is damaged
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EIO)  # LMDB says EIO when only a part fitted
_MEND = "run `diffsim verify`, which queues its pictures again, and then `diffsim index`, which extracts them"


class StoreMissing(RetrievalError):
    """A read-only store was asked for where none was ever written."""


class StoreFull(RetrievalError):
    """The disk took no more (or the process has no address space left); what was committed before is intact."""


class StoreDamaged(RetrievalError):
    """LMDB cannot make sense of the file."""


@dataclass(frozen=True)
class Record:
    content_id: int  # >= 0
    sha256: bytes  # [32], of the picture's bytes
    descriptor: np.ndarray  # float16 [D]
    tokens: bytes


class FeatureStore:
    """One shard folder, such as `spaces/<fingerprint>/shards/0000`.

    Any number of readers beside one writer, in this process or in others; threads may share a store. A forked child
    opens its own. `readonly=True` creates no file and works where nothing can be written. Raises StoreMissing,
    StoreDamaged, or StoreFull where a writer finds no room for the first page.
    """

    def __init__(self, folder: Path, *, readonly: bool) -> None:
        self.folder = folder
        self.readonly = readonly
        self._environment: _Environment | None = _Environment.acquire(folder, writable=not readonly)

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
        # By id, because LMDB fills pages well in key order; of two records with one id the last counts.
        batch = [record for _, record in sorted({record.content_id: record for record in records}.items())]
        for record in batch:
            if len(record.sha256) != _HASH_BYTES:
                raise ValueError(f"sha256 of content {record.content_id} has {len(record.sha256)} bytes, not 32")
            if record.descriptor.dtype != np.float16 or record.descriptor.ndim != 1:
                found = f"{record.descriptor.dtype} {list(record.descriptor.shape)}"
                raise ValueError(f"descriptor of content {record.content_id} is {found}, not float16 [D]")
        if batch:
            environment.run(partial(self._put, batch), write=True)

    def _put(self, batch: list[Record], txn: lmdb.Transaction) -> None:
        with txn.cursor(self._live.descriptors) as cursor:
            width = len(cursor.value()) - _HEADER_BYTES if cursor.first() else batch[0].descriptor.nbytes
        for record in batch:
            if record.descriptor.nbytes != width:
                raise ValueError(
                    f"descriptor of content {record.content_id} has {len(record.descriptor)} numbers, "
                    f"others in {self.folder} have {width // 2}"
                )
            value = _frame(record.sha256, record.descriptor.tobytes())
            txn.put(_key(record.content_id), value, db=self._live.descriptors)
        # After all descriptors, so that these lie side by side in the file and a cold scan of them reads few tokens.
        for record in batch:
            txn.put(_key(record.content_id), _frame(record.sha256, record.tokens), db=self._live.tokens)

    def delete(self, ids: Iterable[int]) -> None:
        """Forget these ids, all or none; ids that are not stored are passed over. Raises StoreFull."""
        self._writable.run(partial(self._delete, [_key(content_id) for content_id in ids]), write=True)

    def _delete(self, keys: list[bytes], txn: lmdb.Transaction) -> None:
        for key in keys:
            txn.delete(key, db=self._live.descriptors)
            txn.delete(key, db=self._live.tokens)

    def descriptors(self, wanted: Mapping[int, bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [n], ascending, and descriptors float16 [n, D], of those of `wanted` (id -> SHA-256) that are
        stored under that hash and undamaged. D is 0 where there is none."""
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
                # Of a page that was reused while we read (`overtaken`) the key may be anything.
                if _is_sound(view, wanted.get(content_id, b"")):
                    ids.append(content_id)
                    rows.append(view[_HEADER_BYTES:])
            return ids, b"".join(rows)

    def tokens(self, wanted: Mapping[int, bytes]) -> Iterator[tuple[int, memoryview]]:
        """(id, token record) in the order of `wanted`, by the same rule as `descriptors`.

        A view is on a copy of its own and stays valid; copies are made 16 at a time.
        """
        ordered = iter(wanted)
        while chunk := list(islice(ordered, _TOKENS_AT_ONCE)):
            for content_id, value in self._live.run(partial(self._copies, chunk)):
                view = memoryview(value)
                if _is_sound(view, wanted[content_id]):
                    yield content_id, view[_HEADER_BYTES:]

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
        """Give the disk back what deletions freed, where that is more than a quarter of the file; says whether it did.

        Needs room for a copy of what is left. Readers in other processes move over to the new file by themselves.
        Raises StoreFull, with the store as it was.
        """
        return self._writable.compact()

    @property
    def _live(self) -> _Environment:
        if self._environment is None:
            raise ValueError(f"the feature store {self.folder} is closed")
        return self._environment

    @property
    def _writable(self) -> _Environment:
        if self.readonly:
            raise ValueError(f"the feature store {self.folder} was opened read-only")
        return self._live


def _key(content_id: int) -> bytes:
    return int(content_id).to_bytes(8, "big")


def _frame(sha256: bytes, payload: bytes) -> bytes:
    return b"".join((sha256, zlib.crc32(payload).to_bytes(4, "big"), payload))


def _is_sound(value: memoryview, sha256: bytes) -> bool:
    if len(value) < _HEADER_BYTES or value[:_HASH_BYTES] != sha256:
        return False
    return zlib.crc32(value[_HEADER_BYTES:]) == int.from_bytes(value[_HASH_BYTES:_HEADER_BYTES], "big")


# One environment per process and folder. The process id is part of the key: a forked child must open its own.
_environments: dict[tuple[int, str], _Environment] = {}
_environments_lock = threading.Lock()


class _Replaced(Exception):
    """Another process put a compacted file in the place of ours."""


class _Environment:
    """The process's one handle on a shard, shared by all its stores on that folder, because LMDB must not open a file
    twice in one process. It turns writable when the first of them wants to write."""

    @classmethod
    def acquire(cls, folder: Path, *, writable: bool) -> _Environment:
        name = os.getpid(), os.path.realpath(folder)
        with _environments_lock:
            shared = _environments.get(name)
            if shared is None:
                shared = _environments[name] = cls(folder, name, writable=writable)
            elif writable and not shared.writable:
                with shared.lock:
                    shared.open(writable=True)
            shared.users += 1
            return shared

    def release(self) -> None:
        with _environments_lock:
            self.users -= 1
            if self.users == 0:
                del _environments[self.name]
                with self.lock:
                    self.close()

    def __init__(self, folder: Path, name: tuple[int, str], *, writable: bool) -> None:
        self.folder = folder
        self.data_path = folder / "data.mdb"
        self.lock_path = folder / "lock.mdb"
        self.name = name
        self.users = 0
        self.lock = threading.RLock()  # the map must not grow, nor the file be replaced, under an open transaction
        self.env: lmdb.Environment | None = None
        self.guard: int | None = None  # the open folder
        self.open(writable=writable)

    def open(self, *, writable: bool) -> None:
        self.close()
        try:
            if not writable and not self.data_path.is_file():
                raise StoreMissing(f"There is no feature store in {self.folder}; {_MEND}.")
            new_folders = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
            if writable:
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(self.folder / "compact", ignore_errors=True)  # left by an interrupted compact()
            # Where it may write there, a reader enters itself in the lock file, and the writer spares the pages it
            # reads. It never creates that file; how it manages without one: `guarded`.
            self.locked = writable or (self.lock_path.is_file() and os.access(self.lock_path, os.W_OK))
            self.guard = os.open(self.folder, os.O_RDONLY)
            with self.guarded():
                self.env = lmdb.open(
                    str(self.folder),
                    map_size=_FIRST_MAP_BYTES if writable else 0,  # 0: as large as the file asks for
                    max_dbs=2,
                    readonly=not writable,
                    create=False,
                    lock=self.locked,
                    mode=0o644,
                )
                self.descriptors = self.env.open_db(b"descriptors", create=writable)
                self.tokens = self.env.open_db(b"tokens", create=writable)
            for folder in new_folders:
                sync(folder)
                sync(folder.parent)
        except lmdb.NotFoundError:
            self.close()
            raise StoreMissing(f"The feature store in {self.folder} is empty; {_MEND}.") from None
        except (lmdb.Error, OSError) as error:
            self.close()
            raise self.named(error) from error
        self.writable = writable
        self.identity = self.identify()
        used = self.used_bytes(self.env)  # before the size: a writer may be appending
        size = self.data_path.stat().st_size
        if size + _CUT_SHORT_BYTES < used:  # reading past the end of a mapped file would kill the process
            self.close()
            raise StoreDamaged(
                f"The feature store {self.data_path} has {size} of its {used} bytes, perhaps because a copy was "
                "interrupted; copy it again, or delete that folder and run `diffsim index`."
            )

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
        if self.guard is not None:
            os.close(self.guard)
            self.guard = None

    def run(self, work: Callable[[lmdb.Transaction], T], *, write: bool = False) -> T:
        """What `work` returns from one transaction. It may run several times and must not return views of the map."""
        with self.lock:
            while True:
                if self.env is None or self.identify() != self.identity:
                    self.open(writable=self.writable)
                    continue
                snapshot = self.env.info()["last_txnid"]
                try:
                    if write:
                        self.env.reader_check()  # else a killed reader's entry keeps pages from reuse for ever
                        self.await_readers()
                    with self.guarded(), self.env.begin(write=write, buffers=True) as txn:
                        if write and self.identify() != self.identity:  # compacted while we waited for our turn
                            raise _Replaced
                        result = work(txn)
                    if not self.overtaken(self.env, snapshot):
                        return result
                except _Replaced:
                    continue
                except lmdb.MapFullError:
                    self.resize(self.env, 2 * self.env.info()["map_size"])
                except lmdb.MapResizedError:
                    self.resize(self.env, 0)
                except lmdb.Error as error:
                    if not self.overtaken(self.env, snapshot):
                        raise self.named(error) from error

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Without the lock file, a reader holds a shared flock on the folder while it reads: that writes nothing."""
        assert self.guard is not None
        if self.locked:
            yield
            return
        with suppress(OSError):  # a file system without flock: `overtaken` is all that is left
            fcntl.flock(self.guard, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self.guard, fcntl.LOCK_UN)

    def await_readers(self) -> None:
        """Before a commit, wait for the readers without lock file that began before the last one. LMDB keeps the pages
        of a snapshot through the next commit, so none of them ever sees a page reused; reading one that is can crash
        the reader. A reader that stands still in its transaction is waited for a second at most."""
        assert self.guard is not None
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            try:
                fcntl.flock(self.guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self.guard, fcntl.LOCK_UN)
                return
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                return

    def overtaken(self, env: lmdb.Environment, snapshot: int) -> bool:
        """Whether pages of transaction number `snapshot` may have been reused all the same while they were read."""
        return not self.locked and env.info()["last_txnid"] > snapshot + 1

    def compact(self) -> bool:
        with self.lock:
            live_pages = self.run(self.live_pages)
            env = self.env
            assert env is not None
            if live_pages * env.stat()["psize"] > 0.75 * self.used_bytes(env):
                return False
            sibling = self.folder / "compact"
            try:
                sibling.mkdir()
                with env.begin(write=True):  # nobody else commits between the copy and the rename
                    env.copy(str(sibling), compact=True)
                    shutil.copymode(self.data_path, sibling / "data.mdb")
                    sync(sibling / "data.mdb")
                    # The lock file holds the old data's transaction number and would mislead readers of the new.
                    self.lock_path.unlink()
                    os.replace(sibling / "data.mdb", self.data_path)
                    sync(self.folder)
            except (lmdb.Error, OSError) as error:
                raise self.named(error) from error
            finally:
                shutil.rmtree(sibling, ignore_errors=True)
            self.open(writable=True)
            return True

    def live_pages(self, txn: lmdb.Transaction) -> int:
        tables = (txn.stat(self.descriptors), txn.stat(self.tokens))
        return sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in tables)

    def used_bytes(self, env: lmdb.Environment) -> int:
        return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])

    def identify(self) -> list[tuple[int, int] | None]:
        """Which data file and which lock file stand in the folder now."""
        found: list[tuple[int, int] | None] = []
        for path in (self.data_path, self.lock_path):
            try:
                status = path.stat()
                found.append((status.st_dev, status.st_ino))
            except OSError:
                found.append(None)
        return found

    def resize(self, env: lmdb.Environment, map_size: int) -> None:
        try:
            env.set_mapsize(map_size)
        except lmdb.Error as error:
            self.close()  # without a map it is of no use; the next call opens it again
            raise self.named(error) from error

    def named(self, error: lmdb.Error | OSError) -> RetrievalError:
        code = error.errno if isinstance(error, OSError) else error.code
        if code in _FULL:
            free = shutil.disk_usage(next(folder for folder in self.folder.absolute().parents if folder.exists())).free
            return StoreFull(
                f"The feature store {self.folder} could not be written ({error}; {free / 1e6:.0f} MB free there); "
                "make room and run the same command again: what was stored before is intact."
            )
        if code is not None and code > 0:  # the system's errors are positive, LMDB's own negative
            return RetrievalError(f"The feature store {self.folder} cannot be used ({error}); check that folder.")
        return StoreDamaged(
            f"The feature store {self.data_path} cannot be read ({error}); restore it from a copy, or delete that "
            "folder and run `diffsim index`."
        )
