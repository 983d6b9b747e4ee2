"""The index on disk: what lies where in its folder, and who may write.

INDEX/
  index.toml                     format version, catalog URL
  catalog.sqlite                 the truth
  writer.lock, writer.json       held by, and telling of, the one process that writes
  thumbnails/<2 digits>/         small pictures by content hash, made for the page (a cache)
  spaces/<fingerprint>/
    space.json, space.safetensors    the space's record and kit
    shards/0000/, 0001/, ...     one folder for each shard; the same picture is in the same shard of every space
      data.mdb, lock.mdb         descriptors and token records
      recall-<digest>.faiss, .npy    a cache over the descriptors, see retrieval/shard/snapshot.py
"""

import fcntl
import json
import os
import socket
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from diffsim.db.catalog import Catalog
from diffsim.retrieval.durable import put_in_place
from diffsim.retrieval.shard.store import FeatureStore

from .errors import IndexerError

FORMAT = 1
_LOCK = "writer.lock"
_CATALOG_FILE = "catalog.sqlite"


class NoIndex(IndexerError):
    """There is no index in this folder."""


class IndexTooNew(IndexerError):
    """A newer program wrote the index."""


class IndexBusy(IndexerError):
    """Another process is writing to the index."""


@dataclass(frozen=True)
class IndexFolder:
    """One index. catalog_url: a relative SQLite path is meant inside the folder."""

    path: Path
    catalog_url: str

    @classmethod
    def open(cls, path: Path) -> "IndexFolder":
        """Raises NoIndex or IndexTooNew."""
        try:
            settings = tomllib.loads((path / "index.toml").read_text(encoding="utf-8"))
            version, url = int(settings["format"]), str(settings["catalog"])
        except (FileNotFoundError, NotADirectoryError):
            raise NoIndex(
                f"There is no index in {path}; make one with `diffsim index FOLDER`, or name another with --index DIR."
            ) from None
        except (ValueError, KeyError, TypeError) as problem:
            raise NoIndex(
                f"{path / 'index.toml'} cannot be understood ({problem}); restore it from a backup."
            ) from problem
        if version > FORMAT:
            raise IndexTooNew(
                f"The index in {path} has format {version} and this program knows formats up to {FORMAT}; "
                "update diffsim-search."
            )
        return cls(path, url)

    @classmethod
    def create(cls, path: Path) -> "IndexFolder":
        """Open the index, or begin an empty one in a new or empty folder; raises NoIndex for any other folder."""
        if not (path / "index.toml").exists():
            path.mkdir(parents=True, exist_ok=True)
            _check_empty(path)
            part = path / "index.toml.part"
            part.write_text(f'format = {FORMAT}\ncatalog = "sqlite:///{_CATALOG_FILE}"\n', encoding="utf-8")
            put_in_place(part, path / "index.toml")
        return cls.open(path)

    @classmethod
    @contextmanager
    def begin(cls, path: Path) -> Iterator["IndexFolder"]:
        """The index to fill, begun as by `create` where there is none. Of one that is begun here nothing stays if it
        cannot be filled: if an error passes before it holds a folder or a feature space."""
        begins, makes_folder = not (path / "index.toml").exists(), not path.exists()
        index = cls.create(path)
        try:
            yield index
        except BaseException:
            if begins:
                index._remove_blank(makes_folder)
            raise

    def _remove_blank(self, folder_too: bool) -> None:
        with suppress(IndexBusy), self.writing():
            if (self.path / _CATALOG_FILE).exists():
                with self.catalog() as catalog:
                    if catalog.spaces() or catalog.roots():
                        return
            if self.space("").exists():
                return
            for name in (_CATALOG_FILE, "writer.json", "index.toml", _LOCK):
                (self.path / name).unlink(missing_ok=True)
        if folder_too:
            with suppress(OSError):
                self.path.rmdir()

    @classmethod
    @contextmanager
    def trial(cls, path: Path) -> Iterator["IndexFolder"]:
        """The index at `path`, or a new one where there is none, to try a run on: a copy of its catalog and links to
        its feature spaces, of which nothing is kept. Raises as `create`, and as `Catalog.copy`."""
        with tempfile.TemporaryDirectory(prefix="diffsim-trial-") as name:
            copy = cls.create(Path(name) / "index")
            if (path / "index.toml").exists():
                Catalog.copy(cls.open(path)._catalog_place, copy.path / _CATALOG_FILE)
                with copy.catalog(create=True) as catalog:
                    copy.space("").mkdir()
                    for space in catalog.spaces():
                        known = copy.space(space.fingerprint)
                        known.symlink_to((path / "spaces" / space.fingerprint).absolute(), target_is_directory=True)
            elif path.is_dir():
                _check_empty(path)
            yield copy

    def catalog(self, *, create: bool = False, readonly: bool = False) -> Catalog:
        return Catalog.open(self._catalog_place, create=create, readonly=readonly)

    @property
    def _catalog_place(self) -> Path | str:
        prefix = "sqlite:///"
        local = self.catalog_url.startswith(prefix) and not Path(self.catalog_url.removeprefix(prefix)).is_absolute()
        return self.path / self.catalog_url.removeprefix(prefix) if local else self.catalog_url

    def space(self, fingerprint: str) -> Path:
        return self.path / "spaces" / fingerprint

    @property
    def thumbnails(self) -> Path:
        return self.path / "thumbnails"

    def disk_bytes(self) -> int:
        """What the folder takes; files that come and go while another process writes do not matter."""
        return _disk_bytes(self.path)

    def shards(self, fingerprint: str) -> Path:
        """The folder of the shards of a space."""
        return self.space(fingerprint) / "shards"

    def shard(self, fingerprint: str, number: int) -> Path:
        """The folder of one shard of a space. There is none until a picture of the shard is extracted."""
        return self.shards(fingerprint) / f"{number:04d}"

    def store(self, fingerprint: str, shard: int, *, readonly: bool) -> FeatureStore:
        """The features of one shard of a space; raises as FeatureStore does."""
        return FeatureStore(self.shard(fingerprint, shard), readonly=readonly)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer; raises IndexBusy, which says who is. The lock ends with the process, however it ends."""
        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise IndexBusy(
                f"The index in {self.path} is being written by {self.writer()}; try again when it is done."
            ) from None
        try:
            writer = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            (self.path / "writer.json").write_text(json.dumps(writer), encoding="utf-8")
            yield
        finally:
            lock.release()

    def being_written(self) -> str | None:
        """Who is writing to the index now, in words; None if nobody is."""
        try:
            with open(self.path / _LOCK, "rb") as lock:
                # Held for a moment, in which a writer that begins just then is refused.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self.writer()
        except OSError:
            pass  # nobody has written yet, or the lock cannot be read
        return None

    def writer(self) -> str:
        """Who writes to the index, or was the last who did, in words."""
        try:
            writer = json.loads((self.path / "writer.json").read_text(encoding="utf-8"))
            return f"process {writer['pid']} on {writer['host']} since {writer['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"


def is_index(folder: bytes) -> bool:
    """Whether a folder holds an index, this program's or an older one's."""
    there = os.path.join(folder, b"index.toml")
    beside = (b"spaces", os.fsencode(_CATALOG_FILE), b"writer.json")
    return os.path.lexists(there) and any(os.path.lexists(os.path.join(folder, name)) for name in beside)


def index_around(folder: bytes) -> bytes | None:
    """The index that a folder (absolute) holds, or to whose own files it belongs; pictures may lie beside those."""
    if is_index(folder):
        return folder
    parts = folder.split(b"/")
    owned = (b"/".join(parts[:n]) for n, name in enumerate(parts) if name in (b"spaces", b"thumbnails"))
    return next(filter(is_index, owned), None)


def _check_empty(path: Path) -> None:
    if any(entry.name != "index.toml.part" for entry in path.iterdir()):
        raise NoIndex(f"The folder {path} is not empty and holds no index; give an empty or new one with --index DIR.")


def _disk_bytes(folder: str | Path) -> int:
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    total += _disk_bytes(entry.path)
    return total
