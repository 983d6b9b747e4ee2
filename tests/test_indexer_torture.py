"""The torture run at toy size: flipped bits and cuts in every file of an index, kills, a full disk, mutated files."""

from pathlib import Path

import pytest
import torture_disks
import torture_kills
import torture_pictures
import torture_soak
from conftest import TINY
from torture import table
from torture_flips import harms, part
from torture_ground import Count, Ground


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground.lay(tmp_path_factory.mktemp("torture"), str(TINY), pictures=8)


def test_no_harm_to_a_file_shows_a_wrong_picture_or_stays(ground: Ground, tmp_path: Path) -> None:
    count, trials = part(ground, tmp_path, harms(ground.index, flips=16, cuts=8, seed=3), "harms")
    assert count.wrong == [] and count.tried == 24
    assert {trial.mended for trial in trials} >= {"-", "right"}
    assert len({trial.harm.file.suffix for trial in trials}) >= 7


def test_kills_lose_nothing(tmp_path: Path) -> None:
    count = torture_kills.part(tmp_path / "kills", str(TINY), pictures=10, kills=5, seed=1)
    assert count.wrong == [] and count.facts == "1 index, 1 update, 1 prune, 1 verify, 1 FAISS rebuild"


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    count = torture_disks.part(tmp_path / "disks", str(TINY), pictures=10, disks=2)
    assert count.wrong == [] and count.tried == 2


def test_mutated_files_and_questions(ground: Ground, tmp_path: Path) -> None:
    mutated = torture_pictures.part(tmp_path, ground, files=40, seed=1)
    assert mutated.wrong == [] and mutated.facts.startswith("20 formats")
    asked = torture_soak.part(tmp_path, ground, questions=20, seed=1)
    assert asked.wrong == [] and asked.tried == 20


def test_what_goes_wrong_is_counted_by_kind() -> None:
    count = Count("part", tried=2, facts="fast")
    count.add("shifted", "a picture")
    assert list(table([count]))[-1] == "| part | 2 | 0 | 1 | 0 | 0 | fast |" and count.wrong == [
        "part: shifted: a picture"
    ]
