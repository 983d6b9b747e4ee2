"""How much of the exhaustive ranking does the first stage bring in? Measured on the user's own index.

The queries are a seeded sample of the indexed pictures. Each is scored against every other picture, which gives the
true nearest; then the two stages run as in a normal query, with the same FAISS file and the same tail, for several
numbers of candidates. Nothing is simulated: the seconds are those of this machine, with the index warm in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.retrieval.evaluation.bootstrap import Figure, mean_figure
from diffsim.retrieval.shard.messages import SpaceQuery
from diffsim.retrieval.shard.rerank import rank

from ..collection import Collection
from ..stages import examples_of, recall_candidates

COUNTS = (25, 50, 100, 200, 400, 800)
"""Numbers of candidates to try, as far as the collection has more pictures."""

TOP = 10
"""The exhaustive neighbours that the first stage should bring in."""

TARGET = 0.99
"""A number of candidates is enough if the lower end of its recall interval reaches this share."""


@dataclass(frozen=True)
class Candidates:
    """One number of candidates. recall: share of the exhaustive top among them, 0..1, mean over the queries, with its
    95 % interval by bootstrap over the queries. seconds: median of recalling and scoring them."""

    count: int
    recall: Figure
    seconds: float


@dataclass(frozen=True)
class Audit:
    """One space. pictures: how many can be hits. queries: how many were run. top: how many nearest each should find.

    candidates: from the fewest to the most; empty if the collection is so small that the fewest are all of it.
    enough: the smallest count whose lower end reaches 99 %, None if none does. exact_seconds: median of scoring
    everything; seconds_per_candidate: the same for one picture. notes: for the user, as sentences.
    """

    space: KnownSpace
    pictures: int
    queries: int
    top: int
    candidates: tuple[Candidates, ...]
    enough: int | None
    exact_seconds: float
    seconds_per_candidate: float
    notes: tuple[str, ...]


def audit(
    collection: Collection,
    space: KnownSpace,
    *,
    queries: int = 50,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit | None:
    """Measure one space; None if it has fewer than two pictures to compare.

    The same seed selects the same query pictures while the collection stays the same. on_progress: queries done, all.
    """
    on_progress(0, queries)  # what comes first takes a while too
    collection.refresh([space])
    pictures = collection.ids(space.fingerprint)
    asking = np.random.default_rng(seed).permutation(pictures)[:queries].tolist()
    counts = [count for count in COUNTS if count < len(pictures) - 1]
    shares: list[list[float]] = []
    seconds: list[list[float]] = []
    exact: list[tuple[float, int]] = []
    for done, content_id in enumerate(asking):
        on_progress(done, len(asking))
        features = collection.features(space.fingerprint, content_id)
        others = pictures[pictures != content_id]
        if features is None or not len(others):
            continue
        query = SpaceQuery(space.fingerprint, features.descriptor, features.tokens, content_id=content_id)
        started = perf_counter()
        ids, (scores,) = collection.score([query], others)
        exact.append((perf_counter() - started, len(ids)))
        nearest = ids[rank(ids, scores)[:TOP]]
        found, took = [], []
        for count in counts:
            started = perf_counter()
            recalled, _ = recall_candidates(collection, [query], count, left_out=examples_of([query]))
            collection.score([query], recalled)
            took.append(perf_counter() - started)
            found.append(float(np.isin(nearest, recalled).mean()))
        shares.append(found)
        seconds.append(took)
    on_progress(len(asking), len(asking))
    if not shares:
        return None
    units = [str(number) for number in range(len(shares))]
    tried = tuple(
        Candidates(count, mean_figure(np.array(found), units, seed), float(np.median(took)))
        for count, found, took in zip(counts, zip(*shares, strict=True), zip(*seconds, strict=True), strict=True)
    )
    return Audit(
        space,
        len(pictures),
        len(shares),
        min(TOP, len(pictures) - 1),
        tried,
        next((one.count for one in tried if one.recall.low is not None and one.recall.low >= TARGET), None),
        float(np.median([took for took, _ in exact])),
        float(np.median([took / count for took, count in exact])),
        tuple(collection.notes([space.fingerprint], len(asking) - len(shares))),
    )
