"""Which space a name means, also while a new one of that name is being built."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY
from indexing import FAST, diffsim
from test_indexer_skipped import change_weights

from diffsim.db.catalog import KnownSpace
from diffsim.indexer.build import index_folders
from diffsim.indexer.choose import UnknownSpace, answering, find_spaces
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Searcher


def known(number: int, name: str, fingerprint: str) -> KnownSpace:
    return KnownSpace(number, fingerprint, name, "mini", "", "{}", "2025-01-01")


SPACES = [
    known(1, "mini/style", "aa11"),
    known(2, "mini/look", "ab22"),
    known(3, "mini/style", "cc33"),
    known(4, "sd15/look", "dd44"),
    known(5, "sd15/ab22", "ee55"),
]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("mini/style", [1, 3]),
        ("style", [1, 3]),
        ("look", [2, 4]),
        ("cc33", [3]),
        ("c", [3]),
        ("aa", [1]),
        ("ab22", [2]),  # a whole fingerprint wins over a name
    ],
)
def test_names_and_fingerprints(wanted, ids):
    assert [space.id for space in find_spaces(SPACES, wanted)] == ids


@pytest.mark.parametrize(("wanted", "problem"), [("a", "several"), ("", "no feature space"), ("tyle", "no feature")])
def test_what_is_no_name(wanted, problem):
    with pytest.raises(UnknownSpace, match=problem) as raised:
        find_spaces(SPACES, wanted)
    assert "mini/style (aa11)" in str(raised.value)


@pytest.mark.parametrize(
    ("visible", "answers"),
    [([5], 0), ([5, 4], 0), ([5, 5], 1), ([5, 6], 1), ([5, 7, 6], 1), ([5, 7, 7], 2), ([5, 4, 5], 2), ([0, 0, 0], 2)],
)
def test_the_newest_that_holds_as_many_as_each_older_one(visible, answers):
    spaces = [known(number, "mini/style", f"f{number}") for number in range(len(visible))]
    assert answering(spaces, dict(enumerate(visible))).id == answers


def test_a_new_space_is_built_while_the_old_one_keeps_answering(pictures, tmp_path):
    network = Path(shutil.copytree(TINY, tmp_path / "network"))
    index = IndexFolder.create(tmp_path / "index")
    requests = requested_spaces(str(network), ["look"], size=64)
    index_folders(index, [pictures], requests, FAST)
    searcher = Searcher(index.path, "cpu")
    (old,) = searcher.spaces()
    change_weights(network)

    def interrupt(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folders(index, [], requests, replace(FAST, commit_seconds=0), on_progress=interrupt)
    new = searcher.spaces()[1]
    assert new.name == old.name and new != old
    for wanted in (None, "look", "network/look"):
        assert searcher.choose(wanted) == old
    assert searcher.choose(new.fingerprint) == new
    status = diffsim("status", "--index", index.path).out.decode().splitlines()
    assert f"         answers for its name when it holds as many pictures as {old.fingerprint}" in status
    index_folders(index, [], requests, FAST)
    for wanted in (None, "look", "network/look"):
        assert searcher.choose(wanted) == new
    assert searcher.choose(old.fingerprint) == old
    assert len(searcher.search(pictures / "03.png", spaces="look", k=100)) == 11
    # Pictures that only the old space lost do not count for it: those that can be hits do.
    (pictures / "00.png").unlink()
    index_folders(index, [], requests, FAST)
    assert searcher.choose("look") == new


def test_other_networks_of_one_profile_stay_ambiguous(pictures, tmp_path):
    index = IndexFolder.create(tmp_path / "index")
    network = Path(shutil.copytree(TINY, tmp_path / "network"))
    for model in (TINY, network):
        index_folders(index, [pictures], requested_spaces(str(model), ["look"], size=64), FAST)
        change_weights(network)
    searcher = Searcher(index.path)
    with pytest.raises(UnknownSpace, match=r"several feature spaces.* tiny-sd15/look \(.* network/look \("):
        searcher.choose("look")
    assert searcher.choose(None).name == "tiny-sd15/look"
