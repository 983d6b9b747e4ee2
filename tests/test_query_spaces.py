"""Several feature spaces in one question: each counts in units of its own chance, and who is absent is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from indexing import FAST, diffsim, draw, problem

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import BadQuery, Query, Searcher

NAMES = ("style", "instance")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in two spaces."""
    work = tmp_path_factory.mktemp("spaces")
    draw(work / "pictures", range(40))
    requests = requested_spaces(str(TINY), NAMES, size=64, tier="fp32")
    index_folders(IndexFolder.create(work / "index"), [work / "pictures"], requests, FAST)
    random_picture(77).save(work / "outside.png")
    return work


@pytest.mark.parametrize("picture", ["pictures/03.png", "outside.png"])
def test_scores_are_the_mean_of_standardised_scores(index: Path, picture: str) -> None:
    """Against numpy, from the two spaces' own exact answers: everything but the query is the sample of chance here."""
    searcher = Searcher(index / "index", "cpu")
    both = searcher.answer(Query(index / picture, spaces=NAMES, k=100))
    expected = dict.fromkeys((hit.content_id for hit in both.hits), 0.0)
    for name in NAMES:
        alone = {hit.content_id: hit.score for hit in searcher.search(index / picture, spaces=name, k=100, exact=True)}
        scores = np.array(list(alone.values()))
        for content_id, score in alone.items():
            expected[content_id] += (score - scores.mean()) / scores.std() / 2
    assert [hit.score for hit in both.hits] == pytest.approx([expected[hit.content_id] for hit in both.hits], abs=1e-3)
    assert sorted(expected.values(), reverse=True) == pytest.approx([hit.score for hit in both.hits], abs=1e-3)
    assert both.name == "tiny-sd15/style + tiny-sd15/instance"
    assert both.pictures == 40 and both.notes == []


def test_the_order_of_the_spaces_does_not_matter(index: Path) -> None:
    searcher = Searcher(index / "index", "cpu")
    there, back = (
        searcher.search(index / "outside.png", spaces=names, k=100) for names in (NAMES, (*NAMES[::-1], NAMES[0]))
    )
    assert [hit.content_id for hit in there] == [hit.content_id for hit in back]
    assert [hit.score for hit in there] == pytest.approx([hit.score for hit in back], abs=1e-5)


def test_candidates_are_the_union(index: Path) -> None:
    searcher = Searcher(index / "index", "cpu")
    picture = index / "outside.png"
    firsts = set()
    for name in NAMES:
        firsts |= {hit.content_id for hit in searcher.search(picture, spaces=name, k=5, candidates=5, rerank=False)}
    both = searcher.answer(Query(picture, spaces=NAMES, k=5, candidates=5))
    assert both.recalled == both.scored == len(firsts) > 5
    assert {hit.content_id for hit in both.hits} <= firsts
    exact = searcher.answer(Query(picture, spaces=NAMES, k=5, exact=True))
    assert exact.scored == 40


def test_the_query_itself_leads(index: Path) -> None:
    picture = index / "pictures" / "05.png"
    hits = Searcher(index / "index", "cpu").search(picture, spaces=NAMES, k=100, include_self=True)
    assert hits[0].path == str(picture) and len(hits) == 40
    assert hits[0].score > hits[1].score
    chances = [hit.by_chance for hit in hits]
    assert chances == sorted(chances) and 0 < chances[0] < chances[-1] <= 39


def test_pictures_that_a_space_lacks_are_named(index: Path, tmp_path: Path) -> None:
    draw(tmp_path / "pictures", range(30))
    folder = IndexFolder.create(tmp_path / "index")
    first, second = (requested_spaces(str(TINY), [name], size=64, tier="fp32") for name in NAMES)
    index_folders(folder, [tmp_path / "pictures"], [*first, *second], FAST)
    draw(tmp_path / "pictures", range(30, 32))
    index_folders(folder, [tmp_path / "pictures"], first, FAST)
    answer = Searcher(folder.path, "cpu").answer(Query(index / "outside.png", spaces=NAMES, k=100))
    assert len(answer.hits) == answer.pictures == 30
    (note,) = answer.notes
    assert "30.png" in note and "31.png" in note and "tiny-sd15/instance lacks them" in note


def test_without_reranking_there_is_nothing_to_weigh() -> None:
    with pytest.raises(BadQuery, match=r"drop --no-rerank or query one\.$"):
        Query("a.png", spaces=NAMES, rerank=False)
    Query("a.png", spaces="style", rerank=False)


def test_through_the_command(index: Path) -> None:
    arguments = ("query", index / "outside.png", "--index", index / "index", "--device", "cpu", "-k", "3")
    ran = diffsim(*arguments, "--by", "style", "--space", "instance", "--format", "json")
    assert ran.code == 0, ran
    rows = [json.loads(line) for line in ran.out.splitlines()]
    expected = Searcher(index / "index", "cpu").search(index / "outside.png", spaces=NAMES, k=3)
    assert [row["path"] for row in rows] == [hit.path for hit in expected]
    assert "tiny-sd15/style + tiny-sd15/instance: 40 pictures" in ran.err
    assert "drop --no-rerank" in problem(diffsim(*arguments, "--by", "style", "--by", "instance", "--no-rerank"))
