"""From what a person queries with to its features: read from the index if present, else extracted.

However many spaces are asked, a picture is decoded once per size and fit and encoded once per network, and a network is
loaded once.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.errors import Error
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.pictures.decode_pool import DecodePool
from diffsim.retrieval.region import seen_part, within_part
from diffsim.retrieval.regular_files import NotRegular, open_regular
from diffsim.retrieval.shard.messages import SpaceQuery

from .collection import Collection
from .query import BadQuery, Example, ExtractedPicture, Subject

if TYPE_CHECKING:
    from diffsim.indexer.spaces import Networks
    from diffsim.retrieval.extractor import Extractor


class Encoder:
    """Turns examples into queries for shards. Keeps networks and a decoding process between queries."""

    def __init__(self, catalog: Catalog, collection: Collection, device: str) -> None:
        self._catalog = catalog
        self._collection = collection
        self._device = device
        self._networks: Networks | None = None
        self._extractors: dict[tuple[str, ...], Extractor] = {}  # by the fingerprints of the spaces of one pass
        self._decoders: dict[tuple[int, str], DecodePool] = {}  # by size and fit: a process from the first picture on

    def close(self) -> None:
        """End the decoding processes; the next picture starts another."""
        for decoder in self._decoders.values():
            decoder.close()

    def encode(self, examples: Sequence[tuple[Example, Sequence[KnownSpace]]]) -> list[SpaceQuery]:
        """Each example in each of its spaces; the weight of an example is shared among its spaces.

        Raises BadQuery, BadRegion, UnreadableImage, UnknownModel, ...
        """
        return [query for example, spaces in examples for query in self._encode(example, spaces)]

    def _encode(self, example: Example, spaces: Sequence[KnownSpace]) -> Iterator[SpaceQuery]:
        content_id = self._content_id(example.subject)
        stored = {space.fingerprint: self._stored(space, content_id) for space in spaces}
        missing = [space for space in spaces if stored[space.fingerprint] is None]
        sides = None
        if missing:
            extracted = self._extracted(example.subject, missing)
            stored |= {space.fingerprint: extracted.features[space.fingerprint] for space in missing}
            sides = extracted.width, extracted.height
        for space in spaces:
            features = stored[space.fingerprint]
            assert features is not None
            region = None
            if example.region:
                if sides is None:
                    assert content_id is not None
                    known = self._catalog.pictures([content_id])[content_id]
                    sides = known.width, known.height
                region = self._region(example, space, sides)
            yield SpaceQuery(
                space.fingerprint,
                features.descriptor,
                features.tokens,
                region,
                example.weight / len(spaces),
                content_id,
            )

    def prepared(self, example: Example, spaces: Sequence[KnownSpace], problems: dict[str, Error]) -> Example:
        """The example with what the index does not have of it extracted for these spaces; problems as in `extract`."""
        if isinstance(example.subject, int | ExtractedPicture):
            return example
        content_id = self._content_id(example.subject)
        missing = [space for space in spaces if self._stored(space, content_id) is None]
        return replace(example, subject=self.extract(example.subject, missing, problems)) if missing else example

    def _content_id(self, subject: Subject) -> int | None:
        """The content of the index that a subject is, None for a picture from elsewhere. Raises BadQuery."""
        if isinstance(subject, int):
            return subject
        if isinstance(subject, ExtractedPicture):
            return self._catalog.content_by_sha256(subject.sha256)
        if isinstance(subject, bytes):
            return self._catalog.content_by_sha256(hashlib.sha256(subject).digest())
        if isinstance(subject, str | os.PathLike):
            return self._catalog.content_by_sha256(_sha256(Path(subject)))
        return None  # pixels: nobody knows of which file

    def _stored(self, space: KnownSpace, content_id: int | None) -> PictureFeatures | None:
        return None if content_id is None else self._collection.features(space.fingerprint, content_id)

    def _extracted(self, subject: Subject, spaces: Sequence[KnownSpace]) -> ExtractedPicture:
        names = " and ".join(space.name for space in spaces)
        if isinstance(subject, int):
            raise BadQuery(
                f"There is no picture {subject} in the feature space {names}; `diffsim index` fills every space."
            )
        if not isinstance(subject, ExtractedPicture):
            return self.extract(subject, spaces)
        if not all(space.fingerprint in subject.features for space in spaces):
            raise BadQuery(f"The picture was not extracted for the feature space {names}; extract it anew.")
        return subject

    def _region(self, example: Example, space: KnownSpace, sides: tuple[int, int]) -> tuple[float, float, float, float]:
        """The example's region in fractions of what the space's network sees of the picture."""
        kit = self._collection.kit(space)
        assert example.region is not None
        if not kit.has_tokens:
            raise BadQuery(f"The feature space {space.name} is one embedding a picture and has no regions.")
        return within_part(example.region, seen_part(*sides, kit.settings.size, kit.settings.fit))

    def extract(
        self, subject: Subject, spaces: Sequence[KnownSpace], problems: dict[str, Error] | None = None
    ) -> ExtractedPicture:
        """Decode a picture and run the networks of these spaces, each network once.

        problems: is given what a space that could not be extracted raised, by fingerprint; None raises it.
        Raises BadQuery, UnreadableImage, UnknownModel, SpaceMismatch, ...
        """
        features: dict[str, PictureFeatures] = {}
        with _file_of(subject) as path:
            sha256 = _sha256(path)
            for group in self._passes(spaces):
                kit = self._collection.kit(group[0])
                decoded = self._decoder(kit).decode(path)
                try:
                    made = self._extractor(group).extract(decoded.pixels[None])
                except Error as problem:
                    if problems is None:
                        raise
                    problems |= {space.fingerprint: problem for space in group}
                    continue
                features |= {space.fingerprint: one for space, (one,) in zip(group, made, strict=True)}
        return ExtractedPicture(sha256, decoded.width, decoded.height, features)

    def _passes(self, spaces: Sequence[KnownSpace]) -> list[list[KnownSpace]]:
        """Spaces that one pass of one network fills, together."""
        # Only here: a picture that is indexed is queried with without loading a network, or the libraries around it.
        from diffsim.indexer.spaces import pass_key

        def key(space: KnownSpace) -> tuple[str | int, ...]:
            return pass_key(space.network, space.adapter, self._collection.kit(space).space)

        return [list(group) for _, group in groupby(sorted(spaces, key=key), key=key)]

    def _decoder(self, kit: SpaceKit) -> DecodePool:
        shape = kit.settings.size, kit.settings.fit
        if shape not in self._decoders:
            self._decoders[shape] = DecodePool(1, kit.settings.size, fit=kit.settings.fit)
        return self._decoders[shape]

    def _extractor(self, spaces: Sequence[KnownSpace]) -> "Extractor":
        from diffsim.indexer.spaces import Networks
        from diffsim.retrieval.extractor import Extractor

        wanted = tuple(space.fingerprint for space in spaces)
        if wanted not in self._extractors:
            self._networks = self._networks or Networks(self._device)
            kits = [self._collection.kit(space) for space in spaces]
            network = self._networks.of(spaces[0], kits[0].space)
            self._extractors[wanted] = Extractor(network, kits)
        return self._extractors[wanted]


@contextmanager
def _file_of(subject: Subject) -> Iterator[Path]:
    """A picture as a file, which is what the guarded decoders read; what is in memory, as a private one meanwhile."""
    if isinstance(subject, str | os.PathLike):
        yield Path(subject)
        return
    data = subject if isinstance(subject, bytes) else _png(subject)
    with tempfile.NamedTemporaryFile(prefix="diffsim-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def _png(pixels: object) -> bytes:
    """An image in memory as a file without loss. Raises BadQuery."""
    import numpy as np
    from PIL import Image, ImageOps

    if isinstance(pixels, np.ndarray):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise BadQuery(
                f"An array {pixels.dtype} {list(pixels.shape)} is not a picture; give uint8 [height, width, 3] of RGB."
            )
        pixels = Image.fromarray(pixels)
    if not isinstance(pixels, Image.Image):
        raise BadQuery(
            f"A {type(pixels).__name__} cannot be queried with; give a path, bytes of a picture file, a Pillow image, "
            "an array uint8 [height, width, 3], an id of the index or an extracted picture."
        )
    file = io.BytesIO()
    ImageOps.exif_transpose(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _sha256(picture: Path) -> bytes:
    try:
        with open_regular(picture, follow_links=True) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except NotRegular:
        raise BadQuery(f"{picture} is not a file; give the path of a picture.") from None
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise BadQuery(f"The picture {picture} cannot be read ({reason}); give the path of a picture.") from problem
