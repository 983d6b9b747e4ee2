"""From what a person asks with to its features: read where the picture is indexed, else extracted."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.pictures.decode_pool import DecodePool
from diffsim.retrieval.regular_files import NotRegular, open_regular

from .gallery import Gallery
from .query import BadQuery, ExtractedPicture, Picture

if TYPE_CHECKING:
    from diffsim.retrieval.extractor import Extractor, PictureFeatures
    from diffsim.retrieval.pictures.images import Picture as Decoded


class PictureReader:
    """Keeps kits, networks and a decoding process between questions."""

    def __init__(self, index: IndexFolder, catalog: Catalog, device: str) -> None:
        self._index = index
        self._catalog = catalog
        self._device = device
        self._kits: dict[str, SpaceKit] = {}
        self._extractors: dict[str, Extractor] = {}
        self._decoders: dict[tuple[int, str], DecodePool] = {}  # by size and fit: a process from the first picture on

    def close(self) -> None:
        """End the decoding process; the next picture starts another."""
        for decoder in self._decoders.values():
            decoder.close()

    def kit(self, space: KnownSpace) -> SpaceKit:
        """What the space needs to work on stored tokens."""
        if space.fingerprint not in self._kits:
            self._kits[space.fingerprint] = SpaceKit.load(self._index.space(space.fingerprint))
        return self._kits[space.fingerprint]

    def content_id(self, picture: Picture) -> int | None:
        """The content of the index that this picture is, None for a picture from elsewhere. Raises BadQuery."""
        if isinstance(picture, int):
            return picture
        sha256 = picture.sha256 if isinstance(picture, ExtractedPicture) else _sha256(Path(picture))
        return self._catalog.content_by_sha256(sha256)

    def features(
        self, picture: Picture, content_id: int | None, space: KnownSpace, gallery: Gallery
    ) -> tuple[np.ndarray, bytes, tuple[int, int]]:
        """Descriptor, token record, and width and height in pixels. Raises BadQuery, UnreadableImage, ..."""
        stored = gallery.record(content_id) if content_id is not None else None
        if stored is not None and content_id is not None:
            known = self._catalog.pictures([content_id])[content_id]
            return *stored, (known.width, known.height)
        if isinstance(picture, int):
            raise BadQuery(
                f"There is no picture {picture} in the feature space {space.name}; `diffsim index` fills every space."
            )
        if not isinstance(picture, ExtractedPicture):
            picture = self.extract(Path(picture), [space])
        elif space.fingerprint not in picture.features:
            raise BadQuery(f"The picture was not extracted for the feature space {space.name}; extract it anew.")
        features = picture.features[space.fingerprint]
        return features.descriptor, features.tokens, (picture.width, picture.height)

    def extract(self, picture: Path, spaces: Iterable[KnownSpace]) -> ExtractedPicture:
        """Decode a file and run the networks of these spaces."""
        sha256 = _sha256(picture)
        shown: dict[tuple[int, str], Decoded] = {}
        features: dict[str, PictureFeatures] = {}
        for space in spaces:
            shape = self.kit(space).settings.size, self.kit(space).settings.fit
            if shape not in shown:
                shown[shape] = self._decode(picture, *shape)
            ((features[space.fingerprint],),) = self._extractor(space).extract(shown[shape].pixels[None])
        whole = next(iter(shown.values()))
        return ExtractedPicture(sha256, whole.width, whole.height, features)

    def _decode(self, picture: Path, size: int, fit: str) -> "Decoded":
        if (size, fit) not in self._decoders:
            self._decoders[size, fit] = DecodePool(1, size, fit=fit)
        return self._decoders[size, fit].decode(picture)

    def _extractor(self, space: KnownSpace) -> "Extractor":
        # Only here: a picture that is indexed is asked with without loading a network, or the libraries around it.
        from diffsim.retrieval.devices import choose_device
        from diffsim.retrieval.extractor import Extractor

        if space.fingerprint not in self._extractors:
            self._extractors[space.fingerprint] = Extractor.load(
                space.network, [self.kit(space)], choose_device(self._device), space.adapter
            )
        return self._extractors[space.fingerprint]


def _sha256(picture: Path) -> bytes:
    try:
        with open_regular(picture, follow_links=True) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except NotRegular:
        raise BadQuery(f"{picture} is not a file; give the path of a picture.") from None
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise BadQuery(f"The picture {picture} cannot be read ({reason}); give the path of a picture.") from problem
