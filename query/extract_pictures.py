"""Extracts features of pictures that are not indexed: decoded in guarded processes, run through networks in batches."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.errors import Error
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, why_not
from diffsim.retrieval.pictures.images import UnreadableImage

from .collection import Collection
from .picture_files import PictureFile, picture_file
from .query import ExtractedPicture, Subject

if TYPE_CHECKING:
    from diffsim.indexer.spaces import Networks
    from diffsim.retrieval.extractor import Extractor
    from diffsim.retrieval.networks import Network

TOGETHER = 16
"""Pictures per network pass: enough to fill a GPU, few enough for its memory at full size."""

_DECODERS = min(4, os.cpu_count() or 1)


class PictureExtractor:
    """Turns pictures into features. Keeps networks and decoding processes between queries."""

    def __init__(self, collection: Collection, device: str) -> None:
        self._collection = collection
        self._device = device
        self._networks: Networks | None = None
        self._extractors: dict[tuple[str, ...], Extractor] = {}  # by the fingerprints of the spaces of one pass
        self._decoders: dict[tuple[int, str], DecodePool] = {}  # by size and fit: processes from the first picture on

    def close(self) -> None:
        """End the decoding processes; the next picture starts new ones."""
        for decoder in self._decoders.values():
            decoder.close()

    def extract(
        self, subject: Subject, spaces: Sequence[KnownSpace], problems: dict[str, Error] | None = None
    ) -> ExtractedPicture:
        """Decode a picture and run the networks of these spaces, each network once.

        problems: receives the error of each space that could not be extracted, by fingerprint; if None, it is raised.
        Raises BadQuery, UnreadableImage, UnknownModel, SpaceMismatch, ...
        """
        (found,) = self.extract_all([subject], spaces, problems)
        if isinstance(found, Error):
            raise found
        return found

    def extract_all(
        self, subjects: Sequence[Subject], spaces: Sequence[KnownSpace], problems: dict[str, Error] | None = None
    ) -> list[ExtractedPicture | Error]:
        """The same for several pictures, which go through each network together; for one that fails, its error."""
        files: dict[bytes, PictureFile] = {}
        found: list[bytes | Error] = []
        with ExitStack() as opened:
            for subject in subjects:
                try:
                    file = opened.enter_context(picture_file(subject))
                    sha256 = file.sha256()
                except Error as problem:
                    found.append(problem)
                else:
                    files[sha256] = file  # the same picture twice is extracted once
                    found.append(sha256)
            made = self._extract(files, spaces, problems)
        return [each if isinstance(each, Error) else made[each] for each in found]

    def _extract(
        self, files: Mapping[bytes, PictureFile], spaces: Sequence[KnownSpace], problems: dict[str, Error] | None
    ) -> dict[bytes, ExtractedPicture | Error]:
        """The result for each file, by its hash."""
        features: dict[bytes, dict[str, PictureFeatures]] = {sha256: {} for sha256 in files}
        failed: dict[bytes, Error] = {}
        decoded: dict[tuple[int, str], dict[bytes, Decoded | Error]] = {}  # by size and fit
        sides: dict[bytes, tuple[int, int]] = {}
        for group in self._passes(spaces):
            kit = self._collection.kit(group[0])
            shape = kit.settings.size, kit.settings.fit
            if shape not in decoded:
                decoded[shape] = self._decoded(shape, {key: files[key] for key in files if key not in failed})
            pixels = {}
            for sha256, picture in decoded[shape].items():
                if isinstance(picture, Error):
                    failed[sha256] = picture
                else:
                    pixels[sha256] = picture.pixels
                    sides[sha256] = picture.width, picture.height
            for sha256, made in zip(pixels, self._through(group, list(pixels.values())), strict=True):
                if not isinstance(made, Error):
                    features[sha256] |= made
                elif problems is None:
                    failed[sha256] = made
                else:
                    problems |= {space.fingerprint: made for space in group}
        return {
            sha256: failed.get(sha256) or ExtractedPicture(sha256, *sides[sha256], features[sha256]) for sha256 in files
        }

    def _decoded(self, shape: tuple[int, str], files: Mapping[bytes, PictureFile]) -> dict[bytes, Decoded | Error]:
        """The files decoded at a size and fit, by hash."""
        if shape not in self._decoders:
            self._decoders[shape] = DecodePool(_DECODERS, shape[0], fit=shape[1])
        hashes = list(files)
        jobs = [file.job(number, sha256) for number, (sha256, file) in enumerate(files.items())]
        found: dict[bytes, Decoded | Error] = {}
        for result in self._decoders[shape].run(jobs):
            sha256 = hashes[result.job.content_id]
            if isinstance(result, Decoded):
                found[sha256] = result
            else:
                found[sha256] = UnreadableImage(f"Cannot read {files[sha256].name}: {why_not(result)}.")
        return {sha256: found[sha256] for sha256 in files}

    def _through(
        self, group: Sequence[KnownSpace], pixels: Sequence[np.ndarray]
    ) -> list[dict[str, PictureFeatures] | Error]:
        """One network's features of each picture, by fingerprint of these spaces."""
        try:
            extractor = self._extractor(group)
        except Error as problem:
            return [problem] * len(pixels)
        made: list[dict[str, PictureFeatures] | Error] = []
        for start in range(0, len(pixels), TOGETHER):
            made += _features(extractor, group, pixels[start : start + TOGETHER])
        return made

    def _passes(self, spaces: Sequence[KnownSpace]) -> list[list[KnownSpace]]:
        """Spaces that one pass of one network fills, together."""
        # Imported here because a query with an indexed picture needs neither a network nor its libraries.
        from diffsim.indexer.spaces import pass_key

        def key(space: KnownSpace) -> tuple[str | int, ...]:
            return pass_key(space.network, space.adapter, self._collection.kit(space).space)

        return [list(group) for _, group in groupby(sorted(spaces, key=key), key=key)]

    def network(self, space: KnownSpace) -> "Network":
        """The network of a space, loaded once. Raises UnknownModel, BadNetwork, FamilyProblem."""
        from diffsim.indexer.spaces import Networks

        self._networks = self._networks or Networks(self._device)
        return self._networks.of(space, self._collection.kit(space).space)

    def _extractor(self, spaces: Sequence[KnownSpace]) -> "Extractor":
        from diffsim.retrieval.extractor import Extractor

        wanted = tuple(space.fingerprint for space in spaces)
        if wanted not in self._extractors:
            kits = [self._collection.kit(space) for space in spaces]
            self._extractors[wanted] = Extractor(self.network(spaces[0]), kits)
        return self._extractors[wanted]


def _features(
    extractor: "Extractor", group: Sequence[KnownSpace], pixels: Sequence[np.ndarray]
) -> list[dict[str, PictureFeatures] | Error]:
    """Features of each picture, in one pass. If that fails, each picture gets its own pass, so that one that overflows
    does not fail the others."""
    try:
        made = extractor.by_picture(np.stack(pixels))
    except Error as problem:
        if len(pixels) == 1:
            return [problem]
        return [each for one in pixels for each in _features(extractor, group, [one])]
    names = [space.fingerprint for space in group]
    return [dict(zip(names, each, strict=True)) for each in made]
