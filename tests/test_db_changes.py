"""Incremental reading: whatever is committed, the changes lead to the same state as reading everything."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import Server
from sqlalchemy import event
from test_db_catalog import add_files, set_missing, sha

from diffsim.db import changes
from diffsim.db.catalog import Catalog
from diffsim.db.changes import SpaceChanges
from diffsim.db.files import Finding


@pytest.fixture
def catalog(place: Path | str) -> Iterator[Catalog]:
    with Catalog.open(place, create=True) as catalog:
        yield catalog


@pytest.fixture
def space(catalog: Catalog) -> int:
    """Five pictures, all in one space, two contents a shard."""
    catalog.set_shard_capacity(2)
    space = catalog.add_space("style", "style", "mini", "{}")
    add_files(catalog, {b"%d.jpg" % n: n for n in range(1, 6)})
    catalog.mark_indexed([space], [(n, "JPEG", 4, 4) for n in range(1, 6)])
    return space


def row(catalog: Catalog, path: bytes) -> int:
    (found,) = (row.id for root in catalog.roots() for row in catalog.files.below(root.id, b"") if row.path == path)
    return found


def test_nothing_changed(catalog: Catalog, space: int) -> None:
    found = catalog.space_changes(space, catalog.generation())
    assert (found.ids.shape, found.sha256.shape, found.gone.shape) == ((0,), (0, 32), (0,))
    assert not found.complete and found.generation == catalog.generation()


def test_the_types(catalog: Catalog, space: int) -> None:
    before = catalog.generation()
    set_missing(catalog, b"2.jpg")
    for found in (catalog.space_changes(space, -1), catalog.space_changes(space, before)):
        n = len(found.ids)
        assert (found.ids.dtype, found.shards.dtype, found.generations.dtype) == (np.int64, np.int32, np.int64)
        assert (found.sha256.dtype, found.sha256.shape) == (np.uint8, (n, 32))
        assert (found.visible.dtype, found.gone.dtype) == (np.bool_, np.int64)
        assert found.ids.tolist() == sorted(found.ids.tolist()) and n == (5 if found.complete else 1)


def missing(catalog: Catalog) -> None:
    set_missing(catalog, b"2.jpg")


def back(catalog: Catalog) -> None:
    catalog.files.set_missing([], [row(catalog, b"1.jpg")])


def another_file(catalog: Catalog) -> None:
    add_files(catalog, {b"copy.jpg": 3})


def moved(catalog: Catalog) -> None:
    (root,) = catalog.roots()
    catalog.files.write([Finding(None, root.id, b"new.jpg", 1, 1, 1, sha(4), None)], [row(catalog, b"4.jpg")])


def other_bytes(catalog: Catalog) -> None:
    (root,) = catalog.roots()
    catalog.files.write([Finding(row(catalog, b"4.jpg"), root.id, b"4.jpg", 1, 1, 1, sha(5), None)], [])


def unreadable(catalog: Catalog) -> None:
    (root,) = catalog.roots()
    catalog.files.write([Finding(row(catalog, b"5.jpg"), root.id, b"5.jpg", 1, 1, 1, None, "closed")], [])


def failed(catalog: Catalog) -> None:
    catalog.mark_failed(3, "truncated")


def pruned(catalog: Catalog) -> None:
    set_missing(catalog, b"2.jpg")
    catalog.prune()


def forgotten(catalog: Catalog) -> None:
    catalog.forget_root(catalog.roots()[0].id)


def unindexed(catalog: Catalog) -> None:
    catalog.unindex(1, [2, 5])


def written_anew(catalog: Catalog) -> None:
    catalog.mark_indexed([1], [(2, "JPEG", 4, 4)])


@pytest.mark.parametrize(
    ("commit", "changed", "gone"),
    [
        (missing, [2], []),
        (back, [1], []),
        (another_file, [3], []),
        (moved, [4], []),
        (other_bytes, [4, 5], []),
        (unreadable, [5], []),
        (failed, [3], []),
        (pruned, [], [1, 2]),  # 1 was missing before
        (forgotten, [], [1, 2, 3, 4, 5]),
        (unindexed, [], [2, 5]),
        (written_anew, [2], []),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_a_commit_changes(
    catalog: Catalog, space: int, commit: Callable[[Catalog], None], changed: list[int], gone: list[int]
) -> None:
    set_missing(catalog, b"1.jpg")
    before = catalog.generation()
    commit(catalog)
    found = catalog.space_changes(space, before)
    assert (found.ids.tolist(), found.gone.tolist(), found.complete) == (changed, gone, False)
    shards = [catalog.space_changes(space, before, shard) for shard in range(3)]
    assert [shard.ids.tolist() for shard in shards] == [[n for n in changed if (n - 1) // 2 == s] for s in range(3)]
    assert [shard.gone.tolist() for shard in shards] == [[n for n in gone if (n - 1) // 2 == s] for s in range(3)]
    after = catalog.space_changes(space, catalog.generation())
    assert len(after.ids) == len(after.gone) == 0


def test_what_changes_nothing(catalog: Catalog, space: int) -> None:
    (root,) = catalog.roots()
    before = catalog.generation()
    same = Finding(row(catalog, b"4.jpg"), root.id, b"4.jpg", 10, 7, 7, sha(4), None)
    catalog.files.write([same], [])  # it was touched
    add_files(catalog, {b"new.jpg": 6})
    catalog.add_space("look", "look", "mini", "{}")
    catalog.set_recall_file(space, 0, 1, "abc")
    found = catalog.space_changes(space, before)
    assert len(found.ids) == len(found.gone) == 0 and not found.complete
    assert not any(catalog.count_changes(space, before, shard) for shard in range(3))


def test_the_changes_of_a_shard_are_counted(catalog: Catalog, space: int) -> None:
    before = catalog.generation()
    catalog.mark_indexed([space], [(3, "JPEG", 4, 4)])
    set_missing(catalog, b"3.jpg", b"4.jpg", b"5.jpg")
    catalog.unindex(space, [1])
    counts = [catalog.count_changes(space, before, shard) for shard in range(3)]
    assert counts == [1, 2, 1]
    assert catalog.last_change(space) == catalog.generation()


def test_what_is_not_known_any_more_is_read_whole(
    catalog: Catalog, space: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = catalog.generation()
    set_missing(catalog, b"2.jpg")
    catalog.set_recall_file(space, 0, catalog.generation(), "abc")
    before = catalog.generation()
    catalog.forget_changes()  # too few to be worth it
    assert catalog.generation() == before and catalog.space_changes(space, began).ids.tolist() == [2]
    monkeypatch.setattr(changes, "ROWS_KEPT", 0)
    catalog.forget_changes()
    assert catalog.generation() == before + 1
    whole = catalog.space_changes(space, began)
    assert whole.complete and whole.ids.tolist() == [1, 2, 3, 4, 5]
    assert not catalog.space_changes(space, before - 1).complete  # what the FAISS file covers
    catalog.forget_changes()
    assert catalog.generation() == before + 1


def test_a_future_generation_is_read_whole(catalog: Catalog, space: int) -> None:
    """An older catalog was put in the place of the one that was read."""
    assert catalog.space_changes(space, catalog.generation() + 1).complete


def test_a_space_that_took_the_id_of_another_is_read_whole(catalog: Catalog, space: int) -> None:
    before = catalog.generation()
    catalog.forget_space(space)
    nothing = catalog.space_changes(space, before)
    assert nothing.complete and len(nothing.ids) == 0
    space = catalog.add_space("style", "style", "mini", "{}")  # SQLite gives the same id again
    catalog.mark_indexed([space], [(2, "JPEG", 4, 4)])
    found = catalog.space_changes(space, before)
    assert found.complete and found.ids.tolist() == [2]


# However large the catalog is


@contextmanager
def counted(catalog: Catalog) -> Iterator[list[int]]:
    """Hundreds of steps of SQLite's virtual machine, one entry each."""
    steps: list[int] = []

    def count(connection: object, *_: object) -> None:
        connection.set_progress_handler(lambda: steps.append(1), 100)  # type: ignore[attr-defined]

    event.listen(catalog._database._engine, "connect", count)
    yield steps


def test_reading_changes_takes_no_longer_in_a_large_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with Catalog.open(path, create=True) as writer:
        writer.set_shard_capacity(6000)
        space = writer.add_space("style", "style", "mini", "{}")
        add_files(writer, {b"%05d.jpg" % n: n for n in range(20_000)})
        writer.mark_indexed([space], [(n, "JPEG", 4, 4) for n in range(1, 20_001)])
        before = writer.generation()
        set_missing(writer, b"00007.jpg", b"15000.jpg")
        writer.unindex(space, [9, 15_009])
        writer.mark_indexed([space], [(9, "JPEG", 4, 4)])
    with Catalog.open(path, readonly=True) as reader, counted(reader) as steps:
        for shard, ids, gone in ((None, [8, 9, 15_001], [15_009]), (0, [8, 9], []), (2, [15_001], [15_009])):
            found = reader.space_changes(space, before, shard)
            assert (found.ids.tolist(), found.gone.tolist()) == (ids, gone)
        assert reader.count_changes(space, before, 2) == 2
        assert reader.last_change(space) == reader.generation()
        assert len(steps) < 20  # the whole would be thousands
        reader.space_changes(space, -1, 3)
        assert 20 < len(steps) < 1000  # 2,000 of the 20,000 pictures
        reader.space_changes(space, -1)
        assert len(steps) > 3000


# Any sequence of commits

OPERATION = st.tuples(
    st.sampled_from(
        [
            *("add", "add", "add", "index", "index", "change", "unread", "move", "missing", "back", "fail", "retry"),
            *("unindex", "prune", "forget root", "absorb", "forget space", "recall", "forget changes", "capacity"),
        ]
    ),
    st.lists(st.integers(0, 11), min_size=1, max_size=4),
)
ROOTS = (b"/p", b"/p/q", b"/r")
SPACES = ("style", "look")


class Reader:
    """Holds a space, or one shard of it, and brings it up to date by the changes."""

    def __init__(self, space: int, shard: int | None) -> None:
        self.space = space
        self.shard = shard
        self.generation = -1
        self.held: dict[int, tuple[int, bytes, int, bool]] = {}

    def read(self, catalog: Catalog) -> None:
        found = catalog.space_changes(self.space, self.generation, self.shard)
        if found.complete:
            self.held.clear()
        for content_id in found.gone.tolist():
            self.held.pop(content_id, None)
        self.held |= as_held(found)
        self.generation = found.generation


def as_held(found: SpaceChanges) -> dict[int, tuple[int, bytes, int, bool]]:
    hashes = [row.tobytes() for row in found.sha256]
    columns = (found.shards.tolist(), hashes, found.generations.tolist(), found.visible.tolist())
    return dict(zip(found.ids.tolist(), zip(*columns, strict=True), strict=True))


def commit(catalog: Catalog, kind: str, numbers: list[int], step: int) -> None:
    """Do something to the catalog, with what is there."""
    known = {root.path: root for root in catalog.roots()}
    rows = [row for root in catalog.roots() for row in catalog.files.below(root.id, b"")]
    chosen = list({row.id: row for row in (rows[n % len(rows)] for n in numbers)}.values()) if rows else []
    spaces = [space.id for space in catalog.spaces()]
    contents = sorted({row.content_id for row in rows if row.content_id})
    some = sorted({contents[n % len(contents)] for n in numbers}) if contents else []
    if kind == "add":
        path = ROOTS[numbers[0] % 3]
        root = known.get(path) or catalog.files.add_root(path)
        names = dict.fromkeys(numbers)
        findings = [Finding(None, root.id, b"%d-%d" % (step, n), n, 1, 1, sha(n), None) for n in names]
        catalog.files.write(findings, [])
    elif kind == "index" and some:
        catalog.mark_indexed(spaces[: 1 + numbers[0] % 2], [(content, "JPEG", 4, 4) for content in some])
    elif kind == "change":
        catalog.files.write(
            [Finding(row.id, row.root_id, row.path, 1, 1, 1, sha(20 + numbers[0]), None) for row in chosen], []
        )
    elif kind == "unread":
        catalog.files.write([Finding(row.id, row.root_id, row.path, 1, 1, 1, None, "closed") for row in chosen], [])
    elif kind == "move" and chosen:
        new = [
            Finding(None, row.root_id, b"%d moved %d" % (step, row.id), 1, 1, 1, sha(numbers[0]), None)
            for row in chosen
        ]
        catalog.files.write(new, [row.id for row in chosen])
    elif kind == "missing":
        catalog.files.set_missing([row.id for row in chosen], [])
    elif kind == "back":
        catalog.files.set_missing([], [row.id for row in chosen])
    elif kind == "fail" and some:
        catalog.mark_failed(some[0], "no picture")
    elif kind == "retry":
        catalog.clear_failures()
    elif kind == "unindex" and spaces:
        catalog.unindex(spaces[numbers[0] % len(spaces)], some)
    elif kind == "prune":
        catalog.prune()
    elif kind == "forget root" and known:
        catalog.forget_root(sorted(known.values(), key=lambda root: root.id)[numbers[0] % len(known)].id)
    elif kind == "absorb" and b"/p" in known and b"/p/q" in known:
        catalog.files.absorb(known[b"/p/q"], known[b"/p"])
    elif kind == "forget space" and spaces:
        name = catalog.spaces()[numbers[0] % len(spaces)].fingerprint
        catalog.forget_space(spaces[numbers[0] % len(spaces)])
        catalog.add_space(name, name, "mini", "{}")
    elif kind == "recall" and spaces:
        catalog.set_recall_file(spaces[0], numbers[0] % 3, catalog.generation() - numbers[-1], "abc")
    elif kind == "forget changes":
        catalog.forget_changes()
    elif kind == "capacity":
        catalog.set_shard_capacity(1 + numbers[0] % 4)


operations = given(
    operations=st.lists(OPERATION, min_size=5, max_size=40), when=st.lists(st.integers(1, 6), min_size=4, max_size=4)
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@operations
def test_changes_add_up_to_the_whole(operations: list[tuple[str, list[int]]], when: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        add_up(Path(name) / "catalog.sqlite", operations, when)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@operations
def test_changes_on_a_server_do_too(server: Server, operations: list[tuple[str, list[int]]], when: list[int]) -> None:
    with server.schema() as url:
        add_up(url, operations, when)


def add_up(where: Path | str, operations: list[tuple[str, list[int]]], when: list[int]) -> None:
    """Readers of different patience, of whole spaces and of single shards, beside one that reads everything."""
    with pytest.MonkeyPatch.context() as patch, Catalog.open(where, create=True) as catalog:
        patch.setattr(changes, "ROWS_KEPT", 3)
        spaces = [catalog.add_space(space, space, "mini", "{}") for space in SPACES]
        catalog.set_shard_capacity(4)
        readers = [Reader(space, shard) for space in spaces for shard in (None, 0, 1)]
        every = [when[place % 4] for place in range(len(readers))]
        for step, (kind, numbers) in enumerate(operations, start=1):
            commit(catalog, kind, numbers, step)
            for reader, patience in zip(readers, every, strict=True):
                if step % patience == 0 or step == len(operations):
                    reader.read(catalog)
                    assert reader.held == as_held(catalog.indexed(reader.space, reader.shard))
