"""Ask an index for a picture's neighbours: recall by descriptors, rerank by the full score, judge against chance.

Nothing here writes: an index on a read-only disk can be asked, also while another process adds to it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from torch import Tensor

from diffsim.db.catalog import KnownSpace
from diffsim.db.filters import NO_FILTERS, Filters
from diffsim.indexer.choose import UnknownSpace, ambiguous, answering, find_spaces
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.agreement import Agreement
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.region import region_features, seen_part, within_part
from diffsim.retrieval.shard.rerank import rank as ranked

from .allowed import Allowed
from .encode import PictureReader
from .fold import Tiles
from .gallery import Gallery
from .locate import Locator
from .query import Answer, BadQuery, Example, ExtractedPicture, Hit, Picture, Query
from .stages import common_ids, examples_of, recall_candidates, score_candidates
from .view import View
from .why import Pair

_NAMED = 3
"""Pictures that a note names; of the others it gives the number."""


@dataclass(frozen=True)
class _Asked:
    """A question after its first stage: recalled ids and cosines, and of them those that every space has."""

    query: Query
    views: list[View]
    common: np.ndarray
    recalled: np.ndarray
    similarities: np.ndarray
    notes: list[str]


class Searcher:
    """An open index. Reads what has changed since the last question by itself.

    One thread at a time: give each thread a searcher of its own. Searchers of one index in one process share its
    memory-mapped files, and nothing else that a question changes.
    """

    def __init__(self, index: str | os.PathLike[str], device: str = "auto") -> None:
        self.index = IndexFolder.open(Path(index))
        self._catalog = self.index.catalog(readonly=True)
        self._reader = PictureReader(self.index, self._catalog, device)
        self._allowed = Allowed(self._catalog)
        self._galleries: dict[str, Gallery] = {}
        self._visible_at: tuple[int, dict[int, int]] | None = None  # the catalog's generation, and the counts

    def close(self) -> None:
        """Let go of the index's files and end the decoding process. Closing twice is harmless; a closed searcher opens
        them again when asked."""
        self._reader.close()
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

    def search(self, picture: Picture | Query, **settings: object) -> list[Hit]:
        """The neighbours of a picture, best first; the settings are Query's fields."""
        query = picture if isinstance(picture, Query) else Query(picture)
        return self.answer(replace(query, **settings)).hits  # type: ignore[arg-type]

    def answer(self, query: Query) -> Answer:
        """The neighbours and the account of how they were found. Raises BadQuery, BadRegion, UnknownSpace,
        UnreadableImage, ..."""
        return self._answered(self._ask(query))

    def answers(self, query: Query) -> Iterator[Answer]:
        """The same in two steps: as soon as they are known the hits in the order of the first stage, their scores
        cosines of descriptors and `reranked` False, then what `answer` gives."""
        asked = self._ask(query)
        if query.rerank:
            yield self._recalled(asked)
        yield self._answered(asked)

    def extract(self, picture: str | os.PathLike[str], spaces: Sequence[str] = ()) -> ExtractedPicture:
        """Read a picture once, to ask with it later without its file, also in another searcher of this index or another
        process. spaces: as in Query. Raises UnreadableImage, ..."""
        return self._reader.extract(Path(picture), self._chosen(spaces))

    def why(self, a: Picture, b: Picture, space: str | None = None) -> Agreement:
        """Which parts of two pictures are found in each other, in a space (None: the index's first)."""
        return self.pair(a, b, space).agreement()

    def attention(self, a: Picture, b: Picture, place: tuple[int, int], space: str | None = None) -> Tensor:
        """Where in `b` the attention of one place of `a` falls: float32 [rows, columns] of b, see Pair.attention."""
        return self.pair(a, b, space).attention(place)

    def pair(self, a: Picture, b: Picture, space: str | None = None) -> Pair:
        """Two pictures in one space, from their stored tokens where they are indexed. Raises BadQuery, ..."""
        chosen = self.choose(space)
        first, second = (self.view(Example(picture), chosen) for picture in (a, b))
        return Pair.of(first, second)

    def _chosen(self, names: Sequence[str]) -> list[KnownSpace]:
        return list({space.fingerprint: space for space in map(self.choose, names or (None,))}.values())

    def _ask(self, query: Query) -> _Asked:
        """The first stage."""
        spaces = self._chosen(query.spaces)
        views = [
            self.view(example, space, query.filters, example.weight / len(spaces))
            for example in query.all_examples
            for space in spaces
        ]
        count = None if query.exact else max(query.candidates, query.k)
        recalled, similarities = recall_candidates(views, count, include_self=query.include_self)
        common = common_ids(views)
        absent = recalled[~np.isin(recalled, common)]
        notes = self._absent(absent, views)
        if query.filters and not len(common):
            notes.append("No picture passes the filters; ask for less, or see what is there with `diffsim status`.")
        if not query.exact and any(view.region for view in views):
            notes.append(_how_recalled(views))
        return _Asked(query, views, common, recalled, similarities, notes)

    def _recalled(self, asked: _Asked) -> Answer:
        """The answer of the first stage."""
        order = np.flatnonzero(np.isin(asked.recalled, asked.common) | (not asked.query.rerank))
        chances = [None] * len(order)
        hits = self._hits(asked, asked.recalled[order], asked.similarities[order], chances)
        return self._account(asked, hits, 0, reranked=False)

    def _answered(self, asked: _Asked) -> Answer:
        """The final answer."""
        if not asked.query.rerank:
            return self._recalled(asked)
        wanted = asked.recalled[np.isin(asked.recalled, asked.common)]
        if not len(wanted):
            return self._account(asked, [], 0)
        ids, scores, tail = score_candidates(asked.views, wanted)
        order = ranked(ids, scores, asked.views[0].itself)
        others = len(np.setdiff1d(asked.common, examples_of(asked.views), assume_unique=True))
        chances = tail.expected(scores[order], others) if tail else [None] * len(order)
        hits = self._hits(asked, ids[order], scores[order], chances)
        return self._account(asked, hits, len(ids), unread=len(wanted) - len(ids))

    def _account(
        self, asked: _Asked, hits: list[Hit], scored: int, *, reranked: bool = True, unread: int = 0
    ) -> Answer:
        views = {view.space.fingerprint: view for view in asked.views}.values()
        notes = [note for number, view in enumerate(views) for note in view.gallery.notes(0 if number else unread)]
        spaces = [view.space for view in views]
        return Answer(hits, spaces, len(asked.common), len(asked.recalled), scored, asked.notes + notes, reranked)

    def _absent(self, ids: np.ndarray, views: Sequence[View]) -> list[str]:
        """Name the candidates that one of the spaces does not have."""
        if not len(ids):
            return []
        files = self._catalog.files_of(ids[:_NAMED].tolist())
        names = [os.fsdecode(found[0].path) for found in files.values() if found]
        more = f" and {len(ids) - len(names)} more" if len(ids) > len(names) else ""
        lacking = list(dict.fromkeys(view.space.name for view in views if not np.isin(ids, view.gallery.ids).all()))
        return [
            f"Left out because {' and '.join(lacking)} {'lacks' if len(lacking) == 1 else 'lack'} them: "
            f"{', '.join(names)}{more}; `diffsim index` fills every space."
        ]

    def _hits(self, asked: _Asked, ids: np.ndarray, scores: np.ndarray, chances: Sequence[float | None]) -> list[Hit]:
        """The first k contents that still have a file; a file that is gone since the last scan is no hit."""
        query = asked.query
        hits: list[Hit] = []
        copies: list[list[Hit]] = []
        tiles = _tiles(asked.views) if query.fold else None
        places = Locator(self._catalog).locate_all(ids.tolist())
        recall_ranks = {int(content_id): place for place, content_id in enumerate(asked.recalled, 1)}
        for content_id, score, by_chance, located in zip(ids.tolist(), scores.tolist(), chances, places, strict=True):
            if not tiles and len(hits) == query.k:
                break
            if query.max_by_chance is not None and by_chance is not None and by_chance > query.max_by_chance:
                break
            if located is None:
                continue
            paths, offline = located
            tile = tiles.fold(content_id) if tiles else None
            if tile is None and len(hits) == query.k:
                break
            rank = (len(hits) if tile is None else tile) + 1
            hit = Hit(rank, score, paths[0], recall_ranks[content_id], by_chance, paths, offline, content_id)
            if tile is None:
                hits.append(hit)
                copies.append([])
            else:
                copies[tile].append(hit)
        return [replace(hit, duplicates=tuple(more)) if more else hit for hit, more in zip(hits, copies, strict=True)]

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
        contents, recall = self._catalog.indexed(space.id), self._catalog.recall_files(space.id)
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
        return self._reader.kit(space)

    def view(self, example: Example, space: KnownSpace, filters: Filters = NO_FILTERS, weight: float = 1.0) -> View:
        """The space as an example sees it: the picture's features are read where it is indexed (no network is loaded),
        else extracted. weight: of this view among several. Raises BadQuery, BadRegion, UnreadableImage, ..."""
        gallery, kit = self.gallery(space), self.kit(space)
        content_id = self._reader.content_id(example.picture)
        descriptor, record, sides = self._reader.features(example.picture, content_id, space, gallery)
        features = kit.read([record])
        if example.region:
            if not kit.has_tokens:
                raise BadQuery(f"The feature space {space.name} is one embedding a picture and knows no regions.")
            part = seen_part(*sides, kit.space.size, kit.space.fit)
            features = region_features(features, within_part(example.region, part))
        if filters:
            gallery = self._allowed.within(gallery, filters)
        return View(space, gallery, kit, descriptor, features, content_id, weight, bool(example.region))


def _tiles(views: Sequence[View]) -> Tiles:
    """In the first space that has tokens. Raises BadQuery where none has."""
    for view in views:
        if view.kit.has_tokens:
            return Tiles(view.gallery, view.kit)
    raise BadQuery(
        f"The feature space {views[0].space.name} is one embedding a picture, which does not tell near copies."
    )


def _how_recalled(views: Sequence[View]) -> str:
    if any(view.scores_all for view in views if view.weight > 0):
        return "The region was scored against every picture."
    return "Candidates for the region were recalled by the whole picture; --exact scores every picture."
