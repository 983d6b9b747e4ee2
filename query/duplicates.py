"""Copies in a whole index: the nearest neighbours of every picture are compared by their sketches and grouped.

Pictures are neighbours by the descriptors of a feature space, in which a copy is among the nearest; whether it is one
does not depend on the space.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from diffsim.db.catalog import KnownPicture, KnownSpace
from diffsim.db.chunks import chunks
from diffsim.errors import did_you_mean
from diffsim.retrieval.copies.compare import Seen, compare
from diffsim.retrieval.copies.kinds import kind_of
from diffsim.retrieval.names import COPY_KINDS
from diffsim.retrieval.shard.messages import SpaceQuery

from .dates import date_of
from .errors import QueryError
from .locate import Locator
from .search import Searcher
from .sketches import Sketches

_AT_ONCE = 64
_NEVER = datetime.max.replace(tzinfo=UTC)


class UnknownKind(QueryError):
    """There is no such kind of copy."""


@dataclass(frozen=True)
class Duplicate:
    """A file of a group. kind: what it is to the group's first picture, one of COPY_KINDS; None for that one.
    agreement: of its detail with the picture that it was found by, up to 1. bytes: the file's size. width, height:
    pixels. date: of the picture, or of the file where it has none, in local time. largest: none in the group has more
    pixels. oldest: none has an earlier date."""

    path: str
    kind: str | None
    agreement: float
    width: int
    height: int
    bytes: int
    date: datetime | None
    content_id: int
    largest: bool = False
    oldest: bool = False


@dataclass(frozen=True)
class Duplicates:
    """groups: the files of each; groups with the most files first. The first of a group is the largest picture without
    a caption, of several the oldest. pictures: how many were looked at. compared: how many pairs. notes: for the user,
    as sentences."""

    groups: list[list[Duplicate]]
    pictures: int
    compared: int
    notes: list[str]


@dataclass(frozen=True)
class _Link:
    """Two pictures that are alike. whole: the id of the one that the other lies in."""

    kind: str
    agreement: float
    whole: int


Links = dict[tuple[int, int], _Link]
"""By the two ids, the lower first."""


def find_duplicates(
    searcher: Searcher,
    space: str | None = None,
    kinds: Sequence[str] = (),
    neighbours: int = 10,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Duplicates:
    """Groups of copies.

    space: whose neighbours are compared; None: the index's first. kinds: only what is of these kinds beside the first
    of its group; empty means all. neighbours: how many of each picture. on_progress: called with (pictures done, in
    all).
    Raises UnknownKind, UnknownSpace.
    """
    wanted = _checked(kinds)
    chosen = searcher.choose(space)
    searcher.collection.refresh([chosen])
    ids = searcher.collection.ids(chosen.fingerprint)
    links: Links = {}
    compared = done = 0
    with Sketches(searcher.index, searcher.catalog) as sketches:
        if wanted != {"exact"}:
            for some in chunks(ids.tolist(), _AT_ONCE):
                pairs = [pair for pair in _neighbours(searcher, chosen, some, neighbours) if pair not in links]
                links.update(_linked(pairs, sketches, bursts="burst" in wanted))
                compared += len(pairs)
                done += len(some)
                on_progress(done, len(ids))
        groups = _groups(searcher, ids.tolist(), links, sketches, wanted)
    return Duplicates(groups, len(ids), compared, searcher.collection.notes([chosen.fingerprint]))


def _checked(kinds: Sequence[str]) -> set[str]:
    for kind in kinds:
        if kind not in COPY_KINDS:
            choice = ", ".join(COPY_KINDS)
            raise UnknownKind(f"There is no kind {kind!r}{did_you_mean(kind, COPY_KINDS)}; choose from {choice}.")
    return set(kinds or COPY_KINDS)


def _neighbours(searcher: Searcher, space: KnownSpace, ids: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Pairs of these pictures and their nearest. Of two that are each other's nearest the pair is there once, if both
    are among these."""
    found, descriptors = searcher.collection.descriptors(space.fingerprint, np.array(ids, np.int64))
    pairs: dict[tuple[int, int], None] = {}
    for row, descriptor in zip(found.tolist(), descriptors, strict=True):
        near, _ = searcher.collection.recall(SpaceQuery(space.fingerprint, descriptor, b""), count + 1)
        pairs.update({(min(row, other), max(row, other)): None for other in near.tolist() if other != row})
    return list(pairs)


def _linked(
    pairs: Sequence[tuple[int, int]], sketches: Sketches, *, bursts: bool
) -> Iterator[tuple[tuple[int, int], _Link]]:
    """Those of the pairs that are copies, or of one burst."""
    known = sketches.of(sorted({row for pair in pairs for row in pair}))
    for some in chunks([pair for pair in pairs if pair[0] in known and pair[1] in known], _AT_ONCE):
        links = _compared([(first, known[first], second, known[second]) for first, second in some])
        for pair, link in zip(some, links, strict=True):
            if link is not None and (bursts or link.kind != "burst"):
                yield pair, link


def _compared(pairs: Sequence[tuple[int, Seen, int, Seen]]) -> list[_Link | None]:
    """By ids and sketches; None for pictures that are not alike."""
    matches = compare([(first, second) for _, first, _, second in pairs])
    return [
        _Link(kind_of(match, first.sketch, second.sketch), match.detail, one if match.swapped else other)
        if match is not None and match.is_burst
        else None
        for match, (one, first, other, second) in zip(matches, pairs, strict=True)
    ]


def _groups(
    searcher: Searcher, ids: Sequence[int], links: Links, sketches: Sketches, wanted: set[str]
) -> list[list[Duplicate]]:
    exact = "exact" in wanted
    together = _components(links)
    linked: dict[int, Links] = {}
    for pair, link in links.items():
        linked.setdefault(together[pair[0]], {})[pair] = link
    members: dict[int, list[int]] = {}
    for row in ids if exact else together:
        members.setdefault(together.get(row, row), []).append(row)
    found = []
    for some in chunks(members.items(), _AT_ONCE):
        rows = [row for _, group in some for row in group]
        places = dict(zip(rows, Locator(searcher.catalog).locate_all(rows), strict=True))
        facts = searcher.catalog.pictures(rows)
        own = searcher.catalog.own_dates(rows, set())
        for lead, group in some:
            files = [
                _files(facts[row], place[0] if exact else place[0][:1], own.get(row))
                for row in group
                if (place := places[row]) is not None and row in facts
            ]
            if sum(map(len, files)) > 1:
                first, *others = _told(files, linked.get(lead, {}), sketches)
                if others := [file for file in others if file.kind in wanted]:
                    found.append([first, *others])
    return sorted(found, key=lambda group: (-len(group), group[0].path))


def _components(links: Links) -> dict[int, int]:
    """The group of each picture that is linked to another, by the lowest id in it."""
    lead: dict[int, int] = {}

    def leader(row: int) -> int:
        while lead.setdefault(row, row) != row:
            lead[row] = lead[lead[row]]
            row = lead[row]
        return row

    for first, second in links:
        low, high = sorted((leader(first), leader(second)))
        lead[high] = low
    return {row: leader(row) for row in list(lead)}


def _files(facts: KnownPicture, paths: Sequence[str], taken_ns: int | None) -> list[Duplicate]:
    size = facts.width, facts.height, facts.size
    return [Duplicate(path, "exact", 1.0, *size, date_of(taken_ns, [path])[0], facts.content_id) for path in paths]


def _told(files: list[list[Duplicate]], links: Links, sketches: Sketches) -> list[Duplicate]:
    """The files of a group in order, with their kinds, and which are largest and oldest."""
    captioned = {link.whole for link in links.values() if link.kind == "captioned"}
    files = sorted(files, key=lambda some: (some[0].content_id in captioned, *_order(some[0])))
    first = files[0][0].content_id
    group = []
    for some in files:
        row = some[0].content_id
        link = _Link("exact", 1.0, row) if row == first else _relation(row, first, links, sketches)
        group += [replace(file, kind=link.kind, agreement=link.agreement) for file in some]
    group[0] = replace(group[0], kind=None)
    most = max(file.width * file.height for file in group)
    first_date = min(file.date or _NEVER for file in group)
    return [replace(file, largest=file.width * file.height == most, oldest=file.date == first_date) for file in group]


def _order(file: Duplicate) -> tuple[int, datetime, int]:
    """The largest first, then the oldest."""
    return -file.width * file.height, file.date or _NEVER, file.content_id


def _relation(row: int, first: int, links: Links, sketches: Sketches) -> _Link:
    """What a picture is to the first of its group; where they are alike only through others, what it is to the one that
    it is most alike to."""
    link = links.get((min(row, first), max(row, first)))
    known = {} if link else sketches.of([row, first])
    if len(known) == 2:
        (link,) = _compared([(row, known[row], first, known[first])])
    return link or max((link for pair, link in links.items() if row in pair), key=lambda link: link.agreement)
