"""Lists that are brought up to date are those that are read anew, whatever was committed in between."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import Server
from sqlalchemy import text

from diffsim.db.catalog import Catalog
from diffsim.db.files import Finding
from diffsim.db.filters import BadFilter, Filters
from diffsim.db.listing import PictureOrder
from diffsim.query.allowed import Allowed

ROOTS = (b"/photos/a", b"/photos/b", b"/photos/a-too")
NAMES = (b"1.png", b"2.png", b"x/1.png", b"x/y/1.png", b"x0.png", b"z\xff/1.png")
FILTERS = (
    Filters(min_side=50),
    Filters(folders=("/photos/a",)),
    Filters(folders=("/photos/a/x", "/photos/b"), formats=("PNG",)),
    Filters(max_bytes=103),
)
BY_PATH = """SELECT content_id FROM files JOIN contents ON contents.id = content_id JOIN roots ON roots.id = root_id
WHERE NOT missing AND files.failure IS NULL AND format IS NOT NULL ORDER BY roots.path, files.path"""
PATHS = """SELECT roots.path, files.path FROM files JOIN roots ON roots.id = root_id
WHERE NOT missing AND files.failure IS NULL AND content_id IS NOT NULL"""

_number = st.integers(0, 7)
_steps = st.one_of(
    st.tuples(st.just("find"), st.integers(0, 2), st.sampled_from(NAMES), _number),
    st.tuples(st.just("break"), st.integers(0, 2), st.sampled_from(NAMES)),
    st.tuples(st.just("move"), st.integers(0, 2), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("lose"), st.integers(0, 2), st.sampled_from(NAMES)),
    st.tuples(st.just("regain"), st.integers(0, 2), st.sampled_from(NAMES)),
    st.tuples(st.just("index"), st.sets(_number, min_size=1)),
    st.tuples(st.just("unindex"), _number),
    st.tuples(st.just("forget space")),
    st.tuples(st.just("prune")),
    st.tuples(st.just("forget root"), st.integers(0, 2)),
    st.tuples(st.just("absorb"), st.integers(0, 2)),
    st.tuples(st.just("clear failures")),
    st.tuples(st.just("look")),
)


class Changing:
    """A catalog that changes, and a reader that looks now and then."""

    def __init__(self, place: Path | str) -> None:
        self.place = place
        self.catalog = Catalog.open(place, create=True)
        self.spaces = [self.catalog.add_space(name, name, "mini", "{}") for name in ("one", "two")]
        self.allowed = Allowed(self.catalog)
        self.order: PictureOrder | None = None

    def root(self, number: int) -> int:
        known = {root.path: root.id for root in self.catalog.roots()}
        return known.get(ROOTS[number]) or self.catalog.files.add_root(ROOTS[number]).id

    def row(self, root: int, name: bytes) -> int | None:
        at = self.catalog.files.at(root, name)
        return at.id if at else None

    def finding(self, root: int, name: bytes, content: int | None) -> Finding:
        sha256, failure = (None, "broken") if content is None else (bytes([content]) * 32, None)
        return Finding(self.row(root, name), root, name, 100 + (content or 0), 1, 1, sha256, failure)

    def id_of(self, content: int) -> int | None:
        return self.catalog.content_by_sha256(bytes([content]) * 32)

    def do(self, step: tuple) -> None:
        files = self.catalog.files
        match step:
            case "find", root, name, content:
                files.write([self.finding(self.root(root), name, content)], [])
            case "break", root, name:
                files.write([self.finding(self.root(root), name, None)], [])
            case "move", root, name, to:
                old = files.at(self.root(root), name)
                if old and old.content_id and name != to:
                    content = next(n for n in range(8) if self.id_of(n) == old.content_id)
                    files.write([self.finding(self.root(root), to, content)], [old.id])
            case "lose" | "regain", root, name:
                row = [found for found in [self.row(self.root(root), name)] if found is not None]
                files.set_missing(*((row, []) if step[0] == "lose" else ([], row)))
            case "index", contents:
                ids = [found for found in map(self.id_of, sorted(contents)) if found is not None]
                self.catalog.mark_indexed(self.spaces[:1], [(row, "PNG", 40 + 5 * row, 60) for row in ids])
            case "unindex", content:
                ids = [found for found in [self.id_of(content)] if found is not None]
                self.catalog.unindex(self.spaces[0], ids)
            case ("forget space",):  # and another one comes, whose number may be the same
                self.catalog.forget_space(self.spaces.pop(0))
                name = f"space {self.catalog.generation()}"
                self.spaces.append(self.catalog.add_space(name, name, "mini", "{}"))
            case ("prune",):
                self.catalog.prune()
            case "forget root", root:
                self.catalog.forget_root(self.root(root))
            case "absorb", root:
                outer = {each.path: each for each in self.catalog.roots()}.get(b"/photos") or files.add_root(b"/photos")
                inner = next((each for each in self.catalog.roots() if each.path == ROOTS[root]), None)
                held = {each.path for each in files.below(outer.id, b"")}
                if inner and not any(
                    b"/photos/" in outer.path + b"/" and ROOTS[root][8:] + b"/" + each.path in held
                    for each in files.below(inner.id, b"")
                ):
                    files.absorb(inner, outer)
            case ("clear failures",):
                self.catalog.clear_failures()

    def passing(self, allowed: Allowed, filters: Filters) -> list[bool] | str:
        """Of each picture in the order, or the sentence about a folder of which nothing is known."""
        try:
            return np.isin(self.order.ids, allowed.ids(filters)).tolist()
        except BadFilter as problem:
            return str(problem)

    def look(self) -> None:
        """Brought up to date, everything is as read anew."""
        with self.catalog._database.reading() as connection:
            wanted = list(dict.fromkeys(connection.scalars(text(BY_PATH))))
            places = connection.execute(text(PATHS)).all()
        self.order = self.catalog.picture_order(self.order)
        assert self.order.ids.tolist() == wanted
        for filters in FILTERS:
            kept, anew = (self.passing(each, filters) for each in (self.allowed, Allowed(self.catalog)))
            assert kept == anew
        counted = dict(self.catalog.folders(100))
        for folder, files in counted.items():
            inside = [root for root, path in places if (root + b"/" + path).startswith(folder + b"/")]
            assert files == sum((folder + b"/").startswith(root + b"/") for root in inside)
        assert set(counted) >= {(root + b"/" + path).rpartition(b"/")[0] for root, path in places}


@settings(max_examples=60, deadline=None)
@given(st.lists(_steps, max_size=30))
def test_whatever_was_committed(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple]) -> None:
    look_after_each(tmp_path_factory.mktemp("lists") / "catalog.sqlite", steps)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_steps, max_size=30))
def test_whatever_was_committed_on_a_server(server: Server, steps: list[tuple]) -> None:
    with server.schema() as url:
        look_after_each(url, steps)


def look_after_each(place: Path | str, steps: list[tuple]) -> None:
    changing = Changing(place)
    with changing.catalog:
        changing.look()
        for step in steps:
            changing.look() if step[0] == "look" else changing.do(step)
        changing.look()


@pytest.fixture
def many(place: Path | str) -> Iterator[Catalog]:
    """3,000 pictures in one space, of which the first 2,000 are indexed."""
    catalog = Catalog.open(place, create=True)
    root = catalog.files.add_root(b"/photos")
    names = [b"%02d/%04d.png" % (number * 7919 % 13, number) for number in range(3000)]
    catalog.files.write(
        [Finding(None, root.id, name, 9, 1, 1, name.ljust(32), None) for number, name in enumerate(names)], []
    )
    space = catalog.add_space("one", "one", "mini", "{}")
    catalog.mark_indexed([space], [(row, "PNG", 9, 9) for row in range(1, 2001)])
    yield catalog
    catalog.close()


def reads(catalog: Catalog, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows the database is asked for."""
    from diffsim.db import arrays, listing

    counted = Counter[str]()
    real = arrays.raw_rows

    def counting(connection, statement):
        for rows in real(connection, statement):
            counted["rows"] += len(rows)
            yield rows

    monkeypatch.setattr(arrays, "raw_rows", counting)
    monkeypatch.setattr(listing, "raw_rows", counting)
    work()
    return counted["rows"]


def test_a_commit_costs_what_it_changed(many, monkeypatch):
    order = many.picture_order()
    many.mark_indexed([1], [(row, "PNG", 9, 9) for row in (2500, 2100, 2999)])
    assert reads(many, lambda: many.picture_order(order), monkeypatch) < 10
    assert many.picture_order(order).ids.tolist() == many.picture_order().ids.tolist()
    assert many.picture_order(order) is not order and many.picture_order(many.picture_order(order)).ids is not order.ids


def test_while_nothing_changes_the_order_is_the_same_object(many):
    order = many.picture_order()
    assert many.picture_order(order) is order


def test_an_order_that_does_not_fit_the_catalog_is_read_anew(many):
    """As after a backup of the catalog was put back under a running server."""
    order = many.picture_order()
    strange = PictureOrder(np.arange(5000, dtype=np.int64), order.generation - 1, order.roots)
    assert many.picture_order(strange).ids.tolist() == order.ids.tolist()
    later = PictureOrder(order.ids[:10], order.generation + 7, order.roots)
    assert many.picture_order(later).ids.tolist() == order.ids.tolist()


def test_many_changes_are_read_as_a_whole(many):
    order = many.picture_order()
    many.mark_indexed([1], [(row, "PNG", 9, 9) for row in range(1, 3001)])
    assert many.picture_order(order).ids.tolist() == many.picture_order().ids.tolist()


def test_a_picture_stays_in_the_list_when_its_only_space_is_forgotten(many):
    order, allowed = many.picture_order(), Allowed(many)
    passed = len(allowed.ids(Filters(min_side=9)))
    other = many.add_space("two", "two", "mini", "{}")
    many.mark_indexed([other], [(2500, "PNG", 9, 9)])
    many.forget_space(other)
    assert len(many.picture_order(order).ids) == len(order.ids) + 1 == 2001
    assert len(allowed.ids(Filters(min_side=9))) == passed + 1
