"""Ask an index for a picture's neighbours: encode, recall by descriptors, rerank by the full score, present.

Nothing here writes: an index on a read-only disk can be asked, also while another process adds to it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.db.filters import NO_FILTERS, Filters
from diffsim.errors import Error
from diffsim.indexer.choose import UnknownSpace, ambiguous, answering, find_spaces
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.region import Box
from diffsim.retrieval.shard.question import SpaceQuery
from diffsim.retrieval.shard.rerank import rank

from .allowed import Allowed
from .collection import Collection
from .encode import Encoder
from .pair import Pair
from .present import Ranking, folded_hits_of, hits_of
from .query import Answer, BadQuery, Example, ExtractedPicture, Hit, Query, Subject
from .stages import Scored, examples_of, recall, score, spaces_of, spaces_scored_whole

_NAMED = 3
"""Pictures that a note names; of the others it gives the number."""


@dataclass(frozen=True, eq=False)
class _Recalled:
    """A query after its first stage.

    queries: each example in each of its spaces. allowed: ids that pass the filters, None without any. ids, cosines: the
    candidates, best first; common: bool, which of them every space has.
    """

    query: Query
    spaces: list[KnownSpace]
    queries: list[SpaceQuery]
    allowed: np.ndarray | None
    ids: np.ndarray
    cosines: np.ndarray
    common: np.ndarray
    pictures: int
    notes: list[str]


class Searcher:
    """An open index. Reads what has changed since the last query by itself.

    One thread at a time: give each thread a searcher of its own. Searchers of one index in one process share its
    memory-mapped files, and nothing else that a query changes. device: `auto`, `cpu`, `cuda` or `cuda:N`, where
    networks run and scores are computed. Raises NoIndex, BadDevice, ...
    """

    def __init__(self, index: str | os.PathLike[str], device: str = "auto") -> None:
        self.index = IndexFolder.open(Path(index))
        chosen = choose_device(device)
        self._catalog = self.index.catalog(readonly=True)
        self.collection = Collection(self.index, self._catalog, chosen)
        self._encoder = Encoder(self._catalog, self.collection, chosen)
        self._allowed = Allowed(self._catalog)
        self._visible_at: tuple[int, dict[int, int]] | None = None  # the catalog's generation, and the counts

    def close(self) -> None:
        """Let go of the index's files and end the decoding process. Closing twice is harmless; a closed searcher opens
        them again when asked."""
        self._encoder.close()
        self.collection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Queries

    def search(
        self,
        examples: Sequence[Example | Subject] | Example | Subject,
        *,
        spaces: Sequence[str] = (),
        k: int = 10,
        candidates: int = 200,
        rerank: bool = True,
        exact: bool = False,
        include_self: bool = False,
        max_by_chance: float | None = None,
        region: Box | None = None,
        filters: Filters = NO_FILTERS,
        fold: bool = False,
    ) -> list[Hit]:
        """The neighbours of a picture, or of several examples, best first. region: of the one picture that is given;
        the other settings are Query's fields. Raises as `answer` does."""
        if region is not None:
            if isinstance(examples, Example | list | tuple):
                raise BadQuery("A region belongs to one picture; give it to the example: Example(picture, region=...).")
            examples = Example(examples, region=region)  # type: ignore[arg-type]
        query = Query(examples, spaces, k, candidates, rerank, exact, include_self, max_by_chance, filters, fold)
        return self.answer(query).hits

    def answer(self, query: Query) -> Answer:
        """The neighbours and the account of how they were found. Raises BadQuery, BadRegion, UnknownSpace,
        UnreadableImage, ..."""
        recalled = self._recall(query)
        return self._reranked(recalled) if query.rerank else self._first_order(recalled)

    def answers(self, query: Query) -> Iterator[Answer]:
        """The same in two steps: as soon as they are known the hits in the order of the first stage, their scores
        cosines of descriptors and `reranked` False, then what `answer` gives."""
        recalled = self._recall(query)
        yield self._first_order(recalled)
        if query.rerank:
            yield self._reranked(recalled)

    def encode(self, query: Query) -> tuple[list[KnownSpace], list[SpaceQuery]]:
        """The spaces that a query asks, and each example in each of its spaces as a shard is asked with it; the index is
        up to date for these spaces then."""
        examples = [(example, self.choose_all(example.spaces or query.spaces)) for example in query.all_examples]
        spaces = list({space.fingerprint: space for _, each in examples for space in each}.values())
        self.collection.refresh(spaces)
        return spaces, self._encoder.encode(examples)

    def _recall(self, query: Query) -> _Recalled:
        """Encode the examples and recall candidates for them."""
        spaces, queries = self.encode(query)
        allowed = self._allowed.ids(query.filters) if query.filters else None
        whole = spaces_scored_whole(self.collection, queries, self._token_numbers(spaces), allowed)
        count = None if query.exact else max(query.candidates, query.k)
        ids, cosines = recall(
            self.collection, queries, count, allowed=allowed, include_self=query.include_self, scores_all=whole
        )
        asked = spaces_of(queries)
        common = self.collection.among(asked, ids)
        pictures = self.collection.count(asked, allowed)
        notes = self._absent(ids[~common], spaces)
        if query.filters and not pictures:
            notes.append("No picture passes the filters; ask for less, or see what is there with `diffsim status`.")
        if not query.exact and any(each.region for each in queries):
            notes.append(_how_recalled(bool(whole)))
        return _Recalled(query, spaces, queries, allowed, ids, cosines, common, pictures, notes)

    def _first_order(self, found: _Recalled) -> Answer:
        """The answer of the first stage."""
        shown = found.common if found.query.rerank else np.ones(len(found.ids), np.bool_)
        ranking = Ranking(found.ids[shown], found.cosines[shown], [None] * int(shown.sum()), _places(found.ids))
        return self._answer(found, ranking, scored=0, reranked=False)

    def _reranked(self, found: _Recalled) -> Answer:
        """The final answer: the candidates by their full scores, each judged against chance."""
        wanted = found.ids[found.common]
        if not len(wanted):
            return self._answer(found, Ranking(wanted, np.empty(0, np.float32), [], {}), scored=0)
        scored = score(self.collection, found.queries, wanted)
        order = rank(scored.ids, scored.scores, found.queries[0].content_id)
        ids, scores = scored.ids[order], scored.scores[order]
        ranking = Ranking(ids, scores, self._by_chance(found, scored, scores), _places(found.ids))
        return self._answer(found, ranking, scored=len(ids), unread=len(wanted) - len(ids))

    def _by_chance(self, found: _Recalled, scored: Scored, scores: np.ndarray) -> Sequence[float | None]:
        """How many of the pictures that could be hits, the examples apart, would score as high by chance."""
        if scored.tail is None:
            return [None] * len(scores)
        asked = spaces_of(found.queries)
        examples = examples_of(found.queries)
        if found.allowed is not None:
            examples = np.intersect1d(examples, found.allowed)
        others = found.pictures - int(np.count_nonzero(self.collection.among(asked, examples)))
        return scored.tail.expected(scores, others)

    def _answer(
        self, found: _Recalled, ranking: Ranking, *, scored: int, reranked: bool = True, unread: int = 0
    ) -> Answer:
        if found.query.fold:
            hits = folded_hits_of(self._catalog, ranking, found.query, self.collection, self._with_tokens(found.spaces))
        else:
            hits = hits_of(self._catalog, ranking, found.query)
        notes = [*found.notes, *self.collection.notes([space.fingerprint for space in found.spaces], unread)]
        return Answer(hits, found.spaces, found.pictures, len(found.ids), scored, notes, reranked)

    def _absent(self, ids: np.ndarray, spaces: Sequence[KnownSpace]) -> list[str]:
        """Name the candidates that one of the spaces does not have."""
        if not len(ids):
            return []
        files = self._catalog.files_of(ids[:_NAMED].tolist())
        names = [os.fsdecode(found[0].path) for found in files.values() if found]
        more = f" and {len(ids) - len(names)} more" if len(ids) > len(names) else ""
        lacking = [space.name for space in spaces if not self.collection.among([space.fingerprint], ids).all()]
        return [
            f"Left out because {' and '.join(lacking)} {'lacks' if len(lacking) == 1 else 'lack'} them: "
            f"{', '.join(names)}{more}; `diffsim index` fills every space."
        ]

    def _token_numbers(self, spaces: Sequence[KnownSpace]) -> dict[str, int]:
        """Tokens x channels of a picture's record, by space."""
        kits = {space.fingerprint: self.collection.kit(space) for space in spaces}
        return {space: sum(tokens * channels for tokens, channels in kit.shapes) for space, kit in kits.items()}

    def _with_tokens(self, spaces: Sequence[KnownSpace]) -> str:
        """The first space that has tokens, by which near copies are told. Raises BadQuery where none has."""
        for space in spaces:
            if self.collection.kit(space).has_tokens:
                return space.fingerprint
        raise BadQuery(
            f"The feature space {spaces[0].name} is one embedding a picture, which does not tell near copies."
        )

    # Pictures

    def extract(
        self, picture: Subject, spaces: Sequence[str] = (), problems: dict[str, Error] | None = None
    ) -> ExtractedPicture:
        """Read a picture once, to query with it later without its file, also in another searcher of this index or
        another process. spaces: as in Query. problems: is given what a space that could not be extracted raised, by
        fingerprint; None raises it. Raises UnreadableImage, ..."""
        return self._encoder.extract(picture, self.choose_all(spaces), problems)

    def prepared(self, example: Example, spaces: Sequence[KnownSpace], problems: dict[str, Error]) -> Example:
        """An example that can be asked in these spaces one after the other: what the index does not have of it is
        extracted now, in one pass. problems: as in `extract`."""
        self.collection.refresh(spaces)
        return self._encoder.prepared(example, spaces, problems)

    def pair(self, a: Subject, b: Subject, space: str | None = None) -> Pair:
        """Two pictures in one space (None: the index's first), from their stored tokens if they are indexed: which
        parts of each are found in the other, and where attention falls. Raises BadQuery, ..."""
        chosen = self.choose(space)
        self.collection.refresh([chosen])
        first, second = self._encoder.encode([(Example(subject), [chosen]) for subject in (a, b)])
        return Pair.of_records(self.collection.kit(chosen), chosen.name, first.tokens, second.tokens)

    # Spaces

    def spaces(self) -> list[KnownSpace]:
        """The feature spaces of the index, oldest first."""
        return self._catalog.spaces()

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

    def choose_all(self, names: Sequence[str]) -> list[KnownSpace]:
        """The same for several names, each space once; none is the index's first."""
        return list({space.fingerprint: space for space in map(self.choose, names or (None,))}.values())

    def _visible(self) -> dict[int, int]:
        """How many pictures of each space could be hits, counted anew only when the catalog has changed."""
        generation = self._catalog.generation()
        if self._visible_at is None or self._visible_at[0] != generation:
            self._visible_at = generation, self._catalog.visible_pictures()
        return self._visible_at[1]


def _places(recalled: np.ndarray) -> dict[int, int]:
    """Id -> its place after the first stage, from 1."""
    return {row: place for place, row in enumerate(recalled.tolist(), 1)}


def _how_recalled(whole: bool) -> str:
    if whole:
        return "The region was scored against every picture."
    return "Candidates for the region were recalled by the whole picture; --exact scores every picture."
