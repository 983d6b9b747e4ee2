"""The index on disk: what lies where in its folder, and who may write.

INDEX/
  index.toml                     format version, catalog URL; with a catalog on a server also the index's identity,
                                 and the Ray cluster, if one is used
  catalog.sqlite                 the truth, unless it is on a server
  writer.lock, writer.json       held by, and telling of, the one process that writes
  thumbnails/<2 digits>/         small pictures by content hash, made for the page (a cache)
  sketches/0000/, 0001/, ...     what copies are recognised by, for each shard, see retrieval/copies/sketch.py
  spaces/<fingerprint>/
    space.json, space.safetensors    the space's record and kit
    shards/0000/, 0001/, ...     one folder for each shard; the same picture is in the same shard of every space
      data.mdb, lock.mdb         descriptors and token records
      recall-<digest>.faiss, .npy    a cache over the descriptors, see retrieval/shard/snapshot.py
"""

import fcntl
import json
import os
import re
import socket
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from diffsim.db.catalog import Catalog, check_free
from diffsim.db.database import CatalogUnavailable, NoCatalog
from diffsim.db.postgres import BadAddress, CatalogBusy, server_address
from diffsim.retrieval.durable import put_in_place
from diffsim.retrieval.regular_files import open_regular
from diffsim.retrieval.shard.store import FeatureStore

from .errors import IndexerError

FORMAT = 1
_LOCK = "writer.lock"
_CATALOG_FILE = "catalog.sqlite"
_CATALOG_LINE = f'catalog = "sqlite:///{_CATALOG_FILE}"'
_IN_THE_FOLDER = re.compile(r"sqlite:///([^/\\?#%:]+)")
_FINGERPRINT = re.compile("[0-9a-f]{12}")
_CLUSTER = re.compile(r"auto|local|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class NoIndex(IndexerError):
    """There is no index in this folder."""


class IndexTooNew(IndexerError):
    """A newer program wrote the index."""


class IndexBusy(IndexerError):
    """Another process is writing to the index."""


class BadCluster(IndexerError, ValueError):
    """This is not the address of a Ray cluster."""


class IndexGone(IndexerError):
    """The folder of the index was deleted or replaced while this process wrote to it."""


class OtherCatalog(IndexerError):
    """The index has its catalog elsewhere than was asked."""


class IndexAltered(IndexerError):
    """The index holds what no run of this program put there: a link, a pipe, an impossible name."""


@dataclass(frozen=True)
class IndexFolder:
    """One index. catalog_url: a relative SQLite path is meant inside the folder; without a password. identity: what a
    catalog on a server knows it by. cluster: of Ray, over which the shards are asked: `auto` for the one that runs on
    this machine, `local` for one that lasts as long as the process that asks, or HOST:PORT of its head; None to ask in
    this process."""

    path: Path
    catalog_url: str
    identity: str | None = None
    cluster: str | None = None

    @classmethod
    def open(cls, path: Path) -> "IndexFolder":
        """Raises NoIndex, IndexTooNew or IndexAltered."""
        try:
            _check_plain(path)
            with open_regular(path / "index.toml") as file:
                settings = tomllib.load(file)
            version, url = int(settings["format"]), str(settings["catalog"])
            identity = None
            if url.startswith("postgres"):
                url, identity = server_address(url), str(settings["identity"])
            elif not _IN_THE_FOLDER.fullmatch(url):
                raise ValueError("another catalog than this program makes")
            if version < 1:
                raise ValueError(f"format {version}")
            cluster = settings.get("cluster")
            if cluster is not None and not _CLUSTER.fullmatch(cluster):
                raise ValueError(f"cluster {cluster!r}")
        except (FileNotFoundError, NotADirectoryError):
            raise NoIndex(
                f"There is no index in {path}; make one with `diffsim index FOLDER`, or name another with --index DIR."
            ) from None
        except BadAddress as problem:
            raise NoIndex(f"{path / 'index.toml'} cannot be used: {problem}") from problem
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as problem:
            raise NoIndex(
                f"{path / 'index.toml'} cannot be understood ({problem}); restore it from a backup, or write into it "
                f"the two lines that it had when it was made: format = {FORMAT}, and {_CATALOG_LINE}."
            ) from problem
        if version > FORMAT:
            raise IndexTooNew(
                f"The index in {path} has format {version} and this program knows formats up to {FORMAT}; "
                "update diffsim-search."
            )
        return cls(path, url, identity, cluster)

    @classmethod
    def create(cls, path: Path, catalog_url: str | None = None) -> "IndexFolder":
        """Open the index, or begin an empty one in a new or empty folder; raises NoIndex for any other folder.

        catalog_url: the catalog of a new index on a server, which must be there and hold no other's. Raises BadAddress,
        CatalogTaken, CatalogUnavailable, ..., and OtherCatalog where the index has another one.
        """
        if not (path / "index.toml").exists():
            lines = f"format = {FORMAT}\n{_CATALOG_LINE}\n"
            if catalog_url is not None:
                catalog_url = server_address(catalog_url)
                check_free(catalog_url)  # before anything is written
                address = json.dumps(catalog_url, ensure_ascii=False)
                lines = f'format = {FORMAT}\ncatalog = {address}\nidentity = "{uuid4().hex}"\n'
            path.mkdir(parents=True, exist_ok=True)
            _check_empty(path)
            part = path / "index.toml.part"
            part.unlink(missing_ok=True)  # it may be a link to elsewhere
            part.write_text(lines, encoding="utf-8")
            put_in_place(part, path / "index.toml")
        index = cls.open(path)
        if catalog_url is not None and server_address(catalog_url) != index.catalog_url:
            raise OtherCatalog(
                f"The index in {path} has its catalog in {index.catalog_url}, and it stays there; leave --catalog out, "
                "or begin a new index with --index DIR."
            )
        return index

    @classmethod
    @contextmanager
    def begin(cls, path: Path, catalog_url: str | None = None) -> Iterator["IndexFolder"]:
        """The index to fill, begun as by `create` where there is none. Of one that is begun here nothing stays if it
        cannot be filled: if an error passes before it holds a folder or a feature space."""
        begins, makes_folder = not (path / "index.toml").exists(), not path.exists()
        index = cls.create(path, catalog_url)
        try:
            yield index
        except IndexGone:
            raise  # nothing of it is left, and what stands in its place is somebody else's
        except BaseException:
            if begins:
                index._remove_blank(makes_folder)
            raise

    def _remove_blank(self, folder_too: bool) -> None:
        with suppress(IndexBusy), self._locked():
            if self.spaces.exists():
                return
            if self.identity or (self.path / _CATALOG_FILE).exists():
                try:
                    with self.catalog() as catalog:
                        if catalog.spaces() or catalog.roots():
                            return
                except NoCatalog:
                    pass
                except CatalogUnavailable:
                    return  # nobody knows what is in it
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
                    copy.spaces.mkdir()
                    for space in catalog.spaces():
                        known = copy.space(space.fingerprint)
                        known.symlink_to((path / "spaces" / space.fingerprint).absolute(), target_is_directory=True)
            elif path.is_dir():
                _check_empty(path)
            yield copy

    def catalog(self, *, create: bool = False, readonly: bool = False) -> Catalog:
        """Raises as `Catalog.open`, and NoIndex where the catalog of existing features is gone: an empty one in its
        place would forget them all."""
        place = self._catalog_place
        filled = self.spaces.is_dir() and any(self.spaces.iterdir())
        if self.identity is not None:
            return self._catalog_on_server(self.identity, create and not filled, readonly, filled)
        if isinstance(place, Path) and not place.exists() and filled:
            raise NoIndex(
                f"The catalog {place}, which {self.path / 'index.toml'} names, is not there; restore it from a backup, "
                f"or, if index.toml was altered, write into it as it was made: {_CATALOG_LINE}."
            )
        return Catalog.open(place, create=create, readonly=readonly)

    def _catalog_on_server(self, identity: str, create: bool, readonly: bool, filled: bool) -> Catalog:
        try:
            catalog = Catalog.open(self.catalog_url, create=create, readonly=readonly, alone=not readonly)
        except CatalogBusy as busy:
            raise IndexBusy(
                f"The index in {self.path} is being written by {busy.writer}; try again when it is done."
            ) from busy
        except NoCatalog:
            if not filled:
                raise
            raise NoIndex(
                f"The database {self.catalog_url}, which {self.path / 'index.toml'} names, holds no catalog any more; "
                "restore it from a backup."
            ) from None
        try:
            catalog.claim(identity, blank=not filled and not readonly)
        except BaseException:
            catalog.close()
            raise
        return catalog

    @property
    def _catalog_place(self) -> Path | str:
        local = _IN_THE_FOLDER.fullmatch(self.catalog_url)
        return self.path / local[1] if local else self.catalog_url

    def use_cluster(self, address: str) -> "IndexFolder":
        """The index with this cluster in index.toml, or with none for the address `none`. Raises BadCluster."""
        if address != "none" and not _CLUSTER.fullmatch(address):
            raise BadCluster(
                f"{address!r} is not the address of a Ray cluster; give auto for the one on this machine, local to "
                "start one with each command, HOST:PORT of its head, or none to do without."
            )
        with open_regular(self.path / "index.toml") as file:
            lines = file.read().decode().splitlines()
        kept = [line for line in lines if not line.startswith("cluster")]
        named = [] if address == "none" else [f'cluster = "{address}"']
        part = self.path / "index.toml.part"
        part.unlink(missing_ok=True)  # it may be a link to elsewhere
        part.write_text("\n".join([*kept, *named]) + "\n", encoding="utf-8")
        put_in_place(part, self.path / "index.toml")
        return IndexFolder.open(self.path)

    @property
    def spaces(self) -> Path:
        return self.path / "spaces"

    def space(self, fingerprint: str) -> Path:
        """The folder of a space. Raises IndexAltered."""
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise IndexAltered(
                f"The catalog in {self.path} names a feature space {fingerprint!r}, which this program never made; "
                "restore the catalog from a backup, or delete the index folder and run `diffsim index FOLDER` again."
            )
        return self.spaces / fingerprint

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

    def sketches(self, shard: int, *, readonly: bool) -> FeatureStore:
        """The sketches of the pictures of one shard; raises as FeatureStore does."""
        return FeatureStore(self.sketches_folder(shard), readonly=readonly)

    def sketches_folder(self, shard: int) -> Path:
        """There is none until a picture of the shard is indexed."""
        return self.path / "sketches" / f"{shard:04d}"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer; raises IndexBusy, which says who is, and IndexGone at the end as `check_there` does. The
        lock ends with the process, however it ends."""
        with self._locked():
            yield
            self.check_there()

    @contextmanager
    def _locked(self) -> Iterator[None]:
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

    def check_there(self) -> None:
        """Raises IndexGone if the folder is not the one that this process, the writer, began to write to: what is
        written to deleted files is lost, and no write says so."""
        place = self._catalog_place
        if self._written_by().get("pid") != os.getpid() or (isinstance(place, Path) and not place.exists()):
            raise IndexGone(
                f"The index folder {self.path} was deleted or replaced while it was written, and what this run did is "
                "lost; run the same command again."
            )

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
        writer = self._written_by()
        if not {"pid", "host", "since"} <= writer.keys():
            return "another process"
        return f"process {writer['pid']} on {writer['host']} since {writer['since']}"

    def _written_by(self) -> dict[str, Any]:
        try:
            with open_regular(self.path / "writer.json") as file:
                writer = json.load(file)
        except (OSError, ValueError, RecursionError):
            return {}
        return writer if isinstance(writer, dict) else {}


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
    owned = (b"/".join(parts[:n]) for n, name in enumerate(parts) if name in (b"spaces", b"thumbnails", b"sketches"))
    return next(filter(is_index, owned), None)


def _check_empty(path: Path) -> None:
    if any(entry.name != "index.toml.part" for entry in path.iterdir()):
        raise NoIndex(f"The folder {path} is not empty and holds no index; give an empty or new one with --index DIR.")


def _check_plain(path: Path) -> None:
    """Refuse links and whatever is neither file nor folder, wherever this program would open something: an index that
    somebody else made must not reach outside its folder, and a pipe would never answer."""
    for entry in _entries(path):
        plain = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
        if not plain and os.path.lexists(entry.path):
            kind = "symbolic link" if entry.is_symlink() else "pipe, socket or device"
            raise IndexAltered(
                f"{entry.path} in the index is a {kind}, and an index has none; delete it, or put a copy of what it "
                "stands for in its place."
            )


def _entries(folder: str | Path, depth: int = 0) -> Iterator[os.DirEntry[str]]:
    """All below a folder, apart from what is in the folders of thumbnails: a file for each picture."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False) and not (depth == 1 and len(entry.name) == 2):
                with suppress(FileNotFoundError):  # a writer may be at work there
                    yield from _entries(entry.path, depth + 1)


def _disk_bytes(folder: str | Path) -> int:
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    total += _disk_bytes(entry.path)
    return total
