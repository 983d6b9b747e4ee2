"""Likeness against chance: calibrated on made-up scores, and on real drawings without any relative in the gallery."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.chance import NULL_SAMPLE, Tail, combined, fit_tail
from diffsim.retrieval.drawings.gallery import STYLES, SUBJECTS, draw
from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import find_model, load_network
from diffsim.retrieval.score import AttentionFeatures, score
from diffsim.retrieval.tiers import decode_tokens


def judged(scores: np.ndarray, sampled: int | None = None) -> list[float]:
    """By chance, of scores [n] of which the first `sampled` (None: all) are the sample."""
    null = np.arange(len(scores)) < (len(scores) if sampled is None else sampled)
    _, likeness = combined(scores[None], np.ones(1), null)
    return tail_of(likeness[null]).expected(likeness, len(scores))


def tail_of(likeness: np.ndarray) -> Tail:
    tail = fit_tail(likeness)
    assert tail is not None
    return tail


@pytest.mark.parametrize("kind", ["normal", "beta", "skewed"])
def test_chance_alone_rarely_looks_like_likeness(kind: str) -> None:
    generator = np.random.default_rng(0)
    draws = {
        "normal": lambda n: np.tanh(generator.normal(1.2, 0.2, n)),
        "beta": lambda n: generator.beta(8, 3, n),
        "skewed": lambda n: np.tanh(0.5 + generator.gamma(4.0, 0.1, n)),
    }
    alarms = 0
    for _ in range(200):
        scores = draws[kind](3000).astype(np.float32)
        alarms += min(judged(scores, NULL_SAMPLE)) < 0.05
    assert alarms <= 10


def test_a_true_relative_stands_out() -> None:
    generator = np.random.default_rng(1)
    scores = np.tanh(generator.normal(0.8, 0.15, 10_000)).astype(np.float32)
    scores[-2:] = 0.9999, np.tanh(0.8)
    near, middle = judged(scores, NULL_SAMPLE)[-2:]
    assert near < 0.01
    assert 2_000 < middle < 8_000


@pytest.mark.parametrize("share", [0.05, 0.25, 0.45])
def test_many_relatives_in_the_sample_do_not_hide_one_another(share: float) -> None:
    """A gallery of few styles: a twentieth to nearly half of the pictures are of the query's."""
    generator = np.random.default_rng(3)
    strangers = generator.normal(0.5, 0.1, 2000)
    relatives = generator.normal(1.5, 0.1, round(2000 * share / (1 - share)))
    scores = generator.permutation(np.tanh(np.concatenate([strangers, relatives])).astype(np.float32))
    found = np.array(judged(scores, NULL_SAMPLE))
    kin = scores > np.tanh(1.0)
    assert np.mean(found[kin] <= 1) > 0.95 and np.mean(found[~kin] <= 1) < 0.01


def test_a_sample_of_one_kind_is_not_divided() -> None:
    """Strangers alone, and relatives too few or too gradual to be told apart: the tail is that of all of them."""
    generator = np.random.default_rng(4)
    for drawn in (generator.normal, generator.laplace, generator.gumbel):
        likeness = drawn(0, 1, NULL_SAMPLE)
        upper = np.sort(likeness)[np.sort(likeness) > np.quantile(likeness, 0.75)]
        assert tail_of(likeness).share == len(upper) / NULL_SAMPLE


def test_likeness_is_in_spreads_of_the_sample() -> None:
    generator = np.random.default_rng(5)
    null = np.arange(5000) < 4999
    scores = np.tanh(generator.normal(0.4, 0.2, 5000)).astype(np.float32)
    scores[-1] = np.tanh(1.0)
    same, likeness = combined(scores[None], np.ones(1), null)
    assert np.array_equal(same, scores)
    assert np.median(likeness[null]) == pytest.approx(0, abs=1e-6)
    assert likeness[-1] == pytest.approx(3.0, abs=0.15) and likeness[null].std() == pytest.approx(1, abs=0.05)
    for weight in (0.1, 7.0):
        assert combined(scores[None], np.array([weight]), null)[1] == pytest.approx(likeness)


def test_parts_that_say_the_same_say_it_together_as_loud_as_alone() -> None:
    generator = np.random.default_rng(6)
    null = np.arange(1000) < NULL_SAMPLE
    scores = np.tanh(generator.normal(0.4, 0.2, 1000)).astype(np.float32)
    alone = combined(scores[None], np.ones(1), null)[1]
    twice = combined(np.stack([scores, scores]), np.array([0.7, 0.7]), null)[1]
    assert twice == pytest.approx(alone, abs=1e-4)


def test_parts_that_agree_are_surer_than_one_of_them() -> None:
    """Two noisy views of one likeness."""
    generator = np.random.default_rng(7)
    null = np.arange(1000) < NULL_SAMPLE
    views = generator.normal(0.4, 0.1, (2, 1000))
    views[:, -1] = 0.8  # the relative
    rows = np.tanh(views).astype(np.float32)
    alone = [combined(row[None], np.ones(1), null)[1] for row in rows]
    both = combined(rows, np.ones(2), null)[1]
    figures = [tail_of(each[null]).expected(each, 1000)[-1] for each in (*alone, both)]
    assert figures[2] < min(figures[:2])


def test_what_one_example_pushes_away_stands_lower() -> None:
    rows = np.tanh(np.random.default_rng(8).normal(0.4, 0.2, (2, 500))).astype(np.float32)
    null = np.ones(500, np.bool_)
    scores, likeness = combined(rows, np.array([1.0, -0.5]), null)
    spread = rows.std(1, dtype=np.float64)
    expected = (rows[0] - rows[0].mean()) / spread[0] - 0.5 * (rows[1] - rows[1].mean()) / spread[1]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert (np.argsort(likeness, kind="stable")[-20:] == np.argsort(scores, kind="stable")[-20:]).all()


def test_expectation_falls_with_the_score_and_never_passes_the_collection() -> None:
    tail = tail_of(np.random.default_rng(2).uniform(-3, 3, 100))
    expected = tail.expected(np.linspace(-9, 9, 200), 500)
    assert all(later <= earlier for earlier, later in pairwise(expected))
    assert max(expected) <= 500


def test_too_few_pictures_support_no_figure() -> None:
    assert fit_tail(np.zeros(19)) is None
    assert fit_tail(np.full(20, 0.5)) is not None


def test_drawings_without_a_relative() -> None:
    """The bundled network, every drawing against those of other subjects in other styles: 9 of 10 raise no alarm."""
    (request,) = requested_spaces("mini", ["style"])
    network = load_network(find_model("mini"), request.settings.dtype, "cpu")
    kit = make_space(network, request.settings)
    names = [(subject, style) for subject in SUBJECTS for style in STYLES]
    pixels = np.stack([np.array(draw(subject, style, 0, request.settings.size)) for subject, style in names])
    (features,) = Extractor(network, [kit]).extract(pixels)
    records = [picture.tokens for picture in features]
    taps = kit.attention(decode_tokens(records, kit.shapes, kit.settings.tier))
    alarms = []
    for row in range(0, len(names), 3):
        strangers = [i for i, name in enumerate(names) if name[0] != names[row][0] and name[1] != names[row][1]]
        gallery = [
            AttentionFeatures(tap.query[strangers], tap.key[strangers], tap.value[strangers], tap.map[strangers])
            for tap in taps
        ]
        with torch.inference_mode():
            scores = score([tap[row : row + 1] for tap in taps], gallery, kit.weights).numpy()
        alarms.append(min(judged(scores)) < 0.05)
    assert np.mean(alarms) <= 0.1
