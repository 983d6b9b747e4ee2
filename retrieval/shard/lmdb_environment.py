"""A shard's LMDB environment: opened once per process, grown when full, compacted, guarded against its readers.

What LMDB requires of its users, and the reason for each guard: docs/stores.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import lmdb

from ..durable import sync
from ..errors import RetrievalError
from .lmdb_file import LmdbFile, NotLmdb

T = TypeVar("T")

_FIRST_MAP_BYTES = 1 << 30  # address space, not disk; doubled whenever it is full
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EIO)  # LMDB reports EIO when only a part fitted
_MEND = "run `diffsim verify`, which keeps what can be read, and then `diffsim index`, which extracts the rest"


class StoreMissing(RetrievalError):
    """A store was opened read-only, but none was ever written there."""


class StoreFull(RetrievalError):
    """The disk is full (or the process has no address space left); what was committed before is intact."""


class StoreDamaged(RetrievalError):
    """LMDB cannot read the file."""


class _Replaced(Exception):
    """Another process replaced our file with a compacted one."""


class Environment:
    """The process's only handle on a shard, shared by all its stores on that folder, because LMDB must not open a file
    twice in one process. It becomes writable when the first of them needs to write."""

    @classmethod
    def acquire(cls, folder: Path, *, writable: bool) -> Environment:
        name = os.path.realpath(folder)
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

    def __init__(self, folder: Path, name: str, *, writable: bool) -> None:
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
            if not writable and not self.data_path.stat().st_size:
                raise StoreMissing(f"The feature store in {self.folder} is empty; {_MEND}.")
            new_folders = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
            if writable:
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(self.folder / "compact", ignore_errors=True)  # left by an interrupted compact()
            # If it may write there, a reader registers in the lock file, and the writer spares the pages it reads.
            # It never creates that file; `guarded` is for readers without one.
            self.locked = writable or (self.lock_path.is_file() and os.access(self.lock_path, os.W_OK))
            self.guard = os.open(self.folder, os.O_RDONLY)
            with self.guarded():
                self.check_length()
                self.env = lmdb.open(
                    str(self.folder),
                    map_size=_FIRST_MAP_BYTES if writable else 0,  # 0: as large as the file requires
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
        except StoreDamaged:
            self.close()
            raise
        except lmdb.NotFoundError:
            self.close()
            raise StoreMissing(f"The feature store in {self.folder} is empty; {_MEND}.") from None
        except (lmdb.Error, OSError) as error:
            self.close()
            raise self.named(error) from error
        self.writable = writable
        self.identity = self.identify()

    def check_length(self) -> None:
        """Refuse a file that was cut short: reading past the end of a mapped file would kill the process."""
        if not self.data_path.is_file() or not self.data_path.stat().st_size:
            return
        try:
            with LmdbFile(self.data_path) as file:
                if file.size >= file.used or file.is_whole():
                    return
                fault = f"it has {file.size} of its {file.used} bytes, perhaps because a copy was interrupted"
        except NotLmdb as problem:
            fault = str(problem)
        raise self.damaged(fault)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
        if self.guard is not None:
            os.close(self.guard)
            self.guard = None

    def run(self, work: Callable[[lmdb.Transaction], T], *, write: bool = False) -> T:
        """Run `work` in one transaction and return its result. It may run several times and must not return views of
        the map."""
        with self.lock:
            while True:
                if self.env is None or self.identify() != self.identity:
                    if self.env is not None and not self.data_path.exists():
                        raise StoreMissing(f"The feature store in {self.folder} was deleted meanwhile; {_MEND}.")
                    self.open(writable=self.writable)
                    continue
                snapshot = self.env.info()["last_txnid"]
                try:
                    if write:
                        self.env.reader_check()  # else a killed reader's entry prevents the reuse of pages for ever
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
        with suppress(OSError):  # a file system without flock: only `overtaken` is left
            fcntl.flock(self.guard, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self.guard, fcntl.LOCK_UN)

    def await_readers(self) -> None:
        """Before a commit, wait for the readers without lock file that began before the last one. LMDB keeps the pages
        of a snapshot through the next commit, so none of them ever sees a reused page; reading one can crash the
        reader. Waits at most a second for a reader that is stuck in its transaction."""
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
        """Whether pages of transaction number `snapshot` may nevertheless have been reused while they were read."""
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
                with env.begin(write=True):  # prevents commits between the copy and the rename
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
        """Identify the data file and the lock file that are in the folder now."""
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
            self.close()  # useless without a map; the next call opens it again
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
        return self.damaged(str(error))

    def damaged(self, fault: str) -> StoreDamaged:
        return StoreDamaged(f"The feature store {self.data_path} cannot be read ({fault}); {_MEND}.")


_environments: dict[str, Environment] = {}  # by real path of the folder
_environments_lock = threading.Lock()


def _before_fork() -> None:
    """Close everything, between two transactions. A child must not touch an environment that it inherited: it shares
    its lock-file entries with the parent, and LMDB refuses to open the file again beside it. Both reopen it in `run`.
    """
    _environments_lock.acquire()
    for environment in _environments.values():
        environment.lock.acquire()
        environment.close()


def _after_fork() -> None:
    for environment in _environments.values():
        environment.lock.release()
    _environments_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
