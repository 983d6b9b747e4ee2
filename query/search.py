"""Search an index for a picture's neighbours: encode, recall by descriptors, rerank by the full score, present.

Nothing here writes: an index on a read-only disk can be searched, even while another process adds to it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from typing import Literal, Self, TypeVar, overload

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.db.chunks import chunks
from diffsim.db.filters import NO_FILTERS, Filters
from diffsim.errors import Error
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.paths import given_path
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.region import Box

from .allowed import Allowed, Coloured
from .choose import SpaceChooser
from .collection import Collection
from .colours import Colour
from .dates import dates_used, described, metadata_used
from .encode import Encoder, without_errors
from .extract_pictures import TOGETHER, PictureExtractor
from .own_files import NOTHING_LEFT_OUT, own_files
from .pair import Pair
from .present import more_for_folds, present
from .query import Answer, BadQuery, Embeddings, Example, ExtractedPicture, Hit, Query, Subject, Text
from .stages import Candidates, EncodedQuery, Scored, first_order, recall, rerank, score_null_samples
from .texts import spaces_of_text
from .weighed import WeighedSpace, weighed_spaces

T = TypeVar("T")

SHARD_TIMEOUT_S = 30.0


class Searcher:
    """An open index. Picks up changes since the last query automatically.

    One thread at a time: give each thread its own searcher. Searchers of one index in one process share its
    memory-mapped files, and no other state that a query changes. device: `auto`, `cpu`, `cuda` or `cuda:N`, where
    networks run and scores are computed. shard_timeout: of an index on a cluster, for how many seconds an
    answer waits for a shard before it is given without it. Raises NoIndex, BadDevice, NoCluster, ...
    """

    def __init__(
        self, index: str | os.PathLike[str], device: str = "auto", *, shard_timeout: float = SHARD_TIMEOUT_S
    ) -> None:
        self.index = IndexFolder.open(given_path(index))
        chosen = choose_device(device)
        self.catalog = self.index.catalog(readonly=True)
        self.collection = Collection(self.index, self.catalog, chosen, shard_timeout)
        self._pictures = PictureExtractor(self.collection, chosen)
        self._encoder = Encoder(self.catalog, self.collection, self._pictures)
        self._allowed = Allowed(self.catalog)
        self._chooser = SpaceChooser(self.index.path, self.catalog)
        self._coloured = Coloured(self.collection, self._chooser, self.catalog.generation)

    def close(self) -> None:
        """Release the index's files and end the decoding processes. Closing twice is harmless; a query to a closed
        searcher opens them again."""
        self._pictures.close()
        self.collection.close()
        self.catalog.close()

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
        colours: Sequence[Colour | str] = (),
    ) -> list[Hit]:
        """The neighbours of a picture, or of several examples, best first. region: only with a single picture. The
        other settings are Query's fields. Raises as `answer` does."""
        if region is not None:
            if isinstance(examples, Example | list | tuple):
                raise BadQuery("A region belongs to one picture; give it to the example: Example(picture, region=...).")
            examples = Example(examples, region=region)  # type: ignore[arg-type]
        query = Query(
            examples, spaces, k, candidates, rerank, exact, include_self, max_by_chance, filters, fold, colours
        )
        return self.answer(query).hits

    def answer(self, query: Query) -> Answer:
        """The neighbours and how they were found. Raises BadQuery, BadRegion, UnknownSpace,
        UnreadableImage, ..."""
        return self._answered(self.encode(query))

    def _answered(self, asked: EncodedQuery, known: Scored | None = None, found: Candidates | None = None) -> Answer:
        answer, further, known = self._ranked(asked, known, found)
        return self._described(asked, answer) if further is None else self._answered(further, known)

    def _ranked(
        self, asked: EncodedQuery, known: Scored | None, found: Candidates | None
    ) -> tuple[Answer, EncodedQuery | None, Scored | None]:
        """The answer, the same query with more candidates if it needs them, and the scores that were found."""

        def work() -> tuple[Answer, EncodedQuery | None, Scored | None]:
            candidates = found if found and self.collection.answering == before else recall(self.collection, asked)
            scored = known if self.collection.answering == before else None
            both = asked.query.rerank
            ranking = rerank(self.collection, asked, candidates, scored) if both else first_order(asked, candidates)
            answer = present(self.index, self.catalog, self.collection, asked, candidates, ranking)
            return answer, more_for_folds(asked, candidates, ranking, answer), ranking.known

        before = self.collection.answering
        return self._steadily(work)

    def _steadily(self, work: Callable[[], T]) -> T:
        """What `work` gives when all its steps were answered by the same shards: it is done again when one is lost."""
        while True:
            before = self.collection.answering
            done = work()
            self.collection.check_answering()
            if self.collection.answering == before:
                return done

    def _described(self, asked: EncodedQuery, answer: Answer) -> Answer:
        unanswered = self.collection.unanswered(asked.spaces)
        answer = described(self.catalog, replace(answer, unanswered=tuple(unanswered)))
        filters, notes = asked.query.filters, [*map(str, unanswered), *answer.notes]
        if filters.dated:
            notes += dates_used(*self._allowed.count_undated(filters))
        if filters.of_metadata:
            notes += metadata_used(self._allowed.count_unread())
        return replace(answer, notes=notes)

    @overload
    def search_many(
        self, queries: Iterable[Query | Example | Subject], *, errors: Literal["raise"] = "raise"
    ) -> list[Answer]: ...

    @overload
    def search_many(
        self, queries: Iterable[Query | Example | Subject], *, errors: Literal["return"]
    ) -> list[Answer | Error]: ...

    def search_many(
        self, queries: Iterable[Query | Example | Subject], *, errors: Literal["raise", "return"] = "raise"
    ) -> list[Answer] | list[Answer | Error]:
        """The answer to each query, in order; a picture alone is a query with the defaults.

        Quicker than one by one: pictures that are not indexed go through the networks in batches, and the null samples
        of queries in the same spaces are scored together. errors: `return` puts a query's error in place of its answer
        and goes on; `raise` raises the first.
        """
        if errors not in ("raise", "return"):
            raise BadQuery(f"The value {errors!r} of errors is unknown; choose `raise` or `return`.")
        found: list[Answer | Error] = []
        for some in chunks(queries, TOGETHER):
            for answer in self._answer_together(some):
                if errors == "raise" and isinstance(answer, Error):
                    raise answer
                found.append(answer)
        return found

    def _answer_together(self, queries: Sequence[Query | Example | Subject]) -> Iterator[Answer | Error]:
        encoded = self._encode_together(queries)
        asking = [each for each in encoded if isinstance(each, EncodedQuery)]
        known = iter(self._steadily(lambda: score_null_samples(self.collection, asking)))
        answering = self.collection.answering
        for asked in encoded:
            try:
                scored = None if isinstance(asked, Error) else next(known)
                if self.collection.answering != answering:
                    scored = None
                yield asked if isinstance(asked, Error) else self._answered(asked, scored)
            except Error as problem:
                yield problem

    def _encode_together(self, queries: Sequence[Query | Example | Subject]) -> list[EncodedQuery | Error]:
        """As `encode`, with one pass of a network for all pictures that it needs."""
        checked: list[Query | Error] = []
        examples: list[tuple[Example, list[KnownSpace]]] = []
        for each in queries:
            try:
                query = each if isinstance(each, Query) else Query(each)
                placed = [(example, _known(spaces)) for example, spaces in self._in_spaces(query)]
                self.collection.refresh([space for _, spaces in placed for space in spaces])
            except Error as problem:
                checked.append(problem)
            else:
                checked.append(query)
                examples += placed
        ready = iter(self._encoder.prepared(examples))
        found: list[EncodedQuery | Error] = []
        for known in checked:
            try:
                if isinstance(known, Error):
                    raise known
                own = list(islice(ready, len(known.all_examples)))
                found.append(self.encode(replace(known, examples=without_errors(own))))
            except Error as problem:
                found.append(problem)
        return found

    def answers(self, query: Query) -> Iterator[Answer]:
        """The same in two steps: first the hits in the order of the first stage, with cosines of descriptors as scores
        and `reranked` False, as soon as they are known; then the answer as from `answer`."""
        asked = self.encode(query)

        def work() -> tuple[Candidates, Answer]:
            found = recall(self.collection, asked)
            return found, present(self.index, self.catalog, self.collection, asked, found, first_order(asked, found))

        found, first = self._steadily(work)
        yield self._described(asked, first)
        if query.rerank:
            yield self._answered(asked, found=found)

    def encode(self, query: Query) -> EncodedQuery:
        """The first step: brings the spaces up to date and gives every example's features in each of its spaces.
        Features of an indexed picture are read, others extracted: one decoding, one pass of each network."""
        examples = self._in_spaces(query)
        spaces = list({space.fingerprint: space for _, each in examples for space in _known(each)}.values())
        self.collection.refresh([*spaces, *([self._coloured.space()] if query.colours else [])])
        parts = self._encoder.encode(examples)
        notes = [
            note
            for example, each in examples
            if isinstance(example.subject, Text)
            for note in self._encoder.texts.notes(_known(each), example.subject)
        ]
        allowed = self.allowed(query.filters, query.all_colours)
        own = NOTHING_LEFT_OUT
        if not query.include_self:
            ends = accumulate(len(each) for _, each in examples)
            own = own_files(self.catalog, query.all_examples, [parts[end - 1].content_id for end in ends])
        return EncodedQuery(query, spaces, parts, allowed, own, notes)

    def coloured(self, colours: Sequence[Colour]) -> np.ndarray:
        """The contents with enough of each of the colours: ids int64, ascending. Raises BadColour."""
        self.collection.refresh([self._coloured.space()])
        return self._coloured.ids(colours)

    def allowed(self, filters: Filters, colours: Sequence[Colour]) -> np.ndarray | None:
        """The contents that may be hits: ids int64, ascending; None without filters. Raises BadFilter, BadColour."""
        passing = self._allowed.ids(filters) if filters else None
        if not colours:
            return passing
        coloured = self._coloured.ids(colours)
        return coloured if passing is None else np.intersect1d(passing, coloured, assume_unique=True)

    def _in_spaces(self, query: Query) -> list[tuple[Example, list[WeighedSpace]]]:
        return [(example, self._spaces_of(example, query)) for example in query.all_examples]

    def _spaces_of(self, example: Example, query: Query) -> list[WeighedSpace]:
        if isinstance(example.subject, Text):
            return spaces_of_text(self._chooser, example, query)
        return weighed_spaces(self._chooser, example.spaces or query.spaces)

    # Pictures

    def extract(
        self, picture: Subject, spaces: Sequence[str] = (), problems: dict[str, Error] | None = None
    ) -> ExtractedPicture:
        """Read a picture once, to query with it later without its file, also in another searcher of this index or
        another process. spaces: as in Query. problems: receives the error of each space that could not be extracted, by
        fingerprint; if None, it is raised. Raises UnreadableImage, ..."""
        return self._pictures.extract(picture, self.choose_all(spaces), problems)

    def prepared(
        self, examples: Sequence[Example], spaces: Sequence[KnownSpace], problems: dict[str, Error]
    ) -> list[Example]:
        """Examples ready to be queried in these spaces one after the other: features that the index lacks are extracted
        now, in one pass. problems: as in `extract`. Raises as `extract` does."""
        self.collection.refresh(spaces)
        return without_errors(self._encoder.prepared([(example, spaces) for example in examples], problems))

    def pair(self, a: Subject, b: Subject, space: str | None = None, region: Box | None = None) -> Pair:
        """Two pictures in one space (None: the index's first), from their stored tokens if they are indexed: which
        parts of each are found in the other, and where attention falls. region: the box of `a` that is compared, as in
        an Example. Raises BadQuery, BadRegion, ..."""
        if isinstance(a, Text) or isinstance(b, Text):
            raise BadQuery("Two pictures are compared part by part, and a text has no parts; give two pictures.")
        chosen = self.choose(space)
        self.collection.refresh([chosen])
        asked = [(Example(a, region=region), [(chosen, 1.0)]), (Example(b), [(chosen, 1.0)])]
        first, second = self._encoder.encode(asked)
        return Pair.of_records(self.collection.kit(chosen), chosen.name, first.tokens, second.tokens, first.region)

    def embeddings(self, space: str | None = None) -> Embeddings:
        """The descriptors of all pictures of a space (None: the index's first) that can be hits, for other uses:
        clustering, a plot, another vector search. Raises UnknownSpace, ..."""
        chosen = self.choose(space)
        self.collection.refresh([chosen])
        ids, descriptors = self.collection.descriptors(chosen.fingerprint, self.collection.ids(chosen.fingerprint))
        paths = [
            os.fsdecode(files[0].path) if files else None
            for some in chunks(ids.tolist())
            for files in self.catalog.files_of(some).values()
        ]
        there = np.array([path is not None for path in paths], np.bool_)
        return Embeddings(
            ids[there], [path for path in paths if path is not None], descriptors[there].astype(np.float32)
        )

    # Spaces

    def spaces(self) -> list[KnownSpace]:
        """The feature spaces of the index, oldest first."""
        return self._chooser.all()

    def choose(self, wanted: str | None) -> KnownSpace:
        """The feature space with this name or fingerprint; None means the index's first. Raises UnknownSpace."""
        return self._chooser.one(wanted)

    def choose_all(self, names: Sequence[str]) -> list[KnownSpace]:
        """The same for several names, each space once; an empty sequence means the index's first."""
        return self._chooser.several(names)


def _known(spaces: Sequence[WeighedSpace]) -> list[KnownSpace]:
    """The spaces without their weights."""
    return [space for space, _ in spaces]
