"""Shards by themselves: snapshots on the disk, and parts that are brought up to date, against a plain table."""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import score, score_one_way
from diffsim.retrieval.settings import SpaceSettings, Tap
from diffsim.retrieval.shard.members import Members, common
from diffsim.retrieval.shard.messages import SpaceChanges, SpaceQuery
from diffsim.retrieval.shard.shard import LocalShard
from diffsim.retrieval.shard.snapshot import (
    Rows,
    build_snapshot,
    open_snapshot,
    remove_other_snapshots,
    snapshot_files,
    snapshot_is_sound,
)
from diffsim.retrieval.shard.store import FeatureStore, Record
from diffsim.retrieval.space import FeatureSpace
from diffsim.retrieval.tiers import encode_tokens

PLENTY = 2**30
TOKENS, CHANNELS, HEADS = 9, 8, 2
SPACE = "space"


def hashes(ids: np.ndarray) -> np.ndarray:
    digests = b"".join(hashlib.sha256(int(row).to_bytes(8, "big")).digest() for row in ids)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def rows_of(ids: list[int]) -> Rows:
    array = np.array(ids, np.int64)
    return Rows(array, hashes(array), np.ones(len(array), np.bool_))


def vectors(number: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(number, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


# Snapshots


def test_a_snapshot_comes_back_as_it_was_built(tmp_path: Path) -> None:
    rows = rows_of([2, 3, 5, 2**40])
    built = build_snapshot(tmp_path, rows, vectors(4), PLENTY)
    opened = open_snapshot(tmp_path, built.digest)
    assert opened is not None and opened.index.ntotal == 4
    assert opened.rows.ids.tolist() == [2, 3, 5, 2**40] and opened.rows.ids.dtype == np.int64
    assert np.array_equal(opened.rows.sha256, rows.sha256) and opened.rows.visible.all()
    assert snapshot_is_sound(tmp_path, built.digest)
    again = build_snapshot(tmp_path, rows, vectors(4), PLENTY)
    assert again == built, "the same input gives the same files"


def test_snapshots_stand_side_by_side_until_the_others_are_removed(tmp_path: Path) -> None:
    (tmp_path / "recall.faiss.part").write_bytes(b"what a killed run left")
    first = build_snapshot(tmp_path, rows_of([1, 2, 3]), vectors(3), PLENTY)
    second = build_snapshot(tmp_path, rows_of([1, 2, 3, 4]), vectors(4), PLENTY)
    assert open_snapshot(tmp_path, first.digest) and open_snapshot(tmp_path, second.digest)
    remove_other_snapshots(tmp_path, second.digest)
    assert open_snapshot(tmp_path, first.digest) is None
    assert sorted(tmp_path.iterdir()) == sorted(snapshot_files(tmp_path, second.digest))
    remove_other_snapshots(tmp_path, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", [0, 1])
def test_a_snapshot_that_is_not_the_one_that_was_built_is_not_opened(tmp_path: Path, which: int) -> None:
    built = build_snapshot(tmp_path, rows_of(list(range(1, 51))), vectors(50), PLENTY)
    path = snapshot_files(tmp_path, built.digest)[which]
    data = path.read_bytes()
    damaged = [data[:-1], data[: len(data) // 2], b"", data + b"\0"]
    for position in range(0, len(data), len(data) // 50):
        flipped = bytearray(data)
        flipped[position] ^= 1
        damaged.append(bytes(flipped))
    for each in damaged:
        path.write_bytes(each)
        assert open_snapshot(tmp_path, built.digest) is None and not snapshot_is_sound(tmp_path, built.digest)
    path.unlink()
    assert open_snapshot(tmp_path, built.digest) is None and not snapshot_is_sound(tmp_path, built.digest)


def test_rows_in_the_order_of_their_hashes() -> None:
    rows = rows_of(list(range(1, 6001)))
    expected = sorted(range(6000), key=lambda row: rows.sha256[row].tobytes())
    for count in (0, 1, 300, 4096, 4097, 5999, 6000, 9000):
        assert rows.by_hash(count).tolist() == expected[:count]


# Sets of ids

ids_of = st.lists(st.integers(0, 40), unique=True).map(lambda each: np.array(each, np.int64))


@given(ids_of, ids_of, ids_of, ids_of)
def test_members_are_sets(first: np.ndarray, second: np.ndarray, added: np.ndarray, removed: np.ndarray) -> None:
    one, two = Members.of(first), Members.of(second)
    assert len(one) == len(first) and one.ids().tolist() == sorted(first)
    assert common([one, two]).ids().tolist() == sorted(set(first) & set(second))
    assert one.has(second).tolist() == [row in set(first) for row in second]
    assert one.changed(added, removed).ids().tolist() == sorted(set(first) - set(removed) | set(added))


# Parts and shards


def kit() -> SpaceKit:
    """A space of one tap with random weights."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3 * CHANNELS, CHANNELS, generator=generator)
    space = FeatureSpace(SpaceSettings((Tap("attn1", 0),), 8, tier="fp32"), "weights", "constants")
    return SpaceKit(space, {}, (Projection(HEADS, (weight,), (None,)),), ((TOKENS, CHANNELS),))


KIT = kit()


@dataclass
class Picture:
    """What the reference table has of one content."""

    version: int
    visible: bool = True

    def record(self, row: int) -> Record:
        seed = row * 1000 + self.version
        tokens = torch.randn(TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))
        encoded = encode_tokens([tokens], "fp32")
        descriptor = KIT.descriptors(KIT.read([encoded])).half().numpy()[0]
        return Record(row, hashes(np.array([row]))[0].tobytes(), descriptor, encoded)


def query(row: int, version: int = 0, **more: object) -> SpaceQuery:
    made = Picture(version).record(row)
    asked = SpaceQuery(SPACE, made.descriptor, made.tokens, **more)  # type: ignore[arg-type]
    return pickle.loads(pickle.dumps(asked))  # questions travel


class Table:
    """The plain truth that a shard is compared with, and the store that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: dict[int, Picture] = {}
        self.dirty: dict[int, bool] = {}  # id -> whether its features were written
        self.gone: set[int] = set()
        self.put({1: Picture(0)})
        self.shard = LocalShard()
        self.open(None)

    def put(self, pictures: dict[int, Picture]) -> None:
        with FeatureStore(self.folder, readonly=False) as store:
            store.put(picture.record(row) for row, picture in pictures.items())
        self.pictures |= pictures
        self.dirty |= dict.fromkeys(pictures, True)
        self.gone -= set(pictures)

    def forget(self, row: int) -> None:
        if self.pictures.pop(row, None):
            self.gone.add(row)
            self.dirty.pop(row, None)

    def show(self, row: int, visible: bool) -> None:
        if row in self.pictures:
            self.pictures[row].visible = visible
            self.dirty.setdefault(row, False)

    def changes(self) -> SpaceChanges:
        ids = np.array(sorted(self.dirty), np.int64)
        found = SpaceChanges(
            ids,
            hashes(ids),
            np.array([self.pictures[row].visible for row in ids.tolist()], np.bool_),
            np.array([self.dirty[row] for row in ids.tolist()], np.bool_),
            np.array(sorted(self.gone), np.int64),
        )
        self.dirty, self.gone = {}, set()
        return found

    def update(self) -> None:
        self.shard.update(SPACE, self.changes())

    def open(self, digest: str | None) -> None:
        if not self.shard.open(SPACE, self.folder, KIT, digest):
            self.dirty = dict.fromkeys(self.pictures, True)
        self.update()

    def rebuild(self) -> None:
        """A new snapshot of what is true now, then the shard opened anew."""
        ids = np.array(sorted(self.pictures), np.int64)
        shown = np.array([self.pictures[row].visible for row in ids.tolist()], np.bool_)
        with FeatureStore(self.folder, readonly=True) as store:
            wanted = {int(row): hashes(np.array([row]))[0].tobytes() for row in ids}
            _, descriptors = store.descriptors(wanted)
        digest = (
            build_snapshot(self.folder, Rows(ids, hashes(ids), shown), descriptors, PLENTY).digest if len(ids) else None
        )
        self.dirty, self.gone = {}, set()
        self.open(digest)

    def check(self) -> None:
        """The shard says what the table says, whatever is asked."""
        shown = {row: picture for row, picture in self.pictures.items() if picture.visible}
        asked = query(7, 99)
        assert self.shard.count([SPACE]) == len(shown)
        everything = np.arange(0, 40)
        assert self.shard.among([SPACE], everything).tolist() == sorted(shown)
        records = {row: picture.record(row) for row, picture in self.pictures.items()}
        cosines = {
            row: float(records[row].descriptor.astype(np.float32) @ asked.descriptor.astype(np.float32))
            for row in shown
        }
        best = sorted(shown, key=lambda row: (-cosines[row], row))
        for count in (1, 3, 100, None):
            ids, similarities = self.shard.recall(asked, count)
            assert similarities == pytest.approx([cosines[row] for row in ids.tolist()], abs=1e-5)
            assert similarities == pytest.approx([cosines[row] for row in best[:count]], abs=1e-5)
        even = everything[::2]
        ids, _ = self.shard.recall(asked, 100, even)
        assert sorted(ids.tolist()) == [row for row in sorted(shown) if row % 2 == 0]
        assert self.shard.count([SPACE], even) == len(ids)
        smallest = sorted(shown, key=lambda row: hashes(np.array([row]))[0].tobytes())
        sampled, rows = self.shard.null_sample([SPACE], 3, np.array(smallest[1:2], np.int64))
        assert rows.tolist() == [row for row in smallest if row not in smallest[1:2]][:3]
        assert np.array_equal(sampled, hashes(rows))
        found, (scores,) = self.shard.score([asked], everything)
        assert found.tolist() == sorted(self.pictures), "what is asked for by id need not be visible"
        one = KIT.read([asked.tokens])
        for row, value in zip(found.tolist(), scores.tolist(), strict=True):
            assert value == pytest.approx(float(score(one, KIT.read([records[row].tokens]), (1.0,))), abs=1e-5)
        for row in range(40):
            kept = self.shard.features(SPACE, row)
            assert (kept is not None) == (row in self.pictures)
            if kept is not None:
                assert kept.tokens == records[row].tokens and np.array_equal(kept.descriptor, records[row].descriptor)


steps = st.one_of(
    st.tuples(st.just("put"), st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=6)),
    st.tuples(st.just("forget"), st.integers(0, 30)),
    st.tuples(st.just("hide"), st.integers(0, 30)),
    st.tuples(st.just("show"), st.integers(0, 30)),
    st.tuples(st.just("update"), st.none()),
    st.tuples(st.just("rebuild"), st.none()),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=st.lists(steps, max_size=12))
def test_a_shard_keeps_up_with_whatever_happens(plan: list, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = Table(tmp_path_factory.mktemp("shard"))
    for number, (step, what) in enumerate(plan, 1):
        if step == "put":
            table.put({row: Picture(number) for row in what})
        elif step == "forget":
            table.forget(what)
        elif step in ("hide", "show"):
            table.show(what, step == "show")
        elif step == "update":
            table.update()
        else:
            table.update()
            table.rebuild()
    table.update()
    table.check()
    table.shard.close()


def test_a_missing_snapshot_is_said_and_everything_is_compared(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.put({row: Picture(0) for row in range(1, 9)})
    table.open("0" * 64)
    table.check()
    assert len(table.shard.warnings([SPACE])) == 1
    table.shard.close()


def test_a_record_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.put({row: Picture(0) for row in range(1, 5)})
    table.update()
    with FeatureStore(tmp_path, readonly=False) as store:
        store.delete([3])
    found, _ = table.shard.score([query(1)], np.arange(6))
    assert found.tolist() == [1, 2, 4] and table.shard.features(SPACE, 3) is None
    table.shard.close()


def test_a_shard_without_the_space_has_nothing() -> None:
    shard, nothing = LocalShard(), np.arange(3)
    assert shard.count([SPACE]) == 0 and len(shard.recall(query(1), 5)[0]) == 0
    assert shard.score([query(1)], nothing)[1].shape == (1, 0)
    assert len(shard.null_sample([SPACE], 5, nothing)[1]) == 0
    assert shard.features(SPACE, 1) is None


def test_blocks_stay_few_and_old_ones_are_not_copied_again_and_again(tmp_path: Path) -> None:
    table = Table(tmp_path)
    for row in range(2, 39):
        table.put({row: Picture(0)})
        table.update()
    part = table.shard.part(SPACE)
    assert part is not None and len(part.blocks) <= 7
    table.check()
    table.shard.close()


# Where the tensors are


def test_records_are_read_and_scored_on_the_device_of_the_kit() -> None:
    """`meta` is a device of its own: a tensor that is somewhere else than the others is an error there too."""
    meta = torch.device("meta")
    records = [Picture(0).record(row).tokens for row in range(3)]
    kit = KIT.to("meta")
    gallery, asked = kit.read(records), kit.read(records[:1])
    assert kit.device == meta
    assert {part.device for tap in gallery for part in (tap.query, tap.key, tap.value, tap.map)} == {meta}
    assert score(asked, gallery, kit.weights).device == score_one_way(asked, gallery, kit.weights).device == meta
    assert kit.descriptors(gallery).device == meta
    with pytest.raises(RuntimeError, match="device"):
        score(KIT.read(records[:1]), gallery, kit.weights)
