"""One index behind the page: its pictures, questions to it, uploads and indexing runs.

Methods named `ask_...` and `extract` belong to a lane's thread, see lanes.py; the others may be called from any.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import PurePath

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.filters import Filters
from diffsim.indexer.index_folder import IndexFolder

from ..allowed import passing
from ..locate import Locator
from ..pair import Pair
from ..query import Answer, Example, ExtractedPicture, Hit, Query
from ..text import chance_text, likeness_ended, printable
from . import schemas
from .lanes import Lanes
from .pictures import Pictures
from .problems import Problem
from .runs import Runs
from .uploads import Uploads

_FOLDERS = 500
_FRESH_S = 2.0
_PAIRS = 4


class Engine:
    """Everything that the routes need; made once for an app."""

    def __init__(self, index: IndexFolder, device: str) -> None:
        self.index = index
        self.catalog: Catalog = index.catalog(readonly=True)
        self.pictures = Pictures(index)
        self.uploads = Uploads(self.pictures.decoders)
        self.lanes = Lanes(index, device)
        self.runs = Runs(index)
        self._listing: tuple[int, float, list[int]] | None = None
        self._folders: tuple[int, dict[str, tuple[bytes, int]]] | None = None
        self._lock = threading.Lock()
        self._pair = lru_cache(_PAIRS)(self._make_pair)

    def close(self) -> None:
        self.runs.close()
        self.lanes.close()
        self.pictures.close()
        self.catalog.close()

    # Questions

    def filters(self, given: schemas.FiltersIn) -> Filters:
        """Raises Problem for a folder that the index does not know: no path of the client reaches the disk."""
        known = self.folders() if given.folders else {}
        for folder in given.folders:
            if folder not in known:
                raise Problem(422, f"The index knows no folder {printable(folder)}; choose one that the page lists.")
        return Filters(
            folders=tuple(os.fsdecode(known[folder][0]) for folder in given.folders),
            after=given.after,
            before=given.before,
            min_side=given.min_side,
            max_side=given.max_side,
            min_bytes=given.min_bytes,
            max_bytes=given.max_bytes,
            formats=tuple(given.formats),
        )

    async def query(self, asked: schemas.SearchIn) -> Query:
        """The question in the search core's terms; extracts what was uploaded, in its own lane."""
        named = [asked.picture, *(example.picture for example in asked.examples)]
        found = {name: await self.picture(name, asked.spaces) for name in named}
        examples = [
            Example(found[asked.picture], region=asked.region),
            *(Example(found[one.picture], one.weight, one.region) for one in asked.examples),
        ]
        return Query(
            examples,
            spaces=tuple(asked.spaces),
            k=asked.k,
            exact=asked.exact,
            filters=self.filters(asked.filters),
            fold=asked.fold,
        )

    async def picture(self, name: int | str, spaces: Sequence[str]) -> int | ExtractedPicture:
        if isinstance(name, int):
            return self.pictures.known(name).content_id
        return await self.lanes.extracting.run(self.extract, name, spaces)

    def extract(self, name: str, spaces: Sequence[str]) -> ExtractedPicture:
        """The uploaded picture's features in these spaces; what was extracted before is not again."""
        upload, searcher = self.uploads.get(name), self.lanes.extractor
        chosen = [searcher.choose(space) for space in spaces or (None,)]
        missing = [space.fingerprint for space in chosen if space.fingerprint not in upload.features]
        if missing:
            with upload.file() as file:
                upload.features.update(searcher.extract(file, missing).features)
        return ExtractedPicture(upload.sha256, upload.width, upload.height, dict(upload.features))

    def ask(self, query: Query, put: Callable[[schemas.AnswerOut], None]) -> None:
        """Hand over the order of the first stage, then that of the full score."""
        started = time.monotonic()
        for answer in self.lanes.asker.answers(query):
            put(self.answer_out(answer, time.monotonic() - started))

    def ask_pair(
        self, a: int | ExtractedPicture, b: int | ExtractedPicture, space: str | None
    ) -> tuple[KnownSpace, Pair]:
        """Two pictures to compare part by part; the last few are kept, for a pointer that moves over them."""
        chosen = self.lanes.asker.choose(space)
        if isinstance(a, int) and isinstance(b, int):
            return chosen, self._pair(a, b, chosen.fingerprint)
        return chosen, self._make_pair(a, b, chosen.fingerprint)

    def _make_pair(self, a: int | ExtractedPicture, b: int | ExtractedPicture, space: str) -> Pair:
        return self.lanes.asker.pair(a, b, space)

    # What goes out

    def answer_out(self, answer: Answer, seconds: float) -> schemas.AnswerOut:
        self.pictures.learn([each.content_id for hit in answer.hits for each in (hit, *hit.duplicates)])
        return schemas.AnswerOut(
            stage="ranked" if answer.reranked else "recalled",
            hits=[self._hit_out(hit) for hit in answer.hits],
            spaces=[schemas.SpaceOut(fingerprint=space.fingerprint, name=space.name) for space in answer.spaces],
            pictures=answer.pictures,
            recalled=answer.recalled,
            scored=answer.scored,
            notes=[printable(note) for note in answer.notes],
            seconds=round(seconds, 3),
        )

    def _hit_out(self, hit: Hit) -> schemas.HitOut:
        place = self._place(hit.content_id, hit.paths, hit.offline)
        return schemas.HitOut(
            **place.model_dump(),
            rank=hit.rank,
            score=round(hit.score, 6),
            by_chance=hit.by_chance,
            chance=None if hit.by_chance is None else chance_text(hit.by_chance),
            ended=likeness_ended(hit.by_chance),
            recall_rank=hit.recall_rank,
            duplicates=[self._place(copy.content_id, copy.paths, copy.offline) for copy in hit.duplicates],
        )

    def _place(self, content_id: int, paths: Sequence[str], offline: bool) -> schemas.PictureOut:
        known = self.pictures.known(content_id)
        first = PurePath(paths[0]) if paths else PurePath()
        return schemas.PictureOut(
            id=content_id,
            name=printable(first.name),
            folder=printable(str(first.parent)) if paths else "",
            files=len(paths),
            offline=offline,
            version=known.sha256.hex()[:16],
            width=known.width,
            height=known.height,
        )

    def details(self, content_id: int) -> schemas.DetailsOut:
        known = self.pictures.known(content_id)
        paths, offline = Locator(self.catalog).locate(content_id) or ((), False)
        return schemas.DetailsOut(
            **self._place(content_id, paths, offline).model_dump(),
            format=known.format,
            bytes=known.size,
            paths=[schemas.FileOut(path=printable(path), there=os.path.lexists(path)) for path in paths],
        )

    # The whole index

    def page(self, offset: int, limit: int, filters: Filters) -> schemas.PageOut:
        """Pictures by folder and name."""
        ids = self._all_ids()
        if filters:
            allowed = set(passing(self.catalog, filters).tolist())
            ids = [content_id for content_id in ids if content_id in allowed]
        some = ids[offset : offset + limit]
        self.pictures.learn(some)
        located = zip(some, Locator(self.catalog).locate_all(some), strict=True)
        items = [self._place(content_id, *(place or ((), False))) for content_id, place in located]
        return schemas.PageOut(total=len(ids), offset=offset, items=items)

    def _all_ids(self) -> list[int]:
        """Read anew when the catalog has changed, but not more often than every few seconds while it changes."""
        with self._lock:
            now, generation = time.monotonic(), self.catalog.generation()
            kept = self._listing
            if kept is None or (kept[0] != generation and now - kept[1] > _FRESH_S):
                kept = generation, now, self.catalog.pictures_by_path()
                self._listing = kept
            return kept[2]

    def folders(self) -> dict[str, tuple[bytes, int]]:
        """Display text -> (path, number of files) of the folders that a filter may name."""
        with self._lock:
            generation = self.catalog.generation()
            if self._folders is None or self._folders[0] != generation:
                rows = self.catalog.folders(_FOLDERS)
                self._folders = generation, {printable(os.fsdecode(path)): (path, files) for path, files in rows}
            return self._folders[1]
