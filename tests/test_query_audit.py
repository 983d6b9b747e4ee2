"""What the first stage misses, measured: against the answers that the searcher itself gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from indexing import block_sizes, build, copy_index, diffsim, draw, problem

from diffsim.query.evaluation.audit import COUNTS, audit
from diffsim.query.search import Query, Searcher


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures, the last three of them in the tail."""
    folder = tmp_path_factory.mktemp("audit")
    draw(folder / "pictures", range(37))
    build(folder / "index", folder / "pictures")
    draw(folder / "pictures", range(37, 40))
    build(folder / "index", folder / "pictures")
    return folder


@pytest.fixture
def searcher(work: Path) -> Iterator[Searcher]:
    with Searcher(work / "index", "cpu") as opened:
        yield opened


def test_agrees_with_the_answers_of_the_searcher(
    work: Path, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsim.query.evaluation.audit.COUNTS", (10, 25))
    (space,) = searcher.spaces()
    assert block_sizes(searcher) == [37, 3]
    calls: list[tuple[int, int]] = []
    found = audit(searcher.collection, space, queries=100, on_progress=lambda *at: calls.append(at))
    assert found is not None and (found.pictures, found.queries, found.top) == (40, 40, 10)
    assert calls[0] == (0, 100) and calls[-1] == (40, 40)
    shares = []
    for picture in sorted((work / "pictures").iterdir()):
        nearest = {hit.content_id for hit in searcher.answer(Query(picture, k=10, exact=True)).hits}
        order = [hit.content_id for hit in searcher.answer(Query(picture, k=25, candidates=25, rerank=False)).hits]
        shares.append([len(nearest.intersection(order[:count])) / 10 for count in (10, 25)])
    assert [one.recall.value for one in found.candidates] == pytest.approx(np.mean(shares, axis=0), abs=1e-9)
    assert found.candidates[0].recall.value < found.candidates[1].recall.value  # else nothing was told apart
    assert all(one.recall.low <= one.recall.value <= one.recall.high and one.seconds > 0 for one in found.candidates)
    assert found.exact_seconds > found.seconds_per_candidate > 0


def test_the_fewest_that_are_enough(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    (space,) = searcher.spaces()
    monkeypatch.setattr("diffsim.query.evaluation.audit.COUNTS", (1, 38, 39))
    found = audit(searcher.collection, space, queries=20)
    assert found is not None and [one.count for one in found.candidates] == [1, 38]
    assert found.candidates[0].recall.value <= 0.1  # one candidate holds at most one of ten
    assert found.candidates[1].recall.low >= 0.99 and found.enough == 38
    monkeypatch.setattr("diffsim.query.evaluation.audit.COUNTS", (1,))
    none = audit(searcher.collection, space, queries=20)
    assert none is not None and none.enough is None


def test_the_seed_chooses_who_asks(searcher: Searcher) -> None:
    (space,) = searcher.spaces()
    first, again, other = (audit(searcher.collection, space, queries=12, seed=seed) for seed in (0, 0, 1))
    assert first and again and other
    shares = [[one.recall for one in found.candidates] for found in (first, again, other)]
    assert shares[0] == shares[1] != shares[2]


def test_a_lost_faiss_file_is_said(work: Path, tmp_path: Path) -> None:
    index = copy_index(work / "index", tmp_path / "index")
    next(index.glob("spaces/*/shards/*/recall-*.faiss")).unlink()
    ran = diffsim("audit", "--index", index, "--queries", "10")
    assert ran.code == 0 and "FAISS file is missing" in ran.err


def test_the_command_says_what_is_enough(work: Path) -> None:
    ran = diffsim("audit", "--index", work / "index", "--queries", "10")
    assert ran.code == 0, ran
    lines = ran.out.decode().splitlines()
    assert lines[0].startswith("tiny-sd15/look (") and lines[0].endswith("): 40 pictures, 10 of them asked")
    assert [line.split()[0] for line in lines[2:4]] == ["25", "--exact"]
    assert lines[3].endswith("a picture)") and ("--candidates" in lines[4] or "--exact takes" in lines[4])
    row = json.loads(diffsim("audit", "--index", work / "index", "--queries", "10", "--json", "--space", "look").out)
    assert (row["space"], row["pictures"], row["queries"], row["top"]) == ("tiny-sd15/look", 40, 10, 10)
    (one,) = row["candidates"]
    share = one["recall"]
    assert one["count"] == 25 and f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})" in lines[2]
    assert lines[4].startswith("--candidates 25 is enough") == (row["enough"] == 25)


def test_small_and_unknown(tmp_path: Path, work: Path) -> None:
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")
    ran = diffsim("audit", "--index", tmp_path / "index")
    assert ran.code == 0 and b"so few pictures" in ran.out and min(COUNTS) > 3
    draw(tmp_path / "one", range(1))
    build(tmp_path / "lonely", tmp_path / "one")
    assert "fewer than two" in diffsim("audit", "--index", tmp_path / "lonely").err
    assert diffsim("audit", "--index", tmp_path / "lonely").code == 1
    assert "no feature space" in problem(diffsim("audit", "--index", work / "index", "--space", "style"))
    assert diffsim("audit", "--index", work / "index", "--queries", "0").code == 2
