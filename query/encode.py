"""Turns a query's examples into features: read from the index if present, otherwise extracted.

However many spaces are queried, a picture is decoded once per size and fit and encoded once per network, and each
network is loaded once.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from diffsim.db.catalog import Catalog, KnownPicture, KnownSpace
from diffsim.errors import Error
from diffsim.indexer.paths import given_path
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.region import seen_part, within_part
from diffsim.retrieval.shard.messages import SpaceQuery

from .collection import Collection
from .extract_pictures import PictureExtractor
from .picture_files import sha256_of
from .query import BadQuery, Example, ExtractedPicture, Subject, Text
from .shards import NoShardAnswers
from .texts import TextEncoder
from .weighed import WeighedSpace


class Encoder:
    """Turns examples into queries for shards."""

    def __init__(self, catalog: Catalog, collection: Collection, pictures: PictureExtractor) -> None:
        self._catalog = catalog
        self._collection = collection
        self._pictures = pictures
        self.texts = TextEncoder(collection, pictures)

    def encode(self, examples: Sequence[tuple[Example, Sequence[WeighedSpace]]]) -> list[SpaceQuery]:
        """Each example in each of its spaces, which share its weight.

        Raises BadQuery, BadRegion, UnreadableImage, UnknownModel, ...
        """
        queries: list[SpaceQuery] = []
        placed = [(example, [space for space, _ in spaces]) for example, spaces in examples]
        for ready, (_, spaces) in zip(without_errors(self.prepared(placed)), examples, strict=True):
            queries += self._encoded(ready, spaces)
        return queries

    def prepared(
        self, examples: Sequence[tuple[Example, Sequence[KnownSpace]]], problems: dict[str, Error] | None = None
    ) -> list[Example | Error]:
        """Each example in a form that needs neither its file nor a network in its spaces: what the index lacks is
        extracted in one batch for all examples. For an example that cannot be read, its error.

        problems: as in `PictureExtractor.extract`.
        """
        found: list[Example | Error] = []
        lacking: dict[tuple[str, ...], list[int]] = {}  # examples that lack the same spaces
        for number, (example, spaces) in enumerate(examples):
            try:
                if isinstance(example.subject, Text):
                    for space in spaces:
                        self.texts.features(space, example.subject)
                    found.append(example)
                    continue
                content_id = self._content_id(example.subject)
            except Error as problem:
                found.append(problem)
                continue
            missing = [space.fingerprint for space in spaces if self._stored(space, content_id) is None]
            if missing and not isinstance(example.subject, int | np.integer | ExtractedPicture):
                lacking.setdefault(tuple(missing), []).append(number)
            found.append(example if missing or content_id is None else replace(example, subject=content_id))
        for fingerprints, numbers in lacking.items():
            wanted = [space for space in examples[numbers[0]][1] if space.fingerprint in fingerprints]
            subjects = [examples[number][0].subject for number in numbers]
            for number, made in zip(numbers, self._pictures.extract_all(subjects, wanted, problems), strict=True):
                found[number] = made if isinstance(made, Error) else replace(examples[number][0], subject=made)
        return found

    def _encoded(self, example: Example, spaces: Sequence[WeighedSpace]) -> Iterator[SpaceQuery]:
        """A prepared example in each of its spaces."""
        if isinstance(example.subject, Text):
            for space, share in spaces:
                features = self.texts.features(space, example.subject)
                yield SpaceQuery(space.fingerprint, features.descriptor, b"", weight=example.weight * share)
            return
        content_id = self._content_id(example.subject)
        for space, share in spaces:
            features = self._stored(space, content_id) or self._extracted(example.subject, space)
            region = self._region(example, space, content_id) if example.region else None
            weight = example.weight * share
            yield SpaceQuery(space.fingerprint, features.descriptor, features.tokens, region, weight, content_id)

    def _content_id(self, subject: Subject) -> int | None:
        """The id of a subject's content in the index; None if it is not indexed. Raises BadQuery."""
        if isinstance(subject, int | np.integer):
            return int(subject)
        if isinstance(subject, ExtractedPicture):
            return self._catalog.content_by_sha256(subject.sha256)
        if isinstance(subject, bytes):
            return self._catalog.content_by_sha256(hashlib.sha256(subject).digest())
        if isinstance(subject, str | os.PathLike):
            return self._catalog.content_by_sha256(sha256_of(given_path(subject)))
        return None  # pixels: their file is unknown

    def _stored(self, space: KnownSpace, content_id: int | None) -> PictureFeatures | None:
        return None if content_id is None else self._collection.features(space.fingerprint, content_id)

    def _extracted(self, subject: Subject, space: KnownSpace) -> PictureFeatures:
        if not isinstance(subject, ExtractedPicture):
            assert isinstance(subject, int | np.integer)
            if lost := self._collection.unanswered([space]):
                raise NoShardAnswers(
                    f"The features of picture {subject} are in no shard that answered ({' '.join(map(str, lost))}); "
                    "ask with its file, or again in a minute."
                )
            raise BadQuery(
                f"There is no picture {subject} in the feature space {space.name}; `diffsim index` fills every space."
            )
        if space.fingerprint not in subject.features:
            raise BadQuery(f"The picture was not extracted for the feature space {space.name}; extract it anew.")
        return subject.features[space.fingerprint]

    def _region(self, example: Example, space: KnownSpace, content_id: int | None) -> tuple[float, float, float, float]:
        """The example's region in fractions of the part of the picture that the space's network sees."""
        kit = self._collection.kit(space)
        assert example.region is not None
        if not kit.has_tokens:
            raise BadQuery(f"The feature space {space.name} has one embedding per picture and no regions.")
        whole: ExtractedPicture | KnownPicture
        if isinstance(example.subject, ExtractedPicture):
            whole = example.subject
        else:
            assert content_id is not None
            whole = self._catalog.pictures([content_id])[content_id]
        seen = seen_part(whole.width, whole.height, kit.settings.size, kit.settings.fit)
        return within_part(example.region, seen)


def without_errors(found: Sequence[Example | Error]) -> list[Example]:
    """The examples; the first error is raised."""
    for each in found:
        if isinstance(each, Error):
            raise each
    return [each for each in found if isinstance(each, Example)]
