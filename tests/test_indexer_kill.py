"""kill -9 in the middle of an indexing run, then the same run again: nothing lost, nothing twice.

`benchmarks/kills.py` does the same a hundred times; these are its named steps and a few moments.
"""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import TINY

from benchmarks.kills import STEPS, Kill, Scenario, differences, prepare, run, run_and_kill, try_kill
from diffsim.indexer.index_folder import IndexFolder


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def scenarios(work: Path) -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in prepare(work, str(TINY), 64, 12)}


def test_every_named_step_happens_and_features_come_before_their_rows(scenarios):
    assert {step for scenario in scenarios.values() for step in scenario.steps} == set(STEPS)
    for scenario in scenarios.values():
        steps = [step for step in scenario.steps if step.startswith("features")]
        commits = " ".join(steps).replace("features ", "").split(" committed")
        # A commit that two shards share is stored in both before its rows are written.
        assert commits.pop() == "" and {commit.strip() for commit in commits} == {"stored", "stored stored"}
        with IndexFolder.open(scenario.after).catalog(readonly=True) as catalog:
            assert [shard.number for shard in catalog.shards()] == [0, 1, 2]


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_a_step(scenarios, work, step):
    scenario = scenarios["update" if step == "missing committed" else "first run"]
    place = scenario.steps.index(step)
    commits, found = try_kill(work, Kill(scenario, place), str(TINY), 64)
    assert commits == place + 1
    assert found == []


def test_killed_between_the_two_shards_of_one_commit(scenarios, work):
    scenario = scenarios["first run"]
    place = next(n for n, pair in enumerate(pairwise(scenario.steps)) if pair == ("features stored",) * 2)
    assert try_kill(work, Kill(scenario, place), str(TINY), 64) == (place + 1, [])


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_killed_between_two_commits(scenarios, work, share):
    scenario = scenarios["update"]
    step = int(share * len(scenario.steps))
    _, found = try_kill(work, Kill(scenario, step, scenario.gaps[step] / 2), str(TINY), 64)
    assert found == []


def test_killed_twice_in_the_middle(scenarios, work):
    scenario = scenarios["first run"]
    index = work / "twice"
    for step in (scenario.steps.index("features stored"), 2):
        run_and_kill(index, scenario.gallery, str(TINY), 64, Kill(scenario, step))
    run(index, scenario.gallery, str(TINY), 64)
    assert differences(scenario.after, index) == []
