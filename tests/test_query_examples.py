"""Questions beyond one whole picture: regions, several examples, filters, folded copies, two steps, and why."""

import json
import os
import pickle
import shutil
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from indexing import FAST, block_sizes, build, diffsim, draw
from PIL import Image, ImageEnhance, ImageOps

from diffsim.db.filters import BadFilter, Filters
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query import stages
from diffsim.query.notes import ALL_FOLDED
from diffsim.query.query import BadQuery, Example, Query
from diffsim.query.search import Searcher
from diffsim.retrieval.agreement import NoGrid
from diffsim.retrieval.drawings.gallery import SUBJECTS
from diffsim.retrieval.drawings.gallery import draw as drawing
from diffsim.retrieval.region import BadRegion, region_features
from diffsim.retrieval.score import aligned_attention, score_pair

LONG_AGO = datetime(2001, 5, 6, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in three folders, by date, and two spaces; one picture outside."""
    work = tmp_path_factory.mktemp("examples")
    draw(work / "pictures", range(20))
    draw(work / "pictures" / "old", range(20, 30))
    draw(work / "pictures" / "old!", range(30, 36))
    for number in range(36, 40):
        random_picture(number, 40, 200).save(work / "pictures" / f"{number}.jpg")
    for path in (work / "pictures" / "old").iterdir():
        os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
    requests = requested_spaces(str(TINY), ["look", "style"], size=64, tier="fp32")
    index_folders(IndexFolder.create(work / "index"), [work / "pictures"], requests, FAST)
    random_picture(77).save(work / "outside.png")
    return work


@pytest.fixture(scope="module")
def searcher(work: Path) -> Searcher:
    return Searcher(work / "index", "cpu")


def ids(hits: list) -> list[int]:
    return [hit.content_id for hit in hits]


def names(hits: list) -> set[str]:
    return {Path(hit.path).name for hit in hits}


# ------------------------------------------------------------------------------------------- pictures by id


def test_a_picture_by_its_id_needs_no_file(searcher, work, tmp_path):
    hits = searcher.search(work / "pictures" / "07.png", k=3)
    again = searcher.search(hits[0].content_id, k=100)
    assert again == searcher.search(hits[0].path, k=100)
    shutil.copytree(work / "index", tmp_path / "index")
    with Searcher(tmp_path / "index", "cpu") as elsewhere:
        assert elsewhere.search(hits[0].content_id, k=100) == again
        with pytest.raises(BadQuery, match=r"no picture 4711 in the feature space tiny-sd15/look.*\.$"):
            elsewhere.search(4711)


def test_an_extracted_picture_needs_its_file_no_more(searcher, work, tmp_path):
    picture = shutil.copy(work / "outside.png", tmp_path / "gone.png")
    expected = searcher.search(picture, spaces=["look", "style"], k=5)
    extracted = pickle.loads(pickle.dumps(searcher.extract(picture, ["look", "style"])))
    Path(picture).unlink()
    assert searcher.search(extracted, spaces=["look", "style"], k=5) == expected
    only_look = searcher.extract(work / "outside.png", ["look"])
    with pytest.raises(BadQuery, match=r"not extracted for the feature space tiny-sd15/style.*\.$"):
        searcher.search(only_look, spaces="style")
    indexed = searcher.extract(work / "pictures" / "07.png")
    itself, *others = searcher.search(indexed, k=100)  # it names no file that could be left out
    assert itself.path == str(work / "pictures" / "07.png")
    neighbours = searcher.search(work / "pictures" / "07.png", k=100)
    assert [hit.content_id for hit in others] == [hit.content_id for hit in neighbours]


# ------------------------------------------------------------------------------------------- regions


@pytest.mark.parametrize("picture", ["pictures/07.png", "outside.png"])
def test_a_region_scores_one_way_as_defined(searcher, work, picture):
    box = (0.1, 0.2, 0.3, 0.4)
    hits = searcher.search(work / picture, region=box, k=100)
    space = searcher.choose(None)
    kit = searcher.collection.kit(space)
    (asked,) = searcher.encode(Query(work / picture)).parts
    features = kit.read([asked.tokens])
    (region,) = region_features(features, box)
    assert 0 < region.query.shape[2] < features[0].query.shape[2]
    for hit in hits[:5] + hits[-5:]:
        (other,) = kit.read([searcher.collection.features(space.fingerprint, hit.content_id).tokens])
        assert hit.score == pytest.approx(aligned_attention(region, other)[0].item(), abs=1e-5)
    assert len(hits) == 40 - (picture != "outside.png")


def test_the_whole_picture_as_a_region_asks_in_one_direction(searcher, work):
    hits = searcher.search(work / "pictures" / "07.png", region=(0, 0, 1, 1), k=100)
    pair = searcher.pair(work / "pictures" / "07.png", hits[3].content_id)
    assert hits[3].score == pytest.approx(score_pair(pair.a, pair.b, pair.weights).forward, abs=1e-6)
    itself = searcher.search(work / "pictures" / "07.png", region=(0.5, 0.5, 0.1, 0.1), include_self=True)[0]
    assert itself.path.endswith("07.png") and itself.score == pytest.approx(1, abs=1e-6)


def test_a_small_collection_is_scored_whole_and_a_large_one_recalls_more(searcher, work, monkeypatch):
    example = Example(work / "pictures" / "07.png", region=(0, 0, 0.5, 0.5))
    query = Query(example, k=3, candidates=3)
    whole = searcher.answer(query)
    assert whole.scored == 39 and whole.notes == ["The region was scored against every picture."]
    monkeypatch.setattr(stages, "EXHAUSTIVE_NUMBERS", 0)
    staged = searcher.answer(query)
    assert staged.scored == staged.recalled == 15 and "recalled by the whole picture" in staged.notes[0]
    assert staged.hits[0].recall_rank <= 15
    exact = searcher.answer(Query(example, k=3, exact=True))
    assert ids(exact.hits) == ids(whole.hits) and exact.notes == []


def test_regions_that_are_not_allowed(work):
    with pytest.raises(BadRegion, match=r"does not lie in the picture.*\.$"):
        Example(work / "outside.png", region=(0.5, 0.5, 0.6, 0.1))
    with pytest.raises(BadQuery, match=r"drop --no-rerank or the region\.$"):
        Query(Example(work / "outside.png", region=(0, 0, 1, 1)), rerank=False)


# ------------------------------------------------------------------------------------------- several examples


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 19), st.floats(0.01, 50))
def test_the_same_picture_twice_keeps_the_order(searcher, work, number, weight):
    picture = work / "pictures" / f"{number:02d}.png"
    plain = searcher.search(picture, k=100)
    twice = searcher.search([picture, Example(picture, weight)], k=100)
    # Scores in null spreads are ties where cosines differ in the seventh digit.
    assert [hit.score for hit in twice] == sorted((hit.score for hit in twice), reverse=True)
    cosines = {hit.content_id: hit.score for hit in plain}
    assert [cosines[i] for i in ids(twice)] == pytest.approx([hit.score for hit in plain], abs=2e-6)


def test_scores_are_the_weighted_sum_in_null_spreads(searcher, work):
    """Against numpy, from each example's own exact answer: all but the examples are the sample of chance here."""
    examples = {work / "pictures" / "03.png": 1.0, work / "outside.png": 0.5, work / "pictures" / "09.png": -0.7}
    first, *more = examples
    answer = searcher.answer(Query([first, *(Example(path, examples[path]) for path in more)], k=100, exact=True))
    assert answer.pictures == 40 and len(answer.hits) == 38
    expected = np.zeros(38)
    for path, weight in examples.items():
        alone = {hit.content_id: hit.score for hit in searcher.search(path, k=100, exact=True)}
        scores = np.array([alone[i] for i in ids(answer.hits)])
        expected += weight * (scores - scores.mean()) / scores.std()
    assert [hit.score for hit in answer.hits] == pytest.approx(expected, abs=2e-3)
    chances = [hit.by_chance for hit in answer.hits]
    assert chances == sorted(chances) and chances[-1] <= 38


def test_candidates_are_those_of_the_positive_examples(searcher, work):
    pictures = [work / "pictures" / f"{number:02d}.png" for number in (1, 2, 3)]
    own = {searcher.search(p, include_self=True, k=1)[0].content_id for p in pictures}
    orders = [ids(searcher.search(p, k=100, rerank=False)) for p in pictures[:2]]
    recalled = {i for order in orders for i in [i for i in order if i not in own][:5]}
    query = Query([pictures[0], Example(pictures[1], 2), Example(pictures[2], -1)], k=5, candidates=5)
    answer = searcher.answer(query)
    assert answer.recalled == answer.scored == len(recalled) and set(ids(answer.hits)) <= recalled
    exact = {hit.content_id: hit for hit in searcher.answer(replace(query, exact=True, k=100)).hits}
    for hit in answer.hits:
        assert hit.score == pytest.approx(exact[hit.content_id].score, abs=1e-5)
        assert hit.by_chance == exact[hit.content_id].by_chance
    pushed = searcher.search([pictures[0], Example(pictures[2], -50)], k=100)
    near = searcher.search(pictures[2], k=100)
    assert ids(pushed)[-1] in ids(near)[:3] and ids(pushed)[0] in ids(near)[-3:]


def test_examples_regions_spaces_and_filters_together(searcher, work):
    answer = searcher.answer(
        Query(
            [
                Example(work / "outside.png", region=(0, 0, 0.5, 1)),
                Example(5, -0.5, (0.5, 0.5, 0.2, 0.2)),
                Example(work / "pictures" / "07.png", 2),
            ],
            spaces=["look", "style"],
            filters=Filters(formats=["png"]),
            k=100,
        )
    )
    assert answer.pictures == 36 and len(answer.hits) == 34
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)


@pytest.mark.parametrize("weight", [0, float("nan"), float("inf")])
def test_weights_that_are_not_allowed(weight):
    with pytest.raises(BadQuery, match=r"above or below 0\.$"):
        Example(1, weight)


def test_without_reranking_examples_cannot_be_weighed():
    with pytest.raises(BadQuery, match=r"drop --no-rerank"):
        Query([1, 2], rerank=False)


# ------------------------------------------------------------------------------------------- filters

WAYS = [
    (Filters(folders="old"), 10),
    (Filters(folders=("old", "old!")), 16),
    (Filters(folders="."), 40),
    (Filters(folders=".."), 40),
    (Filters(before=date(2002, 1, 1)), 10),
    (Filters(after=date(2002, 1, 1)), 30),
    (Filters(after=LONG_AGO, before=datetime(2001, 5, 6, 12, 0, 1, tzinfo=UTC)), 10),
    (Filters(before=LONG_AGO), 0),
    (Filters(formats=["JPG", "webp"]), 4),
    (Filters(min_side=41), 36),
    (Filters(min_side=40, max_side=96), 36),
    (Filters(folders="old", formats="jpeg"), 0),
    (Filters(min_bytes=1), 40),
    (Filters(max_bytes=10), 0),
]


@pytest.mark.parametrize(("filters", "passing"), WAYS, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("exact", [False, True])
def test_a_filter_is_the_unfiltered_answer_over_what_passes(searcher, work, monkeypatch, filters, passing, exact):
    monkeypatch.chdir(work / "pictures")
    everything = searcher.search(work / "outside.png", k=100, exact=True)
    answer = searcher.answer(Query(work / "outside.png", k=100, candidates=100, filters=filters, exact=exact))
    assert answer.pictures == len(answer.hits) == passing
    kept = set(ids(answer.hits))
    assert ids(answer.hits) == [i for i in ids(everything) if i in kept]
    scores = {hit.content_id: hit.score for hit in everything}
    assert [hit.score for hit in answer.hits] == pytest.approx([scores[i] for i in ids(answer.hits)], abs=1e-6)
    dated = [note for note in answer.notes if "have no date of their own" in note]
    assert len(dated) == filters.dated and len(answer.notes) == filters.dated + (passing == 0)
    if not passing:
        assert answer.notes[0].startswith("No picture passes the filters") and answer.notes[0].endswith(".")
    for hit in answer.hits:
        whole = next(other for other in everything if other.content_id == hit.content_id)
        assert hit.by_chance == pytest.approx(whole.by_chance * passing / 40, rel=0.1)


def test_filters_come_before_recall(searcher, work):
    """Few candidates, and still the nearest of those that pass, from the FAISS file and from the tail."""
    old = Filters(folders=work / "pictures" / "old")
    everything = searcher.search(work / "outside.png", k=100, rerank=False)
    wanted = [i for hit, i in zip(everything, ids(everything), strict=True) if "/old/" in hit.path][:2]
    found = searcher.search(work / "outside.png", k=2, candidates=2, rerank=False, filters=old)
    assert ids(found) == wanted
    assert block_sizes(searcher) == [40]
    draw(work / "more" / "a", range(50, 52))
    draw(work / "more" / "b", range(52, 54))
    shutil.copytree(work / "index", work / "grown")
    requests = requested_spaces(str(TINY), ["look", "style"], size=64, tier="fp32")
    index_folders(IndexFolder.open(work / "grown"), [work / "more"], requests, FAST)
    with Searcher(work / "grown", "cpu") as grown:
        everything = grown.search(work / "outside.png", k=100, rerank=False)
        assert block_sizes(grown) == [40, 4] and len(everything) == 44
        for folders in ([work / "more" / "b"], [work / "more" / "a", work / "pictures" / "old"], [work]):
            wanted = [hit for hit in everything if any(Path(hit.path).is_relative_to(folder) for folder in folders)]
            answer = grown.answer(Query(work / "outside.png", k=100, rerank=False, filters=Filters(folders=folders)))
            assert ids(answer.hits) == ids(wanted) and answer.pictures == len(wanted)


def test_a_file_that_had_just_been_written_is_asked_for_its_time(tmp_path):
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")  # within 2 s: the catalog trusts no time
    with Searcher(tmp_path / "index", "cpu") as searcher:
        assert len(searcher.search(1, filters=Filters(after=date(2020, 1, 1)))) == 2
        assert searcher.search(1, filters=Filters(before=date(2020, 1, 1))) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"formats": "docx"}, "'docx' is no format"),
        ({"min_side": 10, "max_side": 9}, "sides"),
        ({"after": date(2001, 1, 1), "before": date(2000, 1, 1)}, "dates"),
    ],
)
def test_filters_that_are_not_allowed(settings, sentence):
    with pytest.raises(BadFilter, match=rf"{sentence}.*\.$"):
        Filters(**settings)


# ------------------------------------------------------------------------------------------- near copies


def test_near_copies_are_folded_and_k_counts_tiles(tmp_path):
    folder = tmp_path / "pictures"
    draw(folder, range(40))
    for number in (3, 4):
        picture = random_picture(number)
        picture.save(folder / f"{number:02d}-again.jpg", quality=95)
        ImageEnhance.Brightness(picture).enhance(1.01).save(folder / f"{number:02d}-brighter.png")
        picture.resize((90, 68), Image.Resampling.LANCZOS).save(folder / f"{number:02d}-small.png")
    build(tmp_path / "index", folder)
    with Searcher(tmp_path / "index", "cpu") as searcher:
        plain = searcher.search(folder / "03.png", k=100)
        folded = searcher.search(folder / "03.png", k=100, fold=True)
        copies = {f"03-{what}" for what in ("again.jpg", "brighter.png", "small.png")}
        assert names([folded[0], *folded[0].duplicates]) == copies and len(folded[0].duplicates) == 2
        fourth = next(hit for hit in folded if Path(hit.path).name.startswith("04"))
        assert len(fourth.duplicates) == 3 and {hit.rank for hit in fourth.duplicates} == {fourth.rank}
        assert [hit.rank for hit in folded] == list(range(1, len(folded) + 1)) and len(folded) == 45 - 5
        everything = {hit.content_id for tile in folded for hit in (tile, *tile.duplicates)}
        assert everything == set(ids(plain))
        assert [hit.score for hit in folded] == sorted((hit.score for hit in folded), reverse=True)
        few = searcher.search(folder / "03.png", k=4, fold=True)
        assert ids(few) == ids(folded[:4])


def frames(folder, number, count):
    """A burst: one picture, each time a little brighter."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(count):
        picture = ImageEnhance.Brightness(random_picture(number)).enhance(0.99 - 0.002 * frame)
        picture.save(folder / f"{number:02d}-frame-{frame:03d}.png")


def test_folding_goes_on_until_the_answer_is_full(tmp_path):
    """More near copies than candidates: the other pictures are found behind them."""
    draw(tmp_path / "pictures", range(20))
    frames(tmp_path / "pictures", 3, 30)
    build(tmp_path / "index", tmp_path / "pictures")
    with Searcher(tmp_path / "index", "cpu") as searcher:

        def asked(**settings):
            return searcher.answer(Query(tmp_path / "pictures" / "03.png", fold=True, **settings))

        answer = asked(k=10, candidates=12)
        assert len(answer.hits) == 10 and len(answer.hits[0].duplicates) >= 20
        assert answer.recalled == 12 * 4 and ALL_FOLDED not in answer.notes
        assert ids(answer.hits) == ids(asked(k=10, exact=True).hits)
        first, last = searcher.answers(Query(tmp_path / "pictures" / "03.png", fold=True, k=10, candidates=12))
        assert last == answer and first.recalled == 12
        all_of_them = asked(k=40, candidates=12)
        assert all_of_them.recalled == all_of_them.pictures - 1 and ALL_FOLDED in all_of_them.notes
        assert 19 <= len(all_of_them.hits) < 40
        sure = asked(k=40, candidates=12, max_by_chance=1e-3)
        assert sure.recalled == 40 and ALL_FOLDED not in sure.notes


MIXED = list(zip(SUBJECTS, ["neon", "pencil", "glass", "poster", "ink", "watercolour", "chalk"] * 3, strict=False))


def test_a_mirrored_picture_is_a_near_copy(tmp_path):
    """To a network that was trained; one of random weights takes left and right for different things."""
    (tmp_path / "pictures").mkdir()
    pictures = {f"{subject}-{style}.png": drawing(subject, style, size=224) for subject, style in MIXED}
    name, picture = list(pictures.items())[2]
    for file, shown in {**pictures, "mirrored.png": ImageOps.mirror(picture)}.items():
        shown.save(tmp_path / "pictures" / file)
    requests = requested_spaces("mini", ["instance"])
    index_folders(IndexFolder.create(tmp_path / "index"), [tmp_path / "pictures"], requests, FAST)
    with Searcher(tmp_path / "index", "cpu") as searcher:
        shown = searcher.search(tmp_path / "pictures" / next(iter(pictures)), k=30, fold=True)
    (tile,) = [hit for hit in shown if hit.duplicates]
    assert names([tile, *tile.duplicates]) == {name, "mirrored.png"}


def test_a_burst_is_not_what_chance_looks_like(tmp_path):
    """Four of five pictures are frames of one burst: the sample has the other pictures, and few of the frames."""
    draw(tmp_path / "pictures", range(30))
    frames(tmp_path / "pictures", 77, 120)
    build(tmp_path / "index", tmp_path / "pictures")
    with Searcher(tmp_path / "index", "cpu") as searcher:
        first = searcher.answer(Query(random_picture(200), k=150))
        sample = searcher.collection.null_sample([first.spaces[0].fingerprint], 256, np.empty(0, np.int64))
        burst = {hit.content_id for hit in first.hits if "frame" in hit.path}
        assert len(burst) == 120 and len(burst & set(sample.tolist())) <= 3 and len(sample) >= 30
        alarms = [searcher.search(random_picture(300 + number), k=1)[0].by_chance <= 0.05 for number in range(20)]
        assert sum(alarms) <= 1


# ------------------------------------------------------------------------------------------- in two steps


def test_an_answer_in_two_steps(searcher, work):
    query = Query([work / "outside.png", Example(3, -1)], k=5)
    first, second = searcher.answers(query)
    assert not first.reranked and second.reranked and second == searcher.answer(query)
    assert [hit.recall_rank for hit in first.hits] == [1, 2, 3, 4, 5]
    assert all(hit.by_chance is None for hit in first.hits) and first.scored == 0
    assert (first.pictures, first.recalled, first.spaces) == (second.pictures, second.recalled, second.spaces)
    plain = Query(work / "outside.png", k=5, rerank=False)
    assert list(searcher.answers(plain)) == [searcher.answer(plain)]


# ------------------------------------------------------------------------------------------- why


def test_why_from_stored_tokens(searcher, work):
    hit = searcher.search(work / "pictures" / "07.png", k=1)[0]
    pair = searcher.pair(work / "pictures" / "07.png", hit.content_id)
    why = pair.agreement()
    assert why.score == pytest.approx(hit.score, abs=1e-6)
    rows, columns = why.a_from_b.shape
    attention = pair.attention((rows - 1, 0))
    assert attention.shape == (rows, columns) and attention.sum().item() == pytest.approx(1, abs=1e-5)
    for region in why.regions:
        same = pair.attention((region.row, region.column))
        assert np.allclose(same, region.attention, atol=1e-6)
    with pytest.raises(NoGrid, match=r"not on the grid"):
        searcher.pair(1, 2).attention((rows, 0))
    outside = searcher.pair(work / "outside.png", 1, "style").agreement()
    other_way = searcher.pair(1, work / "outside.png", "style").agreement()
    assert outside.score == pytest.approx(other_way.score, abs=1e-6)


# ------------------------------------------------------------------------------------------- threads


def test_searchers_of_one_index_in_several_threads(work):
    with Searcher(work / "index", "cpu") as one:
        expected = [one.search(number, k=5) for number in range(1, 21)]
    found: dict[int, list] = {}

    def ask(thread: int) -> None:
        with Searcher(work / "index", "cpu") as own:
            for number in range(1, 21):
                found[thread, number] = own.search(number, k=5)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[thread, number] == expected[number - 1] for thread in range(4) for number in range(1, 21))


# ------------------------------------------------------------------------------------------- the command


def test_through_the_command(searcher, work, tmp_path):
    shutil.copy(work / "pictures" / "05.png", tmp_path / "2:five.png")
    command = ("query", work / "outside.png", "--index", work / "index", "--device", "cpu", "--format", "json")
    ran = diffsim(
        *(*command, "-k", "4", "--region", "0.1,0.2,0.5,0.5", "--add", f"0.5:{work}/pictures/03.png"),
        *("--subtract", tmp_path / "2:five.png", "--folder", work / "pictures", "--type", "png"),
        *("--min-side", "41", "--after", "2001-01-01", "--before", "2002-01-01", "--fold"),
    )
    assert ran.code == 0, ran
    rows = [json.loads(line) for line in ran.out.splitlines()]
    expected = searcher.search(
        [
            Example(work / "outside.png", region=(0.1, 0.2, 0.5, 0.5)),
            Example(work / "pictures" / "03.png", 0.5),
            Example(work / "pictures" / "05.png", -1),
        ],
        k=4,
        filters=Filters(folders=work / "pictures" / "old"),
    )
    assert [row["content_id"] for row in rows] == ids(expected) and len(rows) == 4
    assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert all(row["duplicates"] == [] for row in rows)
    assert "scored against every picture" in ran.err and "10 pictures" in ran.err


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--region", "0,0,2,1"), 1, "does not lie in the picture"),
        (("--region", "0,0,1"), 2, "write X,Y,W,H"),
        (("--add", "0:a.png"), 2, "leave it out"),
        (("--subtract", "none.png"), 1, "No such file"),
        (("--type", "docx"), 1, "choose one of AVIF"),
        (("--after", "yesterday"), 2, "is not a day"),
    ],
)
def test_options_that_are_not_allowed(work, options, code, sentence):
    ran = diffsim("query", work / "outside.png", "--index", work / "index", "--device", "cpu", *options)
    assert ran.code == code and ran.out == b"" and sentence in ran.err and "Traceback" not in ran.err, ran


def test_near_copies_in_the_table(tmp_path):
    draw(tmp_path / "pictures", range(8))
    random_picture(3).save(tmp_path / "pictures" / "03.bmp")
    random_picture(3).save(tmp_path / "pictures" / "03.tif")
    build(tmp_path / "index", tmp_path / "pictures")
    ran = diffsim("query", tmp_path / "pictures" / "04.png", "--index", tmp_path / "index", "--fold")
    assert ran.code == 0 and ran.out.count(b"(and 2 near copies)") == 1 and len(ran.out.splitlines()) >= 7, ran
