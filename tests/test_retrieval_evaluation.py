"""Accuracy, intervals, retrieval metrics and baselines against hand-computed values, brute force and properties."""

from pathlib import Path

import numpy as np
import pytest
from conftest import random_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffsim.retrieval.evaluation.baselines import BASELINES, colour_histogram, gradient_histogram, thumbnail
from diffsim.retrieval.evaluation.bootstrap import Figure, mean_figure
from diffsim.retrieval.evaluation.ranking import Labelled, query_metrics, retrieval, sampled_queries
from diffsim.retrieval.evaluation.triplets import (
    BadBenchmark,
    Triplet,
    accuracy,
    gain,
    limited,
    read_triplets,
    verdicts,
    write_triplets,
)

# ------------------------------------------------------------------------------------------------- accuracy


def test_verdicts_and_accuracy_by_hand():
    found = verdicts(np.array([0.9, 0.5, 0.7, 0.2]), np.array([0.1, 0.5, 0.8, 0.1]))
    assert found.tolist() == [1, 0, -1, 1]
    # Each unit has one right of two: whatever is drawn, half is right.
    assert accuracy(found, ["a", "a", "b", "b"]) == Figure(0.5, 0.5, 0.5)


def test_scores_that_agree_to_six_decimals_tie_and_a_tie_is_wrong():
    found = verdicts(np.array([0.5 + 2e-8, 0.500002], np.float32), np.array([0.5, 0.5], np.float32))
    assert found.tolist() == [0, 1] and accuracy(found, ["a", "b"]).value == 0.5


def test_the_gain_is_paired():
    first, other = np.array([1, 1, -1, -1] * 5), np.array([1, 1, -1, 1] * 5)
    units = [str(number // 4) for number in range(20)]
    assert gain(other, first, units) == Figure(0.25, 0.25, 0.25)  # in every unit, so it is sure
    assert gain(first, first, units) == Figure(0, 0, 0)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.sampled_from("abcd")), min_size=1, max_size=40))
def test_accuracy_adds_up_and_depends_on_no_order(rows):
    closer, farther, units = (list(column) for column in zip(*rows, strict=True))
    found = verdicts(np.array(closer), np.array(farther))
    assert (verdicts(np.array(farther), np.array(closer)) == -found).all()
    share = accuracy(found, units)
    ties = sum(a == b for a, b in zip(closer, farther, strict=True))
    assert round((share.value + accuracy(-found, units).value) * len(rows)) + ties == len(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    other = accuracy(found[order], [units[place] for place in order])
    assert (other.low, other.high) == (share.low, share.high) and other.value == pytest.approx(share.value)
    if share.low is not None:
        assert 0 <= share.low <= share.high <= 1


# ------------------------------------------------------------------------------------------------- bootstrap


def test_one_unit_supports_no_interval():
    assert mean_figure(np.array([0.0, 1.0]), ["a", "a"], 0) == Figure(0.5, None, None)


def test_the_interval_of_two_units_by_hand():
    # Means 1 and 0, drawn twice: the mean is 0 or 1 with probability 1/4 each, so both ends of 95 % reach them.
    assert mean_figure(np.array([1.0, 1.0, 0.0, 0.0]), ["a", "a", "b", "b"], 0) == Figure(0.5, 0.0, 1.0)


def test_the_interval_agrees_with_a_brute_force_of_its_own():
    generator = np.random.default_rng(1)
    units = generator.integers(0, 30, 400)
    values = (generator.random(400) < 0.3 + 0.4 * (units % 2)).astype(float)
    found = mean_figure(values, [f"u{unit}" for unit in units], 5)
    means = []
    for _ in range(4000):
        drawn = generator.integers(0, 30, 30)
        picked = np.concatenate([values[units == unit] for unit in drawn])
        means.append(picked.mean())
    assert np.percentile(means, 2.5) == pytest.approx(found.low, abs=0.01)
    assert np.percentile(means, 97.5) == pytest.approx(found.high, abs=0.01)
    # Triplets of one unit are alike here: taking them for independent would promise too much.
    naive = 1.96 * values.std() / np.sqrt(len(values))
    assert found.high - found.low > 2 * naive * 1.2


def test_the_interval_is_deterministic_and_knows_its_seed():
    values, units = np.arange(40) % 3 / 2, [str(number % 11) for number in range(40)]
    assert mean_figure(values, units, 1) == mean_figure(values, units, 1)
    assert mean_figure(values, units, 1) != mean_figure(values, units, 2)


# ------------------------------------------------------------------------------------------------- retrieval


def test_query_metrics_by_hand():
    right = np.array([True, False, True, False, False, True])
    mean, p1, p5, p10, r1, r5, r10 = query_metrics(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), right)
    assert mean == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert (p1, p5, p10) == (1, 0.4, 0.3)
    assert (r1, r5, r10) == (1 / 3, 2 / 3, 1)
    assert query_metrics(np.array([0.1]), np.array([False])) is None


def test_a_tie_is_to_nobody_s_credit():
    right = np.array([True, False, False])
    assert query_metrics(np.zeros(3), right)[0] == pytest.approx(1 / 3)
    assert query_metrics(np.array([1e-8, 0, 0]), right)[0] == pytest.approx(1 / 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25))
def test_query_metrics_agree_with_a_brute_force(rows):
    scores, right = np.array([row[0] for row in rows]) / 7, np.array([row[1] for row in rows])
    found = query_metrics(scores, right)
    ranked = [good for _, good in sorted(rows, key=lambda row: (-row[0], row[1]))]
    wanted = sum(ranked)
    if not wanted:
        assert found is None
        return
    precisions = [sum(ranked[: place + 1]) / (place + 1) for place, good in enumerate(ranked) if good]
    expected = [sum(precisions) / wanted]
    expected += [sum(ranked[:k]) / k for k in (1, 5, 10)]
    expected += [sum(ranked[:k]) / wanted for k in (1, 5, 10)]
    assert found == pytest.approx(expected)


def labelled(groups: str, lookalikes: str = "") -> Labelled:
    return Labelled([Path(str(n)) for n in range(len(groups))], list(groups), list(lookalikes) or [""] * len(groups))


def test_retrieval_by_hand():
    scores = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]])
    found = retrieval(scores, np.arange(3), labelled("aab"))
    # 0 finds 1 in second place, 1 finds 0 in first; 2 is alone.
    assert found.figures["mAP"].value == pytest.approx(0.75)
    assert found.figures["precision@1"].value == 0.5
    assert found.figures["recall@5"].value == 1
    assert (found.queries, found.alone, found.groups) == (2, 1, 1)
    assert found.figures["mAP"].low is None


def test_lookalikes_of_another_group_do_not_count():
    scores = np.array([[1.0, 0.2, 0.9, 0.1]])
    strict = retrieval(scores, np.array([0]), labelled("aabb"))
    lenient = retrieval(scores, np.array([0]), labelled("aabb", "xxxy"))
    assert strict.figures["mAP"].value == 0.5 and lenient.figures["mAP"].value == 1


def test_a_picture_without_a_score_is_no_hit():
    scores = np.array([[1.0, 0.2, np.nan, 0.1]])
    assert retrieval(scores, np.array([0]), labelled("aabb")).figures["mAP"].value == 1
    assert retrieval(np.full((1, 4), np.nan), np.array([0]), labelled("aabb")).alone == 1


def test_sampled_queries():
    assert sampled_queries(5, None, 0).tolist() == sampled_queries(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    some = sampled_queries(100, 10, 3)
    assert len(set(some.tolist())) == 10 and sorted(some) == some.tolist() == sampled_queries(100, 10, 3).tolist()
    assert some.tolist() != sampled_queries(100, 10, 4).tolist()


# ------------------------------------------------------------------------------------------------- lists


def test_saved_triplets_come_back(tmp_path):
    (tmp_path / "lists").mkdir()
    triplets = [Triplet(tmp_path / "a b.png", tmp_path / "x" / "ü,.png", tmp_path / "\udcff.png", "one")]
    write_triplets(tmp_path / "lists" / "t.csv", triplets)
    (back,) = read_triplets(tmp_path / "lists" / "t.csv").triplets
    paths = [path.resolve() for path in (back.reference, back.closer, back.farther)]
    assert paths == [triplets[0].reference, triplets[0].closer, triplets[0].farther] and back.unit == "one"


def test_a_list_without_units_has_the_reference_as_unit(tmp_path):
    (tmp_path / "t.csv").write_text("reference,closer,farther\na,b,c\na,c,d\n")
    assert {triplet.unit for triplet in read_triplets(tmp_path / "t.csv").triplets} == {"a"}


@pytest.mark.parametrize("text", ["", "reference,closer\na,b\n", "reference,closer,farther\na,,c\n"])
def test_a_bad_list_is_named(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadBenchmark, match=r"t\.csv"):
        read_triplets(tmp_path / "t.csv")


def test_limited_is_a_seeded_sample_in_order():
    triplets = [Triplet(Path(f"{n:03d}"), Path("b"), Path("c"), "u") for n in range(50)]
    some = limited(triplets, 7, 1)
    assert len(some) == 7 and some == sorted(some, key=lambda t: t.reference) == limited(triplets, 7, 1)
    assert limited(triplets, 50, 1) == limited(triplets, None, 1) == triplets


# ------------------------------------------------------------------------------------------------- baselines


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((256, 256)))


@pytest.mark.parametrize("name", list(BASELINES))
def test_baselines_give_unit_vectors(name):
    one, other = (BASELINES[name](pixels(random_picture(seed))) for seed in (1, 2))
    assert one.dtype == np.float32 and np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one @ other < 0.999
    plain = BASELINES[name](np.full((256, 256, 3), 128, np.uint8))
    assert np.isfinite(plain).all()


def test_what_each_baseline_sees_and_does_not():
    picture = pixels(random_picture(3))
    mirrored, inverted = picture[:, ::-1], 255 - picture
    assert colour_histogram(picture) @ colour_histogram(mirrored) == pytest.approx(1, abs=1e-5)
    assert thumbnail(picture) @ thumbnail(mirrored) < 0.9
    assert thumbnail(picture) @ thumbnail(inverted) == pytest.approx(-1, abs=1e-5)
    assert gradient_histogram(picture) @ gradient_histogram(inverted) == pytest.approx(1, abs=1e-3)


def test_gradients_of_stripes_fall_into_one_direction():
    stripes = np.repeat((np.arange(256) // 16 % 2 * 255).astype(np.uint8)[None, :, None], 256, 0).repeat(3, 2)
    across = gradient_histogram(stripes).reshape(64, 8)
    down = gradient_histogram(stripes.transpose(1, 0, 2)).reshape(64, 8)
    assert (across[:, 1:] == 0).all() and (across[:, 0] > 0).all()
    assert (np.delete(down, 4, axis=1) == 0).all() and (down[:, 4] > 0).all()
