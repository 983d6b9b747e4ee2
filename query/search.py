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
from indexer.decode import decode_file
from indexer.index_folder import IndexFolder
from retrieval.chance import NULL_SAMPLE, Tail, fit_tail
from retrieval.errors import RetrievalError
from retrieval.kit import SpaceKit
from retrieval.recall import search_exact
from retrieval.rerank import rank, score_records
from retrieval.score import AttentionFeatures
from retrieval.tiers import decode_tokens

from .gallery import Gallery
from .locate import Locator

if TYPE_CHECKING:
    from retrieval.extractor import Extractor


class BadQuery(RetrievalError, ValueError):
    """A query asks for something that is not allowed."""


@dataclass(frozen=True)
class Query:
    """What is asked.

    picture: path of the example. space: a space's name or the beginning of its fingerprint; None is the index's first.
    Where several spaces bear one name, the newest that holds as many pictures as the older ones answers for it.
    k: how many neighbours. candidates: how many the first stage hands to the second.
    rerank: False stops after the first stage (scores are then cosines of descriptors). exact: score every picture.
    include_self: list the query's own content too. max_by_chance: leave out hits that more pictures than this would
    equal by chance.
    """

    picture: str | os.PathLike[str]
    space: str | None = None
    k: int = 10
    candidates: int = 200
    rerank: bool = True
    exact: bool = False
    include_self: bool = False
    max_by_chance: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise BadQuery(f"The number of neighbours {self.k} is too small; ask for at least 1.")
        if self.candidates < 1:
            raise BadQuery(f"The number of candidates {self.candidates} is too small; give at least 1.")
        if self.exact and not self.rerank:
            raise BadQuery(
                "An exact search scores every picture, so it cannot go without reranking; drop one of the two."
            )
        if self.max_by_chance is not None and not self.rerank:
            raise BadQuery("Likeness against chance needs the full score; drop --no-rerank or --max-by-chance.")


@dataclass(frozen=True)
class Hit:
    """One neighbour.

    score: in [-1, 1], larger is more alike. recall_rank: its place after the first stage, from 1.
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

    pictures: how many could be hits. recalled, scored: candidates of the first stage, and how many of them were scored.
    notes: what the asker should know, as sentences.
    """

    hits: list[Hit]
    space: KnownSpace
    pictures: int
    recalled: int
    scored: int
    notes: list[str]


@dataclass(frozen=True)
class _Example:
    """The query picture in one space; content_id is None for a picture that is not in the index."""

    content_id: int | None
    descriptor: np.ndarray
    features: Sequence[AttentionFeatures]


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

    def close(self) -> None:
        """Let go of the index's files. Closing twice is harmless; a closed searcher opens them again when asked."""
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
        space = self.choose(query.space)
        gallery = self.gallery(space)
        example = self._example(Path(query.picture), space, gallery)
        recalled, similarities = self._recall(query, example, gallery)
        tail: Tail | None = None
        if query.rerank:
            sample = gallery.sample(NULL_SAMPLE, example.content_id)
            wanted = np.concatenate([recalled, np.setdiff1d(sample, recalled)])
            ids, scores = score_records(self.kit(space), example.features, gallery.tokens(wanted))
            tail = fit_tail(scores[np.isin(ids, sample)])
            candidate = np.isin(ids, recalled)
            ids, scores = ids[candidate], scores[candidate]
        else:
            ids, scores = recalled, similarities
        order = rank(ids, scores, example.content_id)
        recall_ranks = {int(content_id): place for place, content_id in enumerate(recalled, 1)}
        others = len(gallery.ids) - (example.content_id in gallery.sha256)
        chances = tail.expected(scores[order], others) if tail else [None] * len(order)
        hits = self._hits(query, ids[order], scores[order], chances, recall_ranks)
        return Answer(hits, space, len(gallery.ids), len(recalled), len(ids), gallery.notes(len(recalled) - len(ids)))

    def _recall(self, query: Query, example: _Example, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
        """Candidates of the first stage, best first: every picture where the search is exact."""
        if query.exact:
            ids, similarities = search_exact(*gallery.all_descriptors(), example.descriptor, len(gallery.ids))
        else:
            ids, similarities = gallery.recall(example.descriptor, max(query.candidates, query.k) + 1)
        keep = ids != (None if query.include_self else example.content_id)
        count = len(ids) if query.exact else max(query.candidates, query.k)
        return ids[keep][:count], similarities[keep][:count]

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

    def _example(self, picture: Path, space: KnownSpace, gallery: Gallery) -> _Example:
        """Read the picture's features where it is indexed (no network is loaded), else extract them."""
        content_id = self._catalog.content_by_sha256(_sha256(picture))
        kit = self.kit(space)
        stored = gallery.record(content_id) if content_id is not None else None
        if stored is None:
            descriptor, record = self._extract(picture, space, kit)
        else:
            descriptor, record = stored
        features = kit.attention(decode_tokens([record], kit.shapes, kit.space.tier))
        return _Example(content_id, descriptor, features)

    def _extract(self, picture: Path, space: KnownSpace, kit: SpaceKit) -> tuple[np.ndarray, bytes]:
        # Only here: a picture that is indexed is asked with without loading a network, or the libraries around it.
        from indexer.devices import choose_device
        from retrieval.extractor import Extractor

        decoded = decode_file(picture, kit.space.size)
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
