"""Likeness against chance: calibrated on made-up scores, and on real drawings without any relative in the gallery."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.chance import NULL_SAMPLE, fit_tail
from diffsim.retrieval.drawings.gallery import STYLES, SUBJECTS, draw
from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import find_model, load_network
from diffsim.retrieval.score import AttentionFeatures, score
from diffsim.retrieval.tiers import decode_tokens


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
        tail = fit_tail(scores[:NULL_SAMPLE])
        assert tail is not None
        alarms += min(tail.expected(scores, len(scores))) < 0.05
    assert alarms <= 20


def test_a_true_relative_stands_out() -> None:
    generator = np.random.default_rng(1)
    tail = fit_tail(np.tanh(generator.normal(0.8, 0.15, NULL_SAMPLE)).astype(np.float32))
    assert tail is not None
    near, middle = tail.expected(np.array([0.9999, np.tanh(0.8)], np.float32), 10_000)
    assert near < 0.01
    assert 2_000 < middle < 8_000


def test_expectation_falls_with_the_score_and_never_passes_the_collection() -> None:
    tail = fit_tail(np.random.default_rng(2).uniform(0.2, 0.8, 100).astype(np.float32))
    assert tail is not None
    expected = tail.expected(np.linspace(-1, 1, 200, dtype=np.float32), 500)
    assert all(later <= earlier for earlier, later in pairwise(expected))
    assert max(expected) <= 500


def test_too_few_pictures_support_no_figure() -> None:
    assert fit_tail(np.zeros(19, np.float32)) is None
    assert fit_tail(np.full(20, 0.5, np.float32)) is not None


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
        tail = fit_tail(scores)
        assert tail is not None
        alarms.append(min(tail.expected(scores, len(scores))) < 0.05)
    assert np.mean(alarms) <= 0.1
