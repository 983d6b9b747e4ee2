import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import hypothesis
import lmdb
import numpy as np
import pytest
from hypothesis import strategies as st

from diffsim.retrieval.errors import RetrievalError
from diffsim.retrieval.shard import lmdb_environment
from diffsim.retrieval.shard import store as store_module
from diffsim.retrieval.shard.lmdb_environment import StoreDamaged, StoreFull, StoreMissing
from diffsim.retrieval.shard.store import FeatureStore, Record

ROOT = Path(__file__).parent.parent
WIDTH = 8

# Commits batches of four for ever, and says after each commit how many records it has promised.
WRITER = """
import sys
from pathlib import Path
from tests.test_retrieval_store import batch
from diffsim.retrieval.shard.store import FeatureStore
with FeatureStore(Path(sys.argv[1]), readonly=False) as store:
    start = len(store.ids())
    while True:
        store.put(batch(start))
        start += 4
        print(start, flush=True)
"""


def digest(content_id: int, version: int = 0) -> bytes:
    return sha256(f"{content_id}.{version}".encode()).digest()


def record(content_id: int, version: int = 0, size: int = 9000) -> Record:
    noise = np.random.default_rng((content_id, version))
    descriptor = noise.standard_normal(WIDTH).astype(np.float16)
    return Record(content_id, digest(content_id, version), descriptor, noise.bytes(size))


def batch(start: int, size: int = 9000) -> list[Record]:
    return [record(content_id, size=size) for content_id in range(start, start + 4)]


def wanted(ids: object) -> dict[int, bytes]:
    return {int(content_id): digest(int(content_id)) for content_id in ids}  # type: ignore[attr-defined]


def python(code: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / "shards" / "0000"


@pytest.fixture
def store(shard: Path) -> Iterator[FeatureStore]:
    with FeatureStore(shard, readonly=False) as opened:
        yield opened


def test_returns_what_was_put(store: FeatureStore, shard: Path) -> None:
    records = [record(7), record(3), record(2**40), record(5, size=0)]
    store.put(records)
    store.close()
    with FeatureStore(shard, readonly=True) as reader:
        ids, matrix = reader.descriptors(wanted([7, 3, 5, 2**40, 99]))
        assert ids.tolist() == [3, 5, 7, 2**40]
        assert ids.dtype == np.int64
        assert matrix.dtype == np.float16
        assert matrix.flags.c_contiguous
        by_id = {entry.content_id: entry for entry in records}
        np.testing.assert_array_equal(matrix, [by_id[i].descriptor for i in ids.tolist()])
        order = [2**40, 99, 3, 7, 5]
        tokens = list(reader.tokens(wanted(order)))
        assert [content_id for content_id, _ in tokens] == [2**40, 3, 7, 5]
        assert all(bytes(view) == by_id[content_id].tokens for content_id, view in tokens)
        assert reader.check(wanted(order)) == [99]
        assert reader.nbytes() > 27000


def test_nothing_wanted_or_found_is_an_empty_answer(store: FeatureStore) -> None:
    store.put([])
    for asked in ({}, wanted([1])):
        ids, matrix = store.descriptors(asked)
        assert (ids.shape, matrix.shape) == ((0,), (0, 0))
        assert list(store.tokens(asked)) == []
    assert store.ids().tolist() == []


def test_many_records_span_several_transactions(store: FeatureStore) -> None:
    count = store_module._DESCRIPTORS_AT_ONCE + 5
    store.put([record(content_id, size=1) for content_id in range(count)])
    ids, matrix = store.descriptors(wanted(range(count)))
    assert ids.tolist() == list(range(count))
    np.testing.assert_array_equal(matrix[-1], record(count - 1).descriptor)


def test_record_of_another_hash_is_never_returned(store: FeatureStore) -> None:
    store.put([record(1), record(2, version=1)])
    assert store.ids().tolist() == [1, 2]
    assert store.descriptors(wanted([1, 2]))[0].tolist() == [1]
    assert [content_id for content_id, _ in store.tokens(wanted([1, 2]))] == [1]
    assert store.check(wanted([1, 2])) == [2]
    store.put([record(2)])
    assert store.check(wanted([1, 2])) == []


@pytest.mark.parametrize("table", ["descriptors", "tokens"])
def test_damaged_byte_is_found_and_not_returned(store: FeatureStore, shard: Path, table: str) -> None:
    store.put(batch(0))
    store.close()
    payload = record(2).tokens if table == "tokens" else record(2).descriptor.tobytes()
    data = (shard / "data.mdb").read_bytes()
    assert data.count(payload) == 1
    where = data.index(payload) + len(payload) // 2
    with (shard / "data.mdb").open("r+b") as file:
        file.seek(where)
        file.write(bytes([data[where] ^ 1]))
    with FeatureStore(shard, readonly=True) as reader:
        assert reader.check(wanted(range(4))) == [2]
        ids = {
            "descriptors": reader.descriptors(wanted(range(4)))[0].tolist(),
            "tokens": [content_id for content_id, _ in reader.tokens(wanted(range(4)))],
        }
        assert ids.pop(table) == [0, 1, 3]
        assert ids.popitem()[1] == [0, 1, 2, 3]


def test_a_writer_killed_at_any_moment_leaves_whole_batches(shard: Path) -> None:
    moment = random.Random(0)
    for _ in range(8):
        writer = python(WRITER, shard)
        assert writer.stdout is not None
        promised = int(writer.stdout.readline())
        time.sleep(moment.uniform(0, 0.03))
        writer.kill()
        promised = max([promised, *map(int, writer.communicate()[0].split())])
        with FeatureStore(shard, readonly=True) as reader:
            ids = reader.ids().tolist()
            assert ids == list(range(len(ids)))
            assert len(ids) % 4 == 0
            assert len(ids) >= promised
            assert reader.check(wanted(ids)) == []
            with reader._live.env.begin() as txn:
                assert txn.stat(reader._live.tokens)["entries"] == len(ids)


@pytest.mark.parametrize("locked", [True, False])
def test_reader_beside_a_writer_sees_whole_batches(shard: Path, locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locked:  # as on a share that this reader may not write to
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    writer = python(WRITER, shard)
    assert writer.stdout is not None
    try:
        promised = int(writer.stdout.readline())
        with FeatureStore(shard, readonly=True) as reader:
            assert reader._live.locked == locked
            for _ in range(30):
                ids = reader.ids().tolist()
                assert ids == list(range(len(ids)))
                assert len(ids) % 4 == 0
                assert len(ids) >= promised
                assert reader.check(wanted(ids[-200:])) == []
                promised = int(writer.stdout.readline())
    finally:
        writer.kill()
        writer.communicate()


def test_reader_without_lock_file_survives_the_reuse_of_pages(store: FeatureStore, shard: Path) -> None:
    store.put([record(content_id, size=2000) for content_id in range(400)])
    store.close()
    reader = python("import os; os.access = lambda path, mode: False" + EXACT_READER, shard)
    writer = python(CHURN, shard)
    for _ in range(100):
        stored, read, wrong = ask(reader)
        assert 390 <= stored <= 400
        assert wrong == 0
        assert read >= 130  # each transaction reads 16 records, of which the writer may have deleted 10 just then
    writer.kill()
    writer.communicate()
    reader.communicate()
    assert reader.returncode == 0


def test_writer_waits_for_a_reader_without_lock_file(
    store: FeatureStore, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(batch(0))
    folder = os.open(shard, os.O_RDONLY)
    waited: list[float] = []

    def stop_reading(seconds: float) -> None:
        waited.append(seconds)
        fcntl.flock(folder, fcntl.LOCK_UN)

    fcntl.flock(folder, fcntl.LOCK_SH)
    with monkeypatch.context() as patched:
        patched.setattr(lmdb_environment.time, "sleep", stop_reading)
        store.put(batch(4))
    assert len(waited) == 1
    store.close()

    def read(txn: lmdb.Transaction) -> bool:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with FeatureStore(shard, readonly=True) as reader:
        assert reader._live.run(read)
    os.close(folder)


def test_reads_where_nothing_can_be_written(store: FeatureStore, shard: Path) -> None:
    store.put(batch(0))
    store.close()
    for path in (shard, *shard.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in list(shard.parents)[:5]:  # pytest's own folders are closed to other users
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    before = {path.name: path.stat().st_mtime_ns for path in (shard, *shard.iterdir())}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            with FeatureStore(shard, readonly=True) as reader:
                sound = reader.check(wanted(range(4))) == [] and not reader._live.locked
            try:
                FeatureStore(shard, readonly=False)
            except RetrievalError as error:
                status = 0 if sound and "Permission denied" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert {path.name: path.stat().st_mtime_ns for path in (shard, *shard.iterdir())} == before
    shard.chmod(0o755)


def test_reader_creates_nothing(tmp_path: Path, shard: Path) -> None:
    with pytest.raises(StoreMissing, match=r"diffsim verify.*diffsim index"):
        FeatureStore(shard, readonly=True)
    assert list(tmp_path.iterdir()) == []
    with FeatureStore(shard, readonly=False) as writer:
        writer.put(batch(0))
    (shard / "lock.mdb").unlink()
    with FeatureStore(shard, readonly=True) as reader:
        assert reader.ids().tolist() == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="read-only"):
            reader.put(batch(4))
        with pytest.raises(ValueError, match="read-only"):
            reader.delete([1])
    assert [path.name for path in shard.iterdir()] == ["data.mdb"]


def test_full_disk_is_named_and_keeps_what_was_stored(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with FeatureStore(mounted / "0000", readonly=False) as store:
            stored = put_until_full(store)
            assert store.check(wanted(range(stored))) == []
            store.delete(range(4))
            store.delete(range(4, 8))  # LMDB reuses what a commit freed from the second commit after it
            store.put(batch(0))
        with FeatureStore(mounted / "0000", readonly=True) as reader:
            assert set(reader.ids().tolist()) == set(range(stored)) - set(range(4, 8))
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def put_until_full(store: FeatureStore) -> int:
    """How many records it took; they stay, and none of the batch that found no room."""
    for start in range(0, 4000, 4):
        try:
            store.put(batch(start, size=20000))
        except StoreFull as error:
            assert "make room" in str(error)
            assert store.ids().tolist() == list(range(start))
            return start
    raise AssertionError("it never filled up")


def test_file_that_may_not_grow_is_a_full_store(shard: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from tests.test_retrieval_store import put_until_full, wanted
from diffsim.retrieval.shard.store import FeatureStore
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with FeatureStore(Path(sys.argv[1]), readonly=False) as store:
    print(put_until_full(store))
"""
    child = python(code, shard)
    stored = int(child.communicate()[0])
    with FeatureStore(shard, readonly=False) as store:
        assert store.check(wanted(range(stored))) == []
        store.put(batch(stored))
        assert len(store.ids()) == stored + 4


READER = """
import sys
from pathlib import Path
from tests.test_retrieval_store import wanted
from diffsim.retrieval.shard.store import FeatureStore
with FeatureStore(Path(sys.argv[1]), readonly=True) as store:
    for line in sys.stdin:
        ids = store.ids().tolist()
        print(len(ids), len(store.check(wanted(ids))), flush=True)
"""


# Compares every token record that it is given with what was put there.
EXACT_READER = """
import sys
from pathlib import Path
from tests.test_retrieval_store import record, wanted
from diffsim.retrieval.shard.store import FeatureStore
with FeatureStore(Path(sys.argv[1]), readonly=True) as store:
    for line in sys.stdin:
        ids = store.ids().tolist()
        same = [record(row, size=2000).tokens == tokens for row, tokens in store.tokens(wanted(ids))]
        print(len(ids), len(same), same.count(False), flush=True)
"""


# Overwrites records for ever, so that pages are reused at once.
CHURN = """
import sys
from pathlib import Path
from tests.test_retrieval_store import record
from diffsim.retrieval.shard.store import FeatureStore
with FeatureStore(Path(sys.argv[1]), readonly=False) as store:
    while True:
        for start in range(0, 400, 20):
            store.delete(range(start, start + 10))
            store.put([record(content_id, size=2000) for content_id in range(start, start + 20)])
"""


def ask(reader: subprocess.Popen[str]) -> list[int]:
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write("\n")
    reader.stdin.flush()
    return [int(word) for word in reader.stdout.readline().split()]


def test_map_grows_under_an_open_reader(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_environment, "_FIRST_MAP_BYTES", 1 << 18)
    with FeatureStore(shard, readonly=False) as store:
        store.put(batch(0))
        reader = python(READER, shard)
        assert ask(reader) == [4, 0]
        store.put(batch(4, size=1 << 20))
        assert store.check(wanted(range(8))) == []
        assert ask(reader) == [8, 0]
        reader.communicate()


@pytest.mark.parametrize("commits", [1, 2])  # LMDB's current root page is that of the even or of the odd commits
def test_readers_move_over_to_the_compacted_file(store: FeatureStore, shard: Path, commits: int) -> None:
    for start in range(0, 80, 4):
        store.put(batch(start, size=50_000))
    for _ in range(commits):
        store.put(batch(0, size=50_000))
    full = store.nbytes()
    reader = python(READER, shard)
    assert ask(reader) == [80, 0]
    assert not store.compact()
    store.delete(range(0, 80, 2))
    assert store.compact()
    assert store.nbytes() < 0.6 * full
    assert ask(reader) == [40, 0]
    store.put(batch(80))
    assert ask(reader) == [44, 0]
    assert store.check(wanted([*range(1, 80, 2), *range(80, 84)])) == []
    assert sorted(path.name for path in shard.iterdir()) == ["data.mdb", "lock.mdb"]
    reader.communicate()


def test_killed_reader_does_not_make_the_file_grow(store: FeatureStore, shard: Path) -> None:
    store.put(batch(0, size=100_000))
    code = "import lmdb, sys; txn = lmdb.open(sys.argv[1], readonly=True).begin(); print(1, flush=True); input()"
    reader = python(code, shard)
    assert reader.stdout is not None
    reader.stdout.readline()
    reader.send_signal(signal.SIGKILL)
    reader.communicate()
    for _ in range(4):
        store.put(batch(0, size=100_000))
    settled = store.nbytes()
    for _ in range(20):
        store.put(batch(0, size=100_000))
    assert store.nbytes() == settled


def test_stores_of_one_process_share_the_file(store: FeatureStore, shard: Path) -> None:
    store.put(batch(0))
    store.close()
    with FeatureStore(shard, readonly=True) as first, FeatureStore(shard, readonly=True) as second:
        tokens = second.tokens(wanted(range(40)))
        next(tokens)
        with FeatureStore(shard, readonly=False) as writer:
            writer.put(batch(4))
            assert first.ids().tolist() == list(range(8))
        assert len(list(tokens)) == 3
        first.close()
        first.close()
        assert second.ids().tolist() == list(range(8))
        with pytest.raises(ValueError, match="closed"):
            first.ids()
    assert os.path.realpath(shard) not in lmdb_environment._environments


@pytest.mark.parametrize("locked", [True, False])
def test_a_forked_child_reads_and_writes_beside_its_parent(
    store: FeatureStore, shard: Path, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(batch(0))
    if not locked:
        store.close()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    reader = FeatureStore(shard, readonly=True)
    assert reader._live.locked == locked
    done = threading.Event()
    wrong: list[object] = []

    def read_on() -> None:  # another thread that is in the middle of reading when the fork comes
        while not done.is_set():
            if bad := reader.check(wanted(range(4))):
                wrong.append(bad)

    thread = threading.Thread(target=read_on)
    thread.start()
    try:
        for start in range(4, 44, 4):
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # rather than wait for ever for a lock that no thread here holds
                status = 1
                try:
                    seen = reader.check(wanted(range(start))) == []
                    with FeatureStore(shard, readonly=False) as own:
                        own.put(batch(start))
                    with FeatureStore(shard, readonly=True) as own:
                        status = 0 if seen and own.check(wanted(range(start + 4))) == [] else 2
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert reader.check(wanted(range(start + 4))) == []
    finally:
        done.set()
        thread.join()
        reader.close()
    assert wrong == []


def test_file_cut_short_is_named(store: FeatureStore, shard: Path) -> None:
    for start in range(0, 40, 4):
        store.put(batch(start, size=100_000))
    store.close()
    os.truncate(shard / "data.mdb", 2 << 20)
    for readonly in (True, False):
        with pytest.raises(StoreDamaged, match=r"of its .* bytes.* run `diffsim verify`"):
            FeatureStore(shard, readonly=readonly)
    (shard / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreDamaged, match="diffsim index"):
        FeatureStore(shard, readonly=True)


def test_put_refuses_what_does_not_fit(store: FeatureStore) -> None:
    store.put([record(1)])
    good = record(2)
    for bad, sentence in (
        (Record(2, b"short", good.descriptor, b""), "5 bytes, not 32"),
        (Record(2, good.sha256, good.descriptor.astype(np.float32), b""), "float32"),
        (Record(2, good.sha256, good.descriptor[:4], b""), "has 4 numbers, .* have 8"),
    ):
        with pytest.raises(ValueError, match=sentence):
            store.put([record(0), bad])
    assert store.ids().tolist() == [1]


def test_deleted_ids_are_gone_from_both_tables(store: FeatureStore) -> None:
    store.put(batch(0))
    store.delete([1, 2, 77])
    assert store.ids().tolist() == [0, 3]
    assert [content_id for content_id, _ in store.tokens(wanted(range(4)))] == [0, 3]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 20_000)))),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 12))),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=12,
)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(actions=actions)
def test_behaves_like_a_dict(tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, list]]) -> None:
    shard = tmp_path_factory.mktemp("model") / "0000"
    model: dict[int, Record] = {}
    store = FeatureStore(shard, readonly=False)
    for action, argument in actions:
        if action == "put":
            records = [record(*entry) for entry in argument]
            store.put(records)
            model |= {entry.content_id: entry for entry in records}
        elif action == "delete":
            store.delete(argument)
            model = {content_id: entry for content_id, entry in model.items() if content_id not in argument}
        elif action == "compact":
            store.compact()
        else:
            store.close()
            store = FeatureStore(shard, readonly=False)
        assert store.ids().tolist() == sorted(model)
        assert store.check({content_id: entry.sha256 for content_id, entry in model.items()}) == []
        for version in range(3):
            expected = sorted(i for i, entry in model.items() if entry.sha256 == digest(i, version))
            asked = {content_id: digest(content_id, version) for content_id in range(13)}
            ids, matrix = store.descriptors(asked)
            assert ids.tolist() == expected
            assert all((row == model[i].descriptor).all() for i, row in zip(expected, matrix, strict=True))
            assert [(i, bytes(view)) for i, view in store.tokens(asked)] == [(i, model[i].tokens) for i in expected]
    store.close()


def test_lmdb_keeps_pages_of_a_snapshot_through_the_next_commit(tmp_path: Path) -> None:
    """The promise that a reader without a lock file relies on; it is LMDB's, so a new version may break it."""
    writer = python(
        """
import lmdb, sys
env = lmdb.open(sys.argv[1], map_size=1 << 24)
for version in range(200):
    with env.begin(write=True) as txn:
        for key in range(20):
            txn.put(b"%d" % key, b"%d" % (version % 10) * 9000)
    print(version, flush=True)
    sys.stdin.readline()
""",
        tmp_path,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdout.readline()
    env = lmdb.open(str(tmp_path), readonly=True, lock=False, create=False)
    for _ in range(100):
        with env.begin(buffers=True) as txn:
            views = [txn.get(b"%d" % key) for key in range(20)]
            before = [bytes(view) for view in views]
            writer.stdin.write("\n")
            writer.stdin.flush()
            writer.stdout.readline()
            assert [bytes(view) for view in views] == before
    env.close()
    writer.kill()
    writer.communicate()
