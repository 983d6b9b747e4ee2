"""Turns a ranking into an answer: drops hits without a file, folds near copies, keeps the first k, adds notes."""

from collections.abc import Iterator
from dataclasses import replace

from diffsim.db.catalog import Catalog
from diffsim.db.chunks import chunks
from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.copies.compare import Groups, Seen

from .collection import Collection
from .locate import Locator
from .notes import (
    ALL_FOLDED,
    NOTHING_PASSES,
    REGION_AGAINST_ALL,
    REGION_RECALLED,
    absent,
    damaged_rows,
    without_sketches,
)
from .query import Answer, Hit
from .sketches import Sketches
from .stages import Candidates, EncodedQuery, Ranking

_AT_ONCE = 32

_MORE = 4
"""So many times as many candidates are recalled where near copies took the places of hits."""


def present(
    index: IndexFolder,
    catalog: Catalog,
    collection: Collection,
    asked: EncodedQuery,
    found: Candidates,
    ranking: Ranking,
) -> Answer:
    """The first k hits of a ranking, with notes."""
    locator = Locator(catalog)
    located = _located(locator, asked, found, ranking)
    unsketched = 0
    if asked.query.fold:
        with Sketches(index, catalog) as sketches:
            hits = _folded(located, asked.query.k, sketches)
            unsketched = sketches.decoded
    else:
        hits = [replace(hit, rank=rank) for rank, hit in zip(range(1, asked.query.k + 1), located, strict=False)]
    notes = [*asked.notes, *asked.own.notes, *absent(catalog, collection, found.ids[~found.everywhere], asked.spaces)]
    if asked.query.filters and not found.pictures:
        notes.append(NOTHING_PASSES)
    if not asked.query.exact and any(part.region for part in asked.parts):
        notes.append(REGION_AGAINST_ALL if found.whole else REGION_RECALLED)
    folded = sum(len(hit.duplicates) for hit in hits)
    if folded and len(hits) < asked.query.k and asked.query.max_by_chance is None and _all_recalled(asked, found):
        notes.append(ALL_FOLDED)
    if unsketched:
        notes.append(without_sketches(unsketched))
    notes += collection.notes(asked.fingerprints, ranking.unread)
    if damaged := locator.damaged | asked.own.damaged:
        notes.append(damaged_rows(len(damaged)))
    scored = len(ranking.ids) if ranking.reranked else 0
    return Answer(hits, asked.spaces, found.pictures, len(found.ids), scored, notes, ranking.reranked)


def more_for_folds(asked: EncodedQuery, found: Candidates, ranking: Ranking, answer: Answer) -> EncodedQuery | None:
    """The same query with more candidates, where near copies took the places of hits and others may follow; else
    None."""
    query = asked.query
    if not query.fold or len(answer.hits) >= query.k or _all_recalled(asked, found):
        return None
    most, last = query.max_by_chance, ranking.by_chance[-1] if len(ranking.ids) else None
    if most is not None and last is not None and last > most:
        return None
    return replace(asked, query=replace(query, candidates=_MORE * max(query.candidates, query.k)))


def _all_recalled(asked: EncodedQuery, found: Candidates) -> bool:
    return asked.query.exact or len(found.ids) < max(asked.query.candidates, asked.query.k)


def _located(locator: Locator, asked: EncodedQuery, found: Candidates, ranking: Ranking) -> Iterator[Hit]:
    """Candidates that still have a file, in order, up to the first beyond `max_by_chance`; ranks are not set yet. A
    candidate whose file has gone since the last scan is not a hit."""
    recall_ranks = {row: place for place, row in enumerate(found.ids.tolist(), 1)}
    most = asked.query.max_by_chance
    places = locator.locate_all(ranking.ids.tolist())
    figures = (ranking.scores.tolist(), ranking.likeness, ranking.by_chance)
    for row, place, score, likeness, by_chance in zip(ranking.ids.tolist(), places, *figures, strict=True):
        if most is not None and by_chance is not None and by_chance > most:
            return
        if place is None:
            continue
        paths, offline = place
        if shown := tuple(path for path in paths if path not in asked.own.files):
            yield Hit(0, score, shown[0], recall_ranks[row], likeness, by_chance, shown, offline, row)


def _folded(hits: Iterator[Hit], k: int, sketches: Sketches) -> list[Hit]:
    """The first k hits that are not copies of a better one; copies become its duplicates."""
    groups = Groups()
    leaders: list[Hit] = []
    copies: list[list[Hit]] = []
    for hit, seen in _with_sketches(hits, sketches):
        group = groups.group(seen)
        if group is not None:
            copies[group].append(replace(hit, rank=group + 1))
        elif len(leaders) == k:
            break
        else:
            leaders.append(replace(hit, rank=len(leaders) + 1))
            copies.append([])
    return [replace(hit, duplicates=tuple(more)) for hit, more in zip(leaders, copies, strict=True)]


def _with_sketches(hits: Iterator[Hit], sketches: Sketches) -> Iterator[tuple[Hit, Seen | None]]:
    """Each hit with its sketch, read in batches; None if it has none."""
    for some in chunks(hits, _AT_ONCE):
        found = sketches.of([hit.content_id for hit in some])
        for hit in some:
            yield hit, found.get(hit.content_id)
