"""One index behind the page: its pictures, searches, uploads and indexing runs.

`compare` and `extract` belong to a lane's thread, see lanes.py; the others may be called from any. All return values of
the search core and the catalog; present.py turns these into JSON.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.filters import Filters
from diffsim.db.status import Status
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.roots import offline_roots

from ..colours import Colour
from ..decoders import Decoders
from ..locate import Locator
from ..pair import Pair
from ..picture_cache import PictureCache
from ..query import Example, ExtractedPicture, Query, Text
from ..text import printable
from ..weighed import split_weight
from . import schemas
from .kept import Kept
from .lanes import Asker, Lanes
from .picture_list import ListOrder, PictureList
from .problems import Problem
from .runs import Run, Runs
from .uploads import Uploads

SHOWN_FAILURES = 1000
_FOLDERS = 500
_DECODERS = 2
_SIZE_S = 10.0
"""The size on disk is not measured more often than this."""

Place = tuple[Sequence[str], bool]
"""A picture's files, those that can be opened first, and whether all are offline."""
Subject = int | ExtractedPicture
"""A picture to search with: one of the index, by its id, or an upload."""


@dataclass(frozen=True)
class Page:
    """A piece of the list of pictures. items: ids with their places. generation: of the catalog, which it shows."""

    total: int
    offset: int
    generation: int
    items: Sequence[tuple[int, Place]]


@dataclass(frozen=True)
class Comparison:
    """Two pictures in a feature space. sizes: width and height of each in pixels. size, fit: how the network sees them,
    see retrieval/region.py. scores: in each space that was asked."""

    pair: Pair
    space: KnownSpace
    scores: Sequence[tuple[KnownSpace, float]]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    size: int
    fit: str


@dataclass(frozen=True)
class IndexState:
    """counts: may be some seconds old in a large index. bytes: on disk, None until that has been measured. offline:
    reasons by id of the folder. writer: who else is writing, in words."""

    path: Path
    bytes: int | None
    generation: int
    counts: Status
    spaces: Sequence[KnownSpace]
    offline: Mapping[int, str]
    run: Run | None
    writer: str | None


class Engine:
    """Everything that the routes need; made once for an app."""

    def __init__(self, index: IndexFolder, device: str) -> None:
        self.index = index
        self.catalog: Catalog = index.catalog(readonly=True)
        self.decoders = Decoders(_DECODERS)
        self.pictures = PictureCache(index, self.decoders, keep=True)
        self.uploads = Uploads(self.decoders)
        self.lanes = Lanes(index, device)
        self.runs = Runs(index)
        self._list = PictureList(self.catalog)
        self._folders = Kept(self._read_folders, self.catalog.generation)
        self._counts = Kept(lambda: self.catalog.status(SHOWN_FAILURES), self.catalog.generation)
        self._bytes = Kept(index.disk_bytes, lambda: time.monotonic() // _SIZE_S)

    def close(self) -> None:
        self.runs.close()
        self.lanes.close()
        self.decoders.close()
        self.pictures.close()
        self.catalog.close()

    # Searches

    def filters(self, given: schemas.FiltersIn) -> Filters:
        """Raises Problem for a folder that is not in the index: no path of the client reaches the disk."""
        known = self._folders.last() or {}
        if not known.keys() >= set(given.folders):
            known = self.folders()
        for folder in given.folders:
            if folder not in known:
                raise Problem(422, f"The index has no folder {printable(folder)}; choose one that the page lists.")
        return Filters(
            folders=tuple(os.fsdecode(known[folder][0]) for folder in given.folders),
            after=given.after,
            before=given.before,
            min_side=given.min_side,
            max_side=given.max_side,
            min_bytes=given.min_bytes,
            max_bytes=given.max_bytes,
            formats=tuple(given.formats),
            camera=given.camera,
            keywords=tuple(given.keywords),
            rating=given.rating,
            near=given.near,
            name=given.name,
        )

    async def query(self, asked: schemas.SearchIn) -> Query:
        """The search in the search core's terms; extracts uploads, in their own lane."""
        named = [one.picture for one in (asked, *asked.examples) if one.picture is not None]
        found = {name: await self.subject(name, asked.spaces) for name in named}

        def subject(one: schemas.SearchIn | schemas.ExampleIn) -> Subject | Text:
            return Text(one.text or "") if one.picture is None else found[one.picture]

        examples = [
            Example(subject(asked), region=asked.region),
            *(Example(subject(one), one.weight, one.region) for one in asked.examples),
        ]
        return Query(
            examples,
            spaces=tuple(asked.spaces),
            k=asked.k,
            exact=asked.exact,
            filters=self.filters(asked.filters),
            fold=asked.fold,
            colours=asked.filters.colours,
        )

    async def subject(self, name: schemas.PictureId, spaces: Sequence[str]) -> Subject:
        """The picture that an id of the API means, ready to search with. Raises Problem for an unknown id."""
        if isinstance(name, int):
            return self.pictures.known(name).content_id
        return await self.lanes.extracting.run(self.extract, name, spaces)

    def extract(self, name: str, spaces: Sequence[str]) -> ExtractedPicture:
        """The uploaded picture's features in these spaces; what was extracted before is not extracted again."""
        upload, searcher = self.uploads.get(name), self.lanes.extractor
        chosen = searcher.choose_all(_names(spaces))
        missing = [space.fingerprint for space in chosen if space.fingerprint not in upload.features]
        if missing:
            upload.features.update(searcher.extract(upload.data, missing).features)
        return ExtractedPicture(upload.sha256, upload.width, upload.height, dict(upload.features))

    def compare(
        self, asker: Asker, a: Subject, b: Subject, spaces: Sequence[str], region: schemas.Box | None = None
    ) -> Comparison:
        """Two pictures, to compare part by part in the first of the spaces, and as a whole in all."""
        chosen = asker.searcher.choose_all(_names(spaces))
        indexed = isinstance(a, int) and isinstance(b, int)
        make = asker.indexed_pair if indexed else asker.searcher.pair
        pairs = [make(a, b, space.fingerprint, region) for space in chosen]
        scores = [(space, pair.score()) for space, pair in zip(chosen, pairs, strict=True)]
        seen = asker.searcher.collection.kit(chosen[0]).settings
        return Comparison(pairs[0], chosen[0], scores, (self._size(a), self._size(b)), seen.size, seen.fit)

    def _size(self, subject: Subject) -> tuple[int, int]:
        found = self.pictures.known(subject) if isinstance(subject, int) else subject
        return found.width, found.height

    # The whole index

    def place(self, content_id: int) -> Place:
        """Where a picture's files are; none if all are gone."""
        return Locator(self.catalog).locate(content_id) or ((), False)

    def coloured(self, colours: Sequence[str]) -> np.ndarray:
        """The contents with enough of each of the colours, in the lane of the extractor. Raises BadColour."""
        return self.lanes.extractor.coloured([Colour.parse(colour) for colour in colours])

    def page(
        self,
        offset: int,
        limit: int,
        filters: Filters,
        order: ListOrder = "path",
        among: np.ndarray | None = None,
    ) -> Page:
        """A piece of the list of pictures. among: only of these ids."""
        ids, generation = self._list.ids(filters, order)
        ids = ids if among is None else ids[np.isin(ids, among)]
        some = ids[offset : offset + limit].tolist()
        places = Locator(self.catalog).locate_all(some)
        items = [(content_id, place or ((), False)) for content_id, place in zip(some, places, strict=True)]
        return Page(len(ids), offset, generation, items)

    def folders(self) -> dict[str, tuple[bytes, int]]:
        """Display text -> (path, number of files) of the folders that a filter may name."""
        return self._folders.get()

    def _read_folders(self) -> dict[str, tuple[bytes, int]]:
        rows = self.catalog.folders(_FOLDERS)
        return {printable(os.fsdecode(path)): (path, files) for path, files in rows}

    def state(self) -> IndexState:
        """What is in the index, and who is writing to it."""
        return IndexState(
            path=self.index.path,
            bytes=self._bytes.peek(),
            generation=self.catalog.generation(),
            counts=self._counts.get(),
            spaces=self.catalog.spaces(),
            offline=offline_roots(self.catalog),
            run=self.runs.state(),
            writer=self.runs.writer(),
        )


def _names(spaces: Sequence[str]) -> list[str]:
    """The feature spaces without their weights."""
    return [split_weight(space)[0] for space in spaces]
