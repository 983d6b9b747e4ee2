"""From ids and scores to hits: what still has a file, near copies under their best, the first k."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffsim.db.catalog import Catalog
from diffsim.retrieval.shard.near_copies import SAMPLE, NearCopies

from .collection import Collection
from .locate import Locator
from .query import Hit, Query

_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates in their final order. ids: int64 [n]; scores: float32 [n]; by_chance: per candidate, None where it was
    not judged; recall_ranks: by id, its place after the first stage, from 1."""

    ids: np.ndarray
    scores: np.ndarray
    by_chance: Sequence[float | None]
    recall_ranks: dict[int, int]


def hits_of(catalog: Catalog, ranking: Ranking, query: Query) -> list[Hit]:
    """The first k contents that still have a file; one whose file is gone since the last scan is no hit."""
    found: list[Hit] = []
    for hit in _located(catalog, ranking, query):
        if len(found) == query.k:
            break
        found.append(replace(hit, rank=len(found) + 1))
    return found


def folded_hits_of(catalog: Catalog, ranking: Ranking, query: Query, collection: Collection, space: str) -> list[Hit]:
    """The same, with near copies of a better hit among its duplicates: told by the values of one space with tokens."""
    nobody = np.empty(0, np.int64)
    sample = collection.values(space, collection.null_sample([space], SAMPLE, nobody))
    near = NearCopies(torch.from_numpy(np.stack(list(sample.values()))) if sample else torch.empty(0, 0))
    leaders: list[Hit] = []
    copies: list[list[Hit]] = []
    for hit, values in _with_values(_located(catalog, ranking, query), collection, space):
        group = near.group(values)
        if group is not None:
            copies[group].append(replace(hit, rank=group + 1))
        elif len(leaders) == query.k:
            break
        else:
            leaders.append(replace(hit, rank=len(leaders) + 1))
            copies.append([])
    return [replace(hit, duplicates=tuple(more)) for hit, more in zip(leaders, copies, strict=True)]


def _located(catalog: Catalog, ranking: Ranking, query: Query) -> Iterator[Hit]:
    """Candidates that have a file, in order, up to the first beyond `max_by_chance`. Their ranks are not set yet."""
    places = Locator(catalog).locate_all(ranking.ids.tolist())
    rows = zip(ranking.ids.tolist(), ranking.scores.tolist(), ranking.by_chance, places, strict=True)
    for row, score, by_chance, place in rows:
        if query.max_by_chance is not None and by_chance is not None and by_chance > query.max_by_chance:
            return
        if place is not None:
            paths, offline = place
            yield Hit(0, score, paths[0], ranking.recall_ranks[row], by_chance, paths, offline, row)


def _with_values(hits: Iterator[Hit], collection: Collection, space: str) -> Iterator[tuple[Hit, torch.Tensor | None]]:
    """Each hit with its place values, read for many at once; None where they cannot be read."""
    while some := [hit for hit, _ in zip(hits, range(_AT_ONCE), strict=False)]:
        values = collection.values(space, np.array([hit.content_id for hit in some], np.int64))
        for hit in some:
            vector = values.get(hit.content_id)
            yield hit, None if vector is None else torch.from_numpy(vector)
