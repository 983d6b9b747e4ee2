"""The two stages of a query over a collection: recall by descriptors, then the full score, judged against chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.retrieval.chance import NULL_SAMPLE, combined, fit_tail
from diffsim.retrieval.shard.members import Members
from diffsim.retrieval.shard.messages import SpaceQuery
from diffsim.retrieval.shard.recall import Found
from diffsim.retrieval.shard.rerank import rank

from .collection import Collection
from .own_files import OwnFiles
from .query import Query

REGION_FACTOR = 5
"""A region recalls this many times as many candidates: by the descriptor of the whole picture, because that brings in
more of the true nearest than a descriptor of the region's own map (docs/querying.md)."""

EXHAUSTIVE_NUMBERS = 32_000_000
"""Up to this many token numbers, pictures x tokens x channels, a region is scored against every picture."""


@dataclass(frozen=True, eq=False)
class EncodedQuery:
    """A query after its first step. spaces: all that are queried. parts: each example in each of its spaces. allowed:
    ids of the pictures that pass the filters, int64, None without filters. own: the examples' own files. notes: what
    was cut of its texts, as sentences."""

    query: Query
    spaces: list[KnownSpace]
    parts: list[SpaceQuery]
    allowed: np.ndarray | None
    own: OwnFiles
    notes: Sequence[str] = ()

    @property
    def fingerprints(self) -> list[str]:
        """Fingerprints of the spaces."""
        return [space.fingerprint for space in self.spaces]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Results of the first stage, best first. ids: int64 [n]. cosines: float32 [n], in the part that ranks a picture
    highest. everywhere: bool [n], whether every space has the picture. whole: spaces in which regions are scored
    against every picture. pictures: how many could be hits."""

    ids: np.ndarray
    cosines: np.ndarray
    everywhere: np.ndarray
    whole: list[str]
    pictures: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ordered candidates. ids: int64 [n]. scores: float32 [n], full scores, or cosines if only those are known.
    likeness, by_chance: how far they stand above what the sample scores, and how many pictures would be expected to
    score as high by chance; None if that was not estimated.
    reranked: whether these are full scores. unread: candidates whose features could not be read. known: all scores that
    were found, the sample's too; None without full scores."""

    ids: np.ndarray
    scores: np.ndarray
    likeness: Sequence[float | None]
    by_chance: Sequence[float | None]
    reranked: bool
    unread: int = 0
    known: "Scored | None" = None


@dataclass(frozen=True, eq=False)
class Scored:
    """Full scores. ids: int64 [n]. rows: float32 [parts, n]."""

    ids: np.ndarray
    rows: np.ndarray


def recall(collection: Collection, asked: EncodedQuery) -> Candidates:
    """The first stage."""
    query = asked.query
    whole = _scored_whole(collection, asked)
    count = None if query.exact else max(query.candidates, query.k)
    ids, cosines = recall_candidates(
        collection, asked.parts, count, allowed=asked.allowed, left_out=asked.own.contents, whole=whole
    )
    everywhere = collection.among(asked.fingerprints, ids)
    return Candidates(ids, cosines, everywhere, whole, collection.count(asked.fingerprints, asked.allowed))


def first_order(asked: EncodedQuery, found: Candidates) -> Ranking:
    """The candidates in the order of the first stage; with reranking to come, only those that will be scored."""
    shown = found.everywhere | (not asked.query.rerank)
    nothing = [None] * int(shown.sum())
    return Ranking(found.ids[shown], found.cosines[shown], nothing, nothing, reranked=False)


def rerank(collection: Collection, asked: EncodedQuery, found: Candidates, known: Scored | None = None) -> Ranking:
    """The second stage: the candidates by their full scores, each judged against chance. known: what need not be scored
    any more.

    With several parts the score is their weighted sum in units of the sample's (retrieval/chance.py). The sample is
    drawn from the whole collection regardless of filters: similarity by chance does not depend on the subset that is
    searched.
    """
    wanted = found.ids[found.everywhere]
    if not len(wanted):
        return Ranking(wanted, np.empty(0, np.float32), [], [], reranked=True)
    examples = examples_of(asked.parts)
    sample = collection.null_sample(asked.fingerprints, NULL_SAMPLE, examples)
    ids, rows = _scored(collection, asked.parts, np.concatenate([wanted, np.setdiff1d(sample, wanted)]), known)
    null, candidate = np.isin(ids, sample), np.flatnonzero(np.isin(ids, wanted))
    scores, likenesses = combined(rows, np.array([part.weight for part in asked.parts]), null)
    tail = fit_tail(likenesses[null])
    order = candidate[rank(ids[candidate], scores[candidate], asked.parts[0].content_id)]
    if asked.allowed is not None:
        examples = examples[Members.of(asked.allowed).has(examples)]
    others = found.pictures - int(np.count_nonzero(collection.among(asked.fingerprints, examples)))
    return Ranking(
        ids[order],
        scores[order],
        likenesses[order].tolist() if tail else [None] * len(order),
        tail.expected(likenesses[order], others) if tail else [None] * len(order),
        reranked=True,
        unread=len(wanted) - len(order),
        known=Scored(ids, rows),
    )


def score_null_samples(collection: Collection, queries: Sequence[EncodedQuery]) -> list[Scored | None]:
    """The scores of each query's null sample, those of queries in the same spaces together: reading a record and
    computing its keys, values and own map is most of the work, and is done once for all of them."""
    found: list[Scored | None] = [None] * len(queries)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, asked in enumerate(queries):
        if asked.query.rerank:
            groups.setdefault(tuple(asked.fingerprints), []).append(number)
    for spaces, numbers in groups.items():
        if len(numbers) == 1:
            continue
        parts = [part for number in numbers for part in queries[number].parts]
        # As many more as there are examples: each query leaves out its own.
        ids = collection.null_sample(spaces, NULL_SAMPLE + len(examples_of(parts)), np.empty(0, np.int64))
        ids, rows = collection.score(parts, ids)
        own = iter(rows)
        for number in numbers:
            found[number] = Scored(ids, np.stack([next(own) for _ in queries[number].parts]))
    return found


def _scored(
    collection: Collection, parts: Sequence[SpaceQuery], ids: np.ndarray, known: Scored | None
) -> tuple[np.ndarray, np.ndarray]:
    """As Collection.score."""
    if known is None:
        return collection.score(parts, ids)
    found, rows = collection.score(parts, ids[~np.isin(ids, known.ids)])
    wanted = np.isin(known.ids, ids)
    return np.concatenate([found, known.ids[wanted]]), np.concatenate([rows, known.rows[:, wanted]], axis=1)


def recall_candidates(
    collection: Collection,
    parts: Sequence[SpaceQuery],
    count: int | None,
    *,
    allowed: np.ndarray | None = None,
    left_out: np.ndarray,
    whole: Sequence[str] = (),
) -> Found:
    """The `count` nearest by descriptor to each part of positive weight (None: every picture), best rank first.

    allowed: recall only these ids. left_out: never these, int64. whole: spaces in which a region recalls every picture;
    elsewhere it recalls REGION_FACTOR times as many. Returns ids int64 and cosines float32 in the part that ranks a
    picture highest.
    """
    first: dict[int, tuple[int, float]] = {}
    for part in parts:
        if part.weight < 0:
            continue
        every = count is None or (part.region is not None and part.space in whole)
        wanted = None if every or count is None else count * (REGION_FACTOR if part.region else 1)
        ids, cosines = collection.recall(part, None if wanted is None else wanted + len(left_out), allowed)
        kept = ~np.isin(ids, left_out)
        rows = zip(ids[kept][:wanted].tolist(), cosines[kept][:wanted].tolist(), strict=True)
        for place, (row, cosine) in enumerate(rows):
            if row not in first or place < first[row][0]:
                first[row] = place, cosine
    ordered = sorted(first, key=lambda row: first[row][0])
    return np.array(ordered, np.int64), np.array([first[row][1] for row in ordered], np.float32)


def examples_of(parts: Sequence[SpaceQuery]) -> np.ndarray:
    """The ids of the examples that are in the index, int64, ascending."""
    return np.unique(np.array([part.content_id for part in parts if part.content_id is not None], np.int64))


def _scored_whole(collection: Collection, asked: EncodedQuery) -> list[str]:
    """Spaces in which a region is scored against every picture, because few pictures or few tokens make it fast."""
    with_region = {part.space for part in asked.parts if part.region is not None}
    spaces = [space for space in asked.spaces if space.fingerprint in with_region]

    def numbers(space: KnownSpace) -> int:
        tokens = sum(tokens * channels for tokens, channels in collection.kit(space).shapes)
        return collection.count([space.fingerprint], asked.allowed) * tokens

    return [space.fingerprint for space in spaces if numbers(space) <= EXHAUSTIVE_NUMBERS]
