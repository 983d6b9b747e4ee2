"""Feature stores that were cut short or altered: never a crash, and what can be read is kept."""

import hashlib
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffsim.retrieval.errors import RetrievalError
from diffsim.retrieval.shard.lmdb_environment import StoreDamaged, StoreMissing
from diffsim.retrieval.shard.lmdb_file import LmdbFile
from diffsim.retrieval.shard.salvage import mend_store
from diffsim.retrieval.shard.store import FeatureStore, Record

RECORDS = 60
HARMS = 160


def sha(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def record(number: int) -> Record:
    tokens = random.Random(number).randbytes((300, 3000, 9000)[number % 3])
    return Record(number, sha(number), np.full(16, number % 7, np.float16), tokens)


WANTED = {number: sha(number) for number in range(1, RECORDS + 1)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a store with pages of every kind, free ones too."""
    folder = tmp_path_factory.mktemp("sound") / "0000"
    with FeatureStore(folder, readonly=False) as store:
        for first in range(1, RECORDS + 1, 10):
            store.put(map(record, range(first, first + 10)))
        store.delete([3, 4, 5])
        store.put(map(record, (3, 4, 5)))
    return (folder / "data.mdb").read_bytes()


def laid(folder: Path, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "data.mdb").write_bytes(data)
    (folder / "lock.mdb").unlink(missing_ok=True)
    return folder


def read_all(folder: Path) -> bool:
    """Whether all is there; asserts that nothing else is."""
    with FeatureStore(folder, readonly=True) as store:
        ids, descriptors = store.descriptors(WANTED)
        assert all(row[0] == number % 7 for number, row in zip(ids, descriptors, strict=True))
        tokens = dict(store.tokens(WANTED))
        assert all(bytes(value) == record(number).tokens for number, value in tokens.items())
        return len(ids) == len(tokens) == RECORDS


def mended(folder: Path) -> bool:
    """Mend as `verify` and `index` do -> whether there was anything to mend."""
    rebuilt = mend_store(folder)
    with FeatureStore(folder, readonly=False) as store:
        lost = store.check(WANTED)
        store.put(map(record, lost))
        store.put(map(record, range(1, 20)))
        store.delete([7])
        store.put([record(7)])
        assert store.check(WANTED) == []
    with LmdbFile(folder / "data.mdb") as file:
        assert file.is_whole()
    return rebuilt or bool(lost)


def survived(work: Callable[[], bool]) -> str:
    """What came of it in a child, which may be killed."""
    child = os.fork()
    if not child:
        code = 9
        try:
            code = 0 if work() else 1
        except RetrievalError:
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "yes", 1: "no", 2: "sentence"}.get(code, f"ended with {code}")


def harmed(sound: bytes, number: int, chance: random.Random) -> bytearray:
    """A flipped bit anywhere, in a page's header, among its nodes, or a cut."""
    data = bytearray(sound)
    page = chance.randrange(len(data) // 4096) * 4096
    match number % 4:
        case 0:
            place = chance.randrange(len(data))
        case 1:
            place = page + chance.randrange(60)
        case 2:
            place = page + chance.randrange(200, 4096)
        case _:
            return data[: chance.randrange(len(data))]
    data[place] ^= 1 << chance.randrange(8)
    return data


def test_no_damage_kills_the_process_or_stays(sound: bytes, tmp_path: Path) -> None:
    chance = random.Random(5)
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(HARMS):
        data = harmed(sound, number, chance)
        whole = survived(lambda data=data: read_all(laid(tmp_path / "harmed", data)))  # type: ignore[misc]
        found = survived(lambda: mended(tmp_path / "harmed"))
        outcomes[whole, found] += 1
        assert whole in ("yes", "no", "sentence") and found in ("yes", "no"), (number, whole, found)
        assert whole == "yes" or found == "yes", number
    assert outcomes["sentence", "yes"] > HARMS // 8


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.9, 0.99, 0.9999])
def test_a_file_that_was_cut_short_is_refused_before_it_is_mapped(sound: bytes, tmp_path: Path, share: float) -> None:
    folder = laid(tmp_path / "cut", sound[: int(share * len(sound))])
    with pytest.raises(StoreDamaged if share else StoreMissing, match=r"run `diffsim verify`.* then `diffsim index`"):
        FeatureStore(folder, readonly=True)
    if share:
        with pytest.raises(StoreDamaged):
            FeatureStore(folder, readonly=False)
    assert mended(folder)
    assert read_all(folder)


def test_what_lies_before_a_cut_is_kept(sound: bytes, tmp_path: Path) -> None:
    folder = laid(tmp_path / "cut", sound[: int(0.9 * len(sound))])
    assert mend_store(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data.mdb"]
    with FeatureStore(folder, readonly=True) as store:
        assert RECORDS // 2 < len(store.ids()) < RECORDS
        assert not set(store.check(WANTED)) & set(store.ids().tolist())


def test_a_sound_store_is_left_alone_whatever_was_written_to_it(tmp_path: Path) -> None:
    chance = random.Random(1)
    with FeatureStore(tmp_path / "s", readonly=False) as store:
        for number in range(40):
            store.put(map(record, chance.sample(range(1, 500), 16)))
            if number % 5 == 0:
                store.delete(chance.sample(range(1, 500), 30))
            with LmdbFile(tmp_path / "s" / "data.mdb") as file:
                assert file.is_whole()
        kept = store.ids().tolist()
        with LmdbFile(tmp_path / "s" / "data.mdb") as file:
            assert [int.from_bytes(key, "big") for key, _ in file.records(b"tokens")] == kept
    before = (tmp_path / "s" / "data.mdb").stat()
    assert not mend_store(tmp_path / "s") and (tmp_path / "s" / "data.mdb").stat() == before


def test_a_store_that_is_deleted_while_it_is_written_is_not_begun_anew(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "s", readonly=False) as store:
        store.put([record(1)])
        (tmp_path / "s" / "data.mdb").unlink()
        with pytest.raises(StoreMissing, match="was deleted meanwhile"):
            store.put([record(2)])
