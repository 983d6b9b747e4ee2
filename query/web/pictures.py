"""Pictures for a browser: upright, small enough, from every format that can be indexed.

Thumbnails are made once and kept, by content hash, beside the index or, where that is read-only, in the user's cache
folder. Files are decoded in guarded processes, as when they are indexed, and only while they hold the bytes that were
indexed: what has taken their place since is never shown.
"""

import io
import os
import queue
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import platformdirs
from PIL import Image

from diffsim.db.catalog import KnownPicture
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.pictures.decode_pool import Changed, Decoded, DecodePool, Failed, Job
from diffsim.retrieval.pictures.images import inside_size

from .problems import Problem

THUMBNAIL_SIDE = 384
VIEW_SIDE = 1600
MEDIA_TYPE = "image/webp"

_MOST_KNOWN = 100_000
_TIMEOUT_S = 30.0
_MEMORY = 2 * 10**9
_QUALITY = {THUMBNAIL_SIDE: 78, VIEW_SIDE: 88}


class Decoders:
    """Guarded decoding for several threads: each borrows a process of the size that it needs."""

    def __init__(self, workers: int) -> None:
        self._free: dict[int, queue.LifoQueue[DecodePool]] = {}
        for side in (THUMBNAIL_SIDE, VIEW_SIDE):
            self._free[side] = queue.LifoQueue()
            for _ in range(workers):
                self._free[side].put(DecodePool(1, side, _TIMEOUT_S, _MEMORY, fit="inside"))

    def decode(self, job: Job, side: int) -> Decoded | Failed | Changed:
        with self._borrowed(side) as pool:
            (result,) = pool.run([job])
        return result

    @contextmanager
    def _borrowed(self, side: int) -> Iterator[DecodePool]:
        pool = self._free[side].get()
        try:
            yield pool
        finally:
            self._free[side].put(pool)

    def close(self) -> None:
        for free in self._free.values():
            with suppress(queue.Empty):
                while True:
                    free.get_nowait().close()


def encoded(decoded: Decoded, side: int) -> bytes:
    """The decoded picture as WebP."""
    width, height = inside_size(decoded.width, decoded.height, side)
    return webp(decoded.pixels[:height, :width], _QUALITY[side])


def webp(pixels: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


class Pictures:
    """The pictures of one index by id. Safe to use from several threads."""

    def __init__(self, index: IndexFolder, workers: int = 2) -> None:
        self._catalog = index.catalog(readonly=True)
        self.decoders = Decoders(workers)
        self._folder = _writable_folder(index)
        self._known: dict[int, KnownPicture] = {}

    def close(self) -> None:
        self.decoders.close()
        self._catalog.close()

    def known(self, content_id: int) -> KnownPicture:
        """Raises Problem for an id that is no picture."""
        found = self._known.get(content_id) or self.learn([content_id]).get(content_id)
        if found is None:
            raise Problem(404, f"There is no picture {content_id} in the index.")
        return found

    def learn(self, content_ids: Iterable[int]) -> dict[int, KnownPicture]:
        """Look up those that are not known yet at once, as many will be asked for; returns them."""
        found = self._catalog.pictures([each for each in content_ids if each not in self._known])
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known.update(found)
        return found

    def kept_thumbnail(self, content_id: int) -> bytes | None:
        """The thumbnail where it was made before."""
        if self._folder is None:
            return None
        try:
            data = self._place(self._folder, self.known(content_id).sha256).read_bytes()
        except OSError:
            return None
        return data if _is_whole(data) else None

    def thumbnail(self, content_id: int) -> bytes:
        """WebP of at most 384 x 384 pixels. Raises Problem where no file can be read now."""
        kept = self.kept_thumbnail(content_id)
        if kept is not None:
            return kept
        data = encoded(self._decoded(content_id, THUMBNAIL_SIDE), THUMBNAIL_SIDE)
        if self._folder is not None:
            with suppress(OSError):  # a full disk makes it slower, no more
                _put(self._place(self._folder, self.known(content_id).sha256), data)
        return data

    def view(self, content_id: int) -> bytes:
        """WebP of at most 1600 x 1600 pixels. Raises Problem where no file can be read now."""
        return encoded(self._decoded(content_id, VIEW_SIDE), VIEW_SIDE)

    def _decoded(self, content_id: int, side: int) -> Decoded:
        known = self.known(content_id)
        reason = "no file of this picture is left"
        for file in self._catalog.files_of([content_id])[content_id]:
            result = self.decoders.decode(Job(content_id, file.path, known.sha256), side)
            if isinstance(result, Decoded):
                return result
            reason = result.reason if isinstance(result, Failed) else "the file has changed since it was indexed"
        raise Problem(404, f"The picture {content_id} cannot be shown: {reason}.")

    @staticmethod
    def _place(folder: Path, sha256: bytes) -> Path:
        name = sha256.hex()
        return folder / name[:2] / f"{name}.webp"


def _writable_folder(index: IndexFolder) -> Path | None:
    for folder in (index.thumbnails, platformdirs.user_cache_path("diffsim") / "thumbnails"):
        with suppress(OSError):
            folder.mkdir(0o700, parents=True, exist_ok=True)  # the pictures may be readable to nobody else
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(data)
    os.replace(part, path)


def _is_whole(data: bytes) -> bool:
    """A power cut can leave a file that is empty or cut off: a cache is not worth an fsync for each picture."""
    return len(data) > 12 and data[:4] == b"RIFF" and struct.unpack("<I", data[4:8])[0] + 8 == len(data)
