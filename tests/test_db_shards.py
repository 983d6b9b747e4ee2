"""Contents in shards: given once, in order, and counted."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_db_catalog import add_files, set_missing, sha

from diffsim.db.catalog import Catalog
from diffsim.db.database import CatalogDamaged
from diffsim.db.shards import BadCapacity, KnownShard


@pytest.fixture
def catalog(place: Path | str) -> Iterator[Catalog]:
    with Catalog.open(place, create=True) as catalog:
        yield catalog


def shard_of(catalog: Catalog) -> list[int]:
    """The shard of every content, by id."""
    with catalog._database.reading() as connection:
        return list(connection.exec_driver_sql("SELECT shard FROM contents ORDER BY id").scalars())


def test_a_new_catalog_has_one_large_shard(catalog: Catalog) -> None:
    assert catalog.shards() == [KnownShard(0, 1_000_000)]
    add_files(catalog, {b"%d.jpg" % n: n for n in range(5)})
    assert shard_of(catalog) == [0] * 5


def test_one_commit_may_fill_several_shards(catalog: Catalog) -> None:
    catalog.set_shard_capacity(3)
    add_files(catalog, {b"0.jpg": 0, b"1.jpg": 1})
    assert catalog.shards() == [KnownShard(0, 3)]
    add_files(catalog, {b"%d.jpg" % n: n for n in range(2, 3000)})
    assert shard_of(catalog) == [n // 3 for n in range(3000)]
    assert catalog.shards() == [KnownShard(n, 3) for n in range(1000)]


def test_copies_and_known_contents_take_no_place(catalog: Catalog) -> None:
    catalog.set_shard_capacity(2)
    add_files(catalog, {b"a.jpg": 1, b"b.jpg": 1, b"c.jpg": 2})
    add_files(catalog, {b"d.jpg": 2, b"e.jpg": 1, b"f.jpg": 3})
    assert shard_of(catalog) == [0, 0, 1]


def test_only_the_newest_shard_changes_its_size_and_those_after_it_inherit(catalog: Catalog) -> None:
    catalog.set_shard_capacity(2)
    add_files(catalog, {b"%d.jpg" % n: n for n in range(3)})
    catalog.set_shard_capacity(4)
    add_files(catalog, {b"%d.jpg" % n: n for n in range(3, 8)})
    assert catalog.shards() == [KnownShard(0, 2), KnownShard(1, 4), KnownShard(2, 4)]
    assert shard_of(catalog) == [0, 0, 1, 1, 1, 1, 2, 2]
    catalog.set_shard_capacity(1)  # fewer than it holds already
    add_files(catalog, {b"8.jpg": 8})
    assert shard_of(catalog)[-1] == 3


@pytest.mark.parametrize("capacity", [0, -5])
def test_a_shard_without_room_is_refused(catalog: Catalog, capacity: int) -> None:
    with pytest.raises(BadCapacity, match=f"cannot hold {capacity} pictures; give 1 or more"):
        catalog.set_shard_capacity(capacity)
    assert catalog.shards() == [KnownShard(0, 1_000_000)]


def test_a_sealed_shard_is_not_filled_again(catalog: Catalog) -> None:
    catalog.set_shard_capacity(2)
    add_files(catalog, {b"%d.jpg" % n: n for n in range(3)})
    set_missing(catalog, b"0.jpg", b"2.jpg")
    assert catalog.prune() == [1, 3]
    add_files(catalog, {b"%d.jpg" % n: n for n in range(3, 6)})
    assert shard_of(catalog) == [0, 1, 1, 2]  # the place that was left in the newest is taken


def test_a_transaction_that_fails_opens_no_shard(catalog: Catalog) -> None:
    catalog.set_shard_capacity(1)
    add_files(catalog, {b"a.jpg": 1})
    with pytest.raises(CatalogDamaged, match=r"(?i)unique"):
        add_files(catalog, {b"b.jpg": 2, b"a.jpg": 3})
    assert catalog.shards() == [KnownShard(0, 1)]


def test_a_space_is_read_shard_by_shard(catalog: Catalog) -> None:
    catalog.set_shard_capacity(2)
    space, other = (catalog.add_space(name, name, "mini", "{}") for name in ("style", "look"))
    add_files(catalog, {b"%d.jpg" % n: n for n in range(5)})
    assert [item.shard for item in catalog.pending([space])] == [0, 0, 1, 1, 2]
    catalog.mark_indexed([space], [(n, "JPEG", 4, 4) for n in (1, 3, 4, 5)])
    catalog.mark_indexed([other], [(2, "JPEG", 4, 4)])
    found = catalog.indexed(space)
    assert (found.ids.tolist(), found.shards.tolist()) == ([1, 3, 4, 5], [0, 1, 1, 2])
    assert [catalog.indexed(space, shard).ids.tolist() for shard in range(4)] == [[1], [3, 4], [5], []]
    assert [catalog.count_indexed(space, shard) for shard in (None, 0, 1, 2, 3)] == [4, 1, 2, 1, 0]
    assert catalog.indexed(space, 1).hashes() == {3: sha(2), 4: sha(3)}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5), st.lists(st.integers(0, 40), max_size=12), st.lists(st.integers(0, 40), max_size=4)
        ),
        max_size=8,
    )
)
def test_shards_fill_up_in_order(rounds: list[tuple[int, list[int], list[int]]]) -> None:
    """Whatever is added and forgotten: no shard but the newest takes contents, none takes more than it may."""
    with tempfile.TemporaryDirectory() as name, Catalog.open(Path(name) / "c.sqlite", create=True) as catalog:
        for number, (capacity, added, gone) in enumerate(rounds):
            catalog.set_shard_capacity(capacity)
            newest = catalog.shards()[-1].number
            before = len(shard_of(catalog))
            full = shard_of(catalog).count(newest)
            add_files(catalog, {b"%d-%d.jpg" % (number, place): content for place, content in enumerate(added)})
            new = shard_of(catalog)[before:]
            assert new == sorted(new) and all(shard >= newest for shard in new)
            for shard in catalog.shards()[newest:]:
                held = new.count(shard.number) + (full if shard.number == newest else 0)
                assert held <= max(shard.capacity, full if shard.number == newest else 0)
                assert shard == catalog.shards()[-1] or held >= shard.capacity
            rows = [row for root in catalog.roots() for row in catalog.files.below(root.id, b"")]
            catalog.files.set_missing([rows[place % len(rows)].id for place in gone if rows], [])
            catalog.prune()
