"""Flipped bits and cuts in every file of an index, from question to `verify` to the next run."""

from pathlib import Path

from conftest import TINY

from benchmarks.torture import Ground, harms


def test_no_harm_to_a_file_shows_a_wrong_picture_or_stays(tmp_path: Path) -> None:
    ground = Ground.lay(tmp_path, str(TINY), pictures=8)
    trials = [ground.trial(harm, tmp_path / "harmed") for harm in harms(ground.index, flips=16, cuts=8, seed=3)]
    assert not [f"{trial.harm}: {trial.wrong}" for trial in trials if trial.wrong]
    assert {trial.mended for trial in trials} >= {"-", "right"}
    assert len({trial.harm.file.suffix for trial in trials}) >= 7
