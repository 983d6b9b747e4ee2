"""One shard, two, three or seven: the same answers to every kind of question, and one pass of the network for each."""

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from indexing import FAST, draw
from PIL import Image

from diffsim.db.filters import Filters
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query import stages
from diffsim.query.compare import compare
from diffsim.query.query import Answer, Example, ExtractedPicture, Query
from diffsim.query.search import Searcher
from diffsim.retrieval.shard.messages import SpaceQuery

PICTURES = 42
IN_EVERY_SPACE = 37
SHARDS = {1: 1000, 2: 22, 3: 15, 7: 7}
"""Number of shards -> how many pictures each may hold."""

SPACES = ("style", "instance", "look")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, some of them near copies, in four indexes; some were added after FAISS files had been built,
    one was deleted, and one space lacks the newest."""
    work = tmp_path_factory.mktemp("shards")
    folder = work / "pictures"
    draw(folder / "a", range(20))
    draw(folder / "b", range(20, 34))
    for number in (1, 2, 21):  # near copies
        source = folder / ("a" if number < 20 else "b") / f"{number:02d}.png"
        Image.open(source).save(folder / "b" / f"copy{number}.jpg", quality=90)
    for shards, capacity in SHARDS.items():
        index = IndexFolder.create(work / f"index{shards}")
        options = replace(FAST, shard_pictures=capacity)
        index_folders(index, [folder], requested_spaces(str(TINY), SPACES, size=64, tier="fp32"), options)
    draw(folder / "c", range(40, 46))
    random_picture(77).save(work / "outside.png")
    (folder / "a" / "05.png").unlink()
    for shards in SHARDS:
        requests = requested_spaces(str(TINY), SPACES[:2], size=64, tier="fp32")
        index_folders(IndexFolder.open(work / f"index{shards}"), [folder], requests, FAST)
    return work


@pytest.fixture(scope="module")
def searchers(work: Path) -> dict[int, Searcher]:
    return {shards: Searcher(work / f"index{shards}", "cpu") for shards in SHARDS}


def test_the_indexes_have_as_many_shards(work: Path, searchers: dict[int, Searcher]) -> None:
    for shards in SHARDS:
        space = searchers[shards].choose("style")
        folders = sorted((work / f"index{shards}" / "spaces" / space.fingerprint / "shards").iterdir())
        assert [folder.name for folder in folders] == [f"{number:04d}" for number in range(shards)]
        found = searchers[shards].answer(Query(1, spaces=["style"], exact=True, k=100))
        assert found.pictures == PICTURES


def assert_same(found: Answer, expected: Answer) -> None:
    assert [hit.path for hit in found.hits] == [hit.path for hit in expected.hits]
    for ours, theirs in zip(found.hits, expected.hits, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)
        assert ours.by_chance == (theirs.by_chance and pytest.approx(theirs.by_chance, rel=0.02))
        assert [copy.path for copy in ours.duplicates] == [copy.path for copy in theirs.duplicates]
        assert (ours.rank, ours.recall_rank, ours.content_id) == (theirs.rank, theirs.recall_rank, theirs.content_id)
    for field in ("spaces", "pictures", "recalled", "scored", "reranked"):
        assert [getattr(found, field)] == [getattr(expected, field)] or field == "spaces"
    assert found.notes == expected.notes and found.name == expected.name


boxes = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
examples = st.builds(
    Example,
    st.integers(1, IN_EVERY_SPACE) | st.just("outside.png"),
    weight=st.sampled_from([1.0, 2.0, 0.5]),
    region=st.none() | boxes,
    spaces=st.sampled_from([(), ("style",), ("look",), ("style", "instance")]),
)
filters = st.sampled_from(
    [
        Filters(),
        Filters(folders=["pictures/b"]),
        Filters(folders=["pictures/a", "pictures/c"]),
        Filters(formats=["png"]),
    ]
)


def as_asked(query: Query, work: Path) -> Query:
    """With the names of the folder that the pictures are in now."""
    examples = [
        replace(one, subject=work / one.subject) if isinstance(one.subject, str) else one for one in query.all_examples
    ]
    folders = tuple(os.fspath(work / folder) for folder in query.filters.folders)
    return replace(query, examples=examples, filters=replace(query.filters, folders=folders))


queries = st.builds(
    lambda first, more, signs, **fields: Query(
        [first, *(replace(one, weight=one.weight * sign) for one, sign in zip(more, signs, strict=False))], **fields
    ),
    examples,
    st.lists(examples, max_size=2),
    st.lists(st.sampled_from([1, -1]), min_size=2, max_size=2),
    spaces=st.sampled_from([("style",), ("instance", "style"), ("look",), SPACES]),
    k=st.sampled_from([1, 5, 100]),
    candidates=st.sampled_from([3, 10, 200]),
    exact=st.booleans(),
    include_self=st.booleans(),
    filters=filters,
    fold=st.booleans(),
    max_by_chance=st.none() | st.just(5.0),
)


def different_pictures(query: Query) -> bool:
    """Where two examples of one picture cancel, the rounding of zero would be compared."""
    return len({one.subject for one in query.all_examples}) == len(query.all_examples)


@pytest.mark.parametrize("exhaustive", [0, stages.EXHAUSTIVE_NUMBERS])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(query=queries.filter(different_pictures))
def test_any_question_to_any_number_of_shards(
    query: Query, exhaustive: int, work: Path, searchers: dict[int, Searcher]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "EXHAUSTIVE_NUMBERS", exhaustive)
        asked = as_asked(query, work)
        expected = searchers[1].answer(asked)
        for shards in list(SHARDS)[1:]:
            assert_same(searchers[shards].answer(asked), expected)


def test_the_first_stage_alone_and_both_stages_one_after_the_other(work: Path, searchers: dict[int, Searcher]) -> None:
    for query in (Query(work / "outside.png", rerank=False, k=9), Query([3, Example(7, -1)], k=9)):
        expected = list(searchers[1].answers(query))
        for shards in list(SHARDS)[1:]:
            for ours, theirs in zip(searchers[shards].answers(query), expected, strict=True):
                assert_same(ours, theirs)


def test_examples_in_spaces_of_their_own(work: Path, searchers: dict[int, Searcher]) -> None:
    """One picture by style, another by instance: the sum of both, each in its own null spread."""
    searcher = searchers[3]
    both = searcher.answer(Query([Example(3, spaces=["style"]), Example(9, spaces=["instance"])], exact=True, k=100))
    assert both.name == "tiny-sd15/style + tiny-sd15/instance" and len(both.hits) == PICTURES - 2
    alone = [
        {hit.content_id: hit.score for hit in searcher.search(number, spaces=[space], exact=True, k=100)}
        for number, space in ((3, "style"), (9, "instance"))
    ]
    ids = [hit.content_id for hit in both.hits]
    scores = np.array([[table.get(row, np.nan) for row in ids] for table in alone])
    weights, *_ = np.linalg.lstsq(np.c_[scores.T, np.ones(len(ids))], [hit.score for hit in both.hits], rcond=None)
    fitted = np.c_[scores.T, np.ones(len(ids))] @ weights
    assert (weights[:2] > 0).all() and np.allclose(fitted, [hit.score for hit in both.hits], atol=1e-4)
    assert (
        both.hits
        == searcher.answer(
            Query([Example(3), Example(9, spaces=["instance"])], spaces=["style"], exact=True, k=100)
        ).hits
    )


def test_what_a_shard_is_asked_and_answers_can_be_pickled(searchers: dict[int, Searcher], work: Path) -> None:
    searcher = searchers[3]
    asked = searcher.encode(Query(Example(work / "outside.png", region=(0, 0, 0.5, 0.5)), spaces=["style"]))
    (part,) = asked.parts
    again: SpaceQuery = pickle.loads(pickle.dumps(part))
    ids, scores = searcher.collection.score([again], np.arange(1, 20))
    expected, same = searcher.collection.score([part], np.arange(1, 20))
    assert np.array_equal(ids, expected) and np.array_equal(scores, same)


# One network, one encoding


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often networks are loaded, pictures encoded, and read to the taps."""
    from diffsim.retrieval.networks.unet import UNetNetwork

    counts = {"loads": 0, "encodes": 0, "reads": 0}
    load, encode, read = UNetNetwork.load, UNetNetwork.encode, UNetNetwork.read

    def counting(name: str, work: object) -> object:
        def counted(*arguments: object, **more: object) -> object:
            counts[name] += 1
            return work(*arguments, **more)  # type: ignore[operator]

        return counted

    monkeypatch.setattr(UNetNetwork, "load", counting("loads", load))
    monkeypatch.setattr(UNetNetwork, "encode", counting("encodes", encode))
    monkeypatch.setattr(UNetNetwork, "read", counting("reads", read))
    return counts


@pytest.mark.parametrize("spaces", [("style",), ("style", "instance"), SPACES])
def test_one_load_and_one_encoding_a_question(counted: dict[str, int], work: Path, spaces: tuple[str, ...]) -> None:
    with Searcher(work / "index3", "cpu") as searcher:
        searcher.search(work / "outside.png", spaces=spaces)
        assert counted == {"loads": 1, "encodes": 1, "reads": 1}
        random_picture(78).save(work / "other.png")
        searcher.search([work / "outside.png", Example(work / "other.png", -1)], spaces=spaces)
        assert counted == {"loads": 1, "encodes": 2, "reads": 2}, "both pictures in one pass"


def test_an_indexed_picture_needs_no_network(counted: dict[str, int], work: Path) -> None:
    with Searcher(work / "index3", "cpu") as searcher:
        searcher.search(work / "pictures" / "a" / "01.png", spaces=SPACES)
        assert counted["loads"] == 0


def test_a_comparison_loads_and_encodes_once(counted: dict[str, int], work: Path) -> None:
    with Searcher(work / "index3", "cpu") as searcher:
        found = compare(searcher, Query(work / "outside.png", k=4))
        assert len(found.answers) == 3 and not found.problems
        assert counted == {"loads": 1, "encodes": 1, "reads": 1}
        alone = searcher.answer(Query(work / "outside.png", k=4, spaces=["instance"]))
        assert found.answers[1].hits == alone.hits


def test_what_an_index_lacks_of_a_picture_is_extracted_in_one_pass(counted: dict[str, int], work: Path) -> None:
    """A picture of two spaces that is asked in three: only the third needs the network."""
    newest = work / "pictures" / "c" / "41.png"
    with Searcher(work / "index3", "cpu") as searcher:
        searcher.search(newest, spaces=SPACES)
        assert counted == {"loads": 1, "encodes": 1, "reads": 1}
        extracted: ExtractedPicture = searcher.extract(newest, ["look"])
        assert len(extracted.features) == 1


# In memory


def test_bytes_images_and_arrays_are_as_good_as_files(work: Path, searchers: dict[int, Searcher]) -> None:
    searcher, path = searchers[2], work / "outside.png"
    expected = searcher.search(path, k=5)
    image = Image.open(path).convert("RGB")
    for subject in (path.read_bytes(), image, np.asarray(image), os.fspath(path)):
        assert searcher.search(subject, k=5) == expected
    indexed = (work / "pictures" / "a" / "03.png").read_bytes()
    found = searcher.search(work / "pictures" / "a" / "03.png", k=100, include_self=True)
    assert searcher.search(indexed, k=100) == found  # bytes name no file to leave out


def test_a_picture_that_moved_away_is_still_an_example(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "index3", tmp_path / "index")
    with Searcher(tmp_path / "index", "cpu") as searcher:
        gone = searcher.search(6, k=3)  # 05.png, which was deleted
        assert len(gone) == 3 and 6 not in [hit.content_id for hit in searcher.search(7, k=100)]
