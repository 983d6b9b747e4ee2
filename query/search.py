"""Ask an index for a picture's neighbours: recall by descriptors, rerank by the full score, judge against chance.

Nothing here writes: an index on a read-only disk can be asked, also while another process adds to it.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from db.catalog import KnownSpace
from indexer.choose import UnknownSpace, ambiguous, answering, find_spaces
from indexer.decode import DecodePool
from indexer.index_folder import IndexFolder
from retrieval.chance import Tail
from retrieval.errors import RetrievalError
from retrieval.kit import SpaceKit
from retrieval.rerank import rank

from .gallery import Gallery
from .locate import Locator
from .stages import common_ids, recall_candidates, score_candidates
from .view import View

if TYPE_CHECKING:
    from retrieval.extractor import Extractor


_NAMED = 3
"""Pictures that a note names; of the others it gives the number."""


class BadQuery(RetrievalError, ValueError):
    """A query asks for something that is not allowed."""


@dataclass(frozen=True)
class Query:
    """What is asked.

    picture: path of the example. spaces: names or beginnings of fingerprints of feature spaces; none is the index's
    first. Where several spaces bear one name, the newest that holds as many pictures as the older ones answers for it.
    With several spaces a picture's score is the mean over them, each in units of its own null spread, see stages.py.
    k: how many neighbours. candidates: how many the first stage hands to the second.
    rerank: False stops after the first stage (scores are then cosines of descriptors). exact: score every picture.
    include_self: list the query's own content too. max_by_chance: leave out hits that more pictures than this would
    equal by chance.
    """

    picture: str | os.PathLike[str]
    spaces: Sequence[str] = ()
    k: int = 10
    candidates: int = 200
    rerank: bool = True
    exact: bool = False
    include_self: bool = False
    max_by_chance: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.spaces, str):  # one name is meant, not its letters
            object.__setattr__(self, "spaces", (self.spaces,))
        if self.k < 1:
            raise BadQuery(f"The number of neighbours {self.k} is too small; ask for at least 1.")
        if self.candidates < 1:
            raise BadQuery(f"The number of candidates {self.candidates} is too small; give at least 1.")
        if self.exact and not self.rerank:
            raise BadQuery(
                "An exact search scores every picture, so it cannot go without reranking; drop one of the two."
            )
        if len(self.spaces) > 1 and not self.rerank:
            raise BadQuery("Several feature spaces are weighed by their full scores; drop --no-rerank or ask in one.")
        if self.max_by_chance is not None and not self.rerank:
            raise BadQuery("Likeness against chance needs the full score; drop --no-rerank or --max-by-chance.")


@dataclass(frozen=True)
class Hit:
    """One neighbour.

    score: in [-1, 1], larger is more alike; with several spaces in null spreads, see Query.
    recall_rank: its place after the first stage, from 1.
    by_chance: how many pictures of this collection would be expected to score as high by chance (None without rerank).
    path: a file with this content; paths: all of them. offline: its folder is not there at the moment.
    """

    rank: int
    score: float
    path: str
    recall_rank: int
    by_chance: float | None
    paths: tuple[str, ...]
    offline: bool
    content_id: int


@dataclass(frozen=True)
class Answer:
    """Neighbours and how they were found.

    spaces: those that were asked. pictures: how many could be hits.
    recalled, scored: candidates of the first stage, and how many of them were scored.
    notes: what the asker should know, as sentences.
    """

    hits: list[Hit]
    spaces: list[KnownSpace]
    pictures: int
    recalled: int
    scored: int
    notes: list[str]

    @property
    def name(self) -> str:
        """The spaces' names, for a title."""
        return " + ".join(space.name for space in self.spaces)


class Searcher:
    """An open index. Reads what has changed since the last question by itself; one thread at a time."""

    def __init__(self, index: str | os.PathLike[str], device: str = "auto") -> None:
        self.index = IndexFolder.open(Path(index))
        self._catalog = self.index.catalog(readonly=True)
        self._device = device
        self._galleries: dict[str, Gallery] = {}
        self._visible_at: tuple[int, dict[int, int]] | None = None  # the catalog's generation, and the counts
        self._kits: dict[str, SpaceKit] = {}
        self._extractors: dict[str, Extractor] = {}
        self._decoders: dict[tuple[int, str], DecodePool] = {}  # by size and fit: a process from the first picture on

    def close(self) -> None:
        """Let go of the index's files and end the decoding process. Closing twice is harmless; a closed searcher opens
        them again when asked."""
        for decoder in self._decoders.values():
            decoder.close()
        for gallery in self._galleries.values():
            gallery.store.close()
        self._galleries.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spaces(self) -> list[KnownSpace]:
        """The feature spaces of the index, oldest first."""
        return self._catalog.spaces()

    def search(self, picture: str | os.PathLike[str] | Query, **settings: object) -> list[Hit]:
        """The neighbours of a picture, best first; the settings are Query's fields."""
        query = picture if isinstance(picture, Query) else Query(picture)
        return self.answer(replace(query, **settings)).hits  # type: ignore[arg-type]

    def answer(self, query: Query) -> Answer:
        """The neighbours and the account of how they were found. Raises BadQuery, UnknownSpace, UnreadableImage, ..."""
        spaces = {space.fingerprint: space for space in map(self.choose, query.spaces or (None,))}.values()
        views = [self.view(Path(query.picture), space) for space in spaces]
        count = None if query.exact else max(query.candidates, query.k)
        recalled, similarities = recall_candidates(views, count, include_self=query.include_self)
        common = common_ids(views)
        absent = recalled[~np.isin(recalled, common)]
        notes = self._absent(absent, views)
        tail: Tail | None = None
        ids, scores = recalled, similarities
        if query.rerank:
            ids, scores, tail = score_candidates(views, recalled[np.isin(recalled, common)], common)
        unread = len(recalled) - len(absent) - len(ids) if query.rerank else 0
        notes += [note for number, view in enumerate(views) for note in view.gallery.notes(0 if number else unread)]
        order = rank(ids, scores, views[0].itself)
        chances = tail.expected(scores[order], min(view.others for view in views)) if tail else [None] * len(order)
        recall_ranks = {int(content_id): place for place, content_id in enumerate(recalled, 1)}
        hits = self._hits(query, ids[order], scores[order], chances, recall_ranks)
        return Answer(hits, list(spaces), len(common), len(recalled), len(ids), notes)

    def _absent(self, ids: np.ndarray, views: Sequence[View]) -> list[str]:
        """Name the candidates that one of the spaces does not have."""
        if not len(ids):
            return []
        files = self._catalog.files_of(ids[:_NAMED].tolist())
        names = [os.fsdecode(found[0].path) for found in files.values() if found]
        more = f" and {len(ids) - len(names)} more" if len(ids) > len(names) else ""
        lacking = [view.space.name for view in views if not np.isin(ids, view.gallery.ids).all()]
        return [
            f"Left out because {' and '.join(lacking)} {'lacks' if len(lacking) == 1 else 'lack'} them: "
            f"{', '.join(names)}{more}; `diffsim index` fills every space."
        ]

    def _hits(
        self,
        query: Query,
        ids: np.ndarray,
        scores: np.ndarray,
        chances: Sequence[float | None],
        recall_ranks: dict[int, int],
    ) -> list[Hit]:
        """The first k contents that still have a file; a file that is gone since the last scan is no hit."""
        hits: list[Hit] = []
        locator = Locator(self._catalog)
        for content_id, score, by_chance in zip(ids.tolist(), scores.tolist(), chances, strict=True):
            if len(hits) == query.k:
                break
            if query.max_by_chance is not None and by_chance is not None and by_chance > query.max_by_chance:
                break
            place = locator.locate(content_id)
            if place is not None:
                paths, offline = place
                hits.append(
                    Hit(len(hits) + 1, score, paths[0], recall_ranks[content_id], by_chance, paths, offline, content_id)
                )
        return hits

    def choose(self, wanted: str | None) -> KnownSpace:
        """The feature space of this name or fingerprint; None is the index's first. Raises UnknownSpace."""
        spaces = self.spaces()
        if not spaces:
            raise UnknownSpace(
                f"The index in {self.index.path} holds no pictures yet; add some with `diffsim index FOLDER`."
            )
        found = find_spaces(spaces, spaces[0].name if wanted is None else wanted)
        if len(found) == 1:
            return found[0]
        if len({space.name for space in found}) > 1:
            raise ambiguous(str(wanted), found)
        return answering(found, self._visible())

    def _visible(self) -> dict[int, int]:
        """How many pictures of each space could be hits, counted anew only when the catalog has changed."""
        generation = self._catalog.generation()
        if self._visible_at is None or self._visible_at[0] != generation:
            self._visible_at = generation, self._catalog.visible_pictures()
        return self._visible_at[1]

    def gallery(self, space: KnownSpace) -> Gallery:
        """The pictures of a space as the catalog has them now; read anew only when the catalog has changed."""
        known = self._galleries.get(space.fingerprint)
        if known is not None and known.contents.generation == self._catalog.generation():
            return known
        contents, recall = self._catalog.indexed(space.id), self._catalog.recall_file(space.id)
        if known is not None and known.is_current(contents, recall):
            known = replace(known, contents=contents)  # the change was elsewhere
        else:
            if known is not None:
                self._galleries.pop(space.fingerprint).store.close()
            known = Gallery.load(self.index, space.fingerprint, contents, recall)
        self._galleries[space.fingerprint] = known
        return known

    def kit(self, space: KnownSpace) -> SpaceKit:
        """What the space needs to work on stored tokens."""
        if space.fingerprint not in self._kits:
            self._kits[space.fingerprint] = SpaceKit.load(self.index.space(space.fingerprint))
        return self._kits[space.fingerprint]

    def view(self, picture: Path, space: KnownSpace) -> View:
        """The space as a picture sees it: the picture's features are read where it is indexed (no network is loaded),
        else extracted. Raises BadQuery, UnreadableImage, ..."""
        gallery, kit = self.gallery(space), self.kit(space)
        content_id = self._catalog.content_by_sha256(_sha256(picture))
        stored = gallery.record(content_id) if content_id is not None else None
        descriptor, record = stored or self._extract(picture, space, kit)
        return View(space, gallery, kit, descriptor, kit.read([record]), content_id)

    def _extract(self, picture: Path, space: KnownSpace, kit: SpaceKit) -> tuple[np.ndarray, bytes]:
        # Only here: a picture that is indexed is asked with without loading a network, or the libraries around it.
        from indexer.devices import choose_device
        from retrieval.extractor import Extractor

        shape = kit.space.size, kit.space.fit
        if shape not in self._decoders:
            self._decoders[shape] = DecodePool(1, kit.space.size, fit=kit.space.fit)
        decoded = self._decoders[shape].decode(picture)
        if space.fingerprint not in self._extractors:
            self._extractors[space.fingerprint] = Extractor.load(
                space.network, [kit], choose_device(self._device), space.adapter
            )
        ((features,),) = self._extractors[space.fingerprint].extract(decoded.pixels[None])
        return features.descriptor, features.tokens


def _sha256(picture: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(picture, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadQuery(f"{picture} is not a file; give the path of a picture.")
            with open(descriptor, "rb", closefd=False) as file:
                return hashlib.file_digest(file, "sha256").digest()
        finally:
            os.close(descriptor)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise BadQuery(f"The picture {picture} cannot be read ({reason}); give the path of a picture.") from problem
