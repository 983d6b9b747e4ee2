"""What sheets and the page show of an index's pictures, by id: thumbnails, previews, and what the catalog says of them.

The page's thumbnails are made once and kept, by content hash, in the index or, if that is read-only, in the user's
cache folder. A file is decoded only while it holds the bytes that were indexed: what has taken its place since is never
shown.
"""

import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from PIL import Image

from diffsim.db.catalog import KnownPicture
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.pictures.decode_pool import Decoded, Failed, Job
from diffsim.retrieval.regular_files import open_regular
from diffsim.retrieval.user_folders import NoHome, user_cache

from .decoders import FULL_SIDE, PREVIEW_SIDE, THUMBNAIL_SIDE, Decoders, encoded, picture_of
from .errors import QueryError
from .figures.thumbnails import blank
from .picture_files import nameless_file

_MOST_KNOWN = 20_000
_MOST_BYTES = 2**22
"""No thumbnail is larger."""


class NoPicture(QueryError):
    """The picture is not in the index, or none of its files can be shown."""


class PictureCache:
    """Safe to use from several threads. keep: whether thumbnails are written; those that were kept are read anyway."""

    def __init__(self, index: IndexFolder, decoders: Decoders, *, keep: bool) -> None:
        self._catalog = index.catalog(readonly=True)
        self._decoders = decoders
        self._keep = keep
        self._folder = _writable_folder(index) if keep else index.thumbnails
        self._known: dict[int, KnownPicture] = {}

    def close(self) -> None:
        self._catalog.close()

    def known(self, content_id: int) -> KnownPicture:
        """Raises NoPicture for an id that is not a picture's."""
        found = self._known.get(content_id) or self.learn([content_id]).get(content_id)
        if found is None:
            raise NoPicture(f"There is no picture {content_id} in the index.")
        return found

    def learn(self, content_ids: Iterable[int]) -> dict[int, KnownPicture]:
        """Look up those that are not known yet, together; returns them."""
        found = self._catalog.pictures([each for each in content_ids if each not in self._known])
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known.update(found)
        return found

    def kept_thumbnail(self, content_id: int) -> bytes | None:
        """The thumbnail if it was made before."""
        if self._folder is None:
            return None
        try:
            with open_regular(_place(self._folder, self.known(content_id).sha256)) as file:
                data = file.read(_MOST_BYTES)
        except OSError:
            return None
        return data if _is_whole(data) else None

    def thumbnail(self, content_id: int) -> bytes:
        """WebP of at most 384 x 384 pixels. Raises NoPicture if none of the picture's files can be read now."""
        kept = self.kept_thumbnail(content_id)
        if kept is not None:
            return kept
        data = encoded(self._decoded(content_id, THUMBNAIL_SIDE), THUMBNAIL_SIDE)
        if self._keep and self._folder is not None:
            with suppress(OSError):  # a full disk only makes it slower
                _put(_place(self._folder, self.known(content_id).sha256), data)
        return data

    def preview(self, content_id: int) -> bytes:
        """WebP of at most 1600 x 1600 pixels. Raises NoPicture if none of the picture's files can be read now."""
        return encoded(self._decoded(content_id, PREVIEW_SIDE), PREVIEW_SIDE)

    def full(self, content_id: int) -> bytes:
        """WebP of at most 4096 x 4096 pixels. Raises NoPicture if none of the picture's files can be read now."""
        return encoded(self._decoded(content_id, FULL_SIDE), FULL_SIDE)

    def drawn(self, content_id: int) -> Image.Image:
        """The thumbnail for a sheet; a plain grey square if none of the picture's files can be read now."""
        kept = self.kept_thumbnail(content_id)
        try:
            found = self._decoded(content_id, THUMBNAIL_SIDE) if kept is None else self._decoded_again(kept)
        except NoPicture:
            return blank()
        return picture_of(found, THUMBNAIL_SIDE)

    def _decoded_again(self, thumbnail: bytes) -> Decoded:
        """A kept thumbnail, decoded as any file: somebody else may have made the index."""
        with nameless_file(thumbnail) as file:
            result = self._decoders.decode(Job(0, b"", b"", file.fileno()), THUMBNAIL_SIDE)
        if not isinstance(result, Decoded):
            raise NoPicture("This thumbnail is damaged.")
        return result

    def _decoded(self, content_id: int, side: int) -> Decoded:
        known = self.known(content_id)
        reason = "none of its files is left"
        for file in self._catalog.files_of([content_id])[content_id]:
            result = self._decoders.decode(Job(content_id, file.path, known.sha256), side)
            if isinstance(result, Decoded):
                return result
            reason = result.reason if isinstance(result, Failed) else "the file has changed since it was indexed"
        raise NoPicture(f"The picture {content_id} cannot be shown: {reason}.")


def _place(folder: Path, sha256: bytes) -> Path:
    name = sha256.hex()
    return folder / name[:2] / f"{name}.webp"


def _writable_folder(index: IndexFolder) -> Path | None:
    folders = [index.thumbnails]
    with suppress(NoHome):
        folders.append(user_cache() / "thumbnails")
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(0o700, parents=True, exist_ok=True)  # nobody else may be allowed to read the pictures
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


@contextmanager
def shown_pictures(index: IndexFolder) -> Iterator[PictureCache]:
    """For one sheet: nothing is written."""
    with closing(Decoders(1)) as decoders, closing(PictureCache(index, decoders, keep=False)) as pictures:
        yield pictures
