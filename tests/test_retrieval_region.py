"""Regions: which tokens a box touches, what a network is shown of it, and the one-way score."""

import math

import numpy as np
import pytest
import torch
from conftest import random_picture
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffsim.retrieval.pictures.images import seen
from diffsim.retrieval.region import BadRegion, checked_box, region_features, seen_part, touched_tokens, within_part
from diffsim.retrieval.score import AttentionFeatures, aligned_attention, attend, score_one_way

SHARE = st.floats(0.001, 1)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    width, height = draw(SHARE), draw(SHARE)
    return draw(st.floats(0, 1)) * (1 - width), draw(st.floats(0, 1)) * (1 - height), width, height


def features(seed: int, pictures: int = 1, tokens: int = 16, keys: int | None = None) -> AttentionFeatures:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(pictures, 2, tokens, 4, generator=generator)
    key, value = (torch.randn(pictures, 2, keys or tokens, 4, generator=generator) for _ in range(2))
    return AttentionFeatures(query, key, value, attend(query, key, value))


@given(boxes(), st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
def test_the_tokens_of_a_box_are_those_that_it_overlaps(box, rows, columns, prefix):
    touched = touched_tokens(box, (rows, columns), prefix)
    assert touched and touched == sorted(set(touched))
    assert prefix <= touched[0] and touched[-1] < prefix + rows * columns
    x, y, width, height = box
    for token in range(rows * columns):
        row, column = divmod(token, columns)
        across = min(x + width, (column + 1) / columns) - max(x, column / columns)
        down = min(y + height, (row + 1) / rows) - max(y, row / rows)
        assume(abs(across) > 1e-5 and abs(down) > 1e-5)  # a border within the rounding may go either way
        assert (prefix + token in touched) == (across > 0 and down > 0)


def test_edges_of_tokens_belong_to_one_side_also_after_rounding():
    assert touched_tokens((0.25, 0.0, 0.1 + 0.2 - 0.05, 0.25), (4, 4)) == [1]
    assert touched_tokens((0.1, 0.3, 0.2, 0.1), (10, 10)) == [31, 32]  # 0.1 + 0.2 > 0.3
    assert touched_tokens((0, 0, 1, 1), (3, 5)) == list(range(15))
    assert touched_tokens((0.9999, 0.9999, 0.0001, 0.0001), (4, 4)) == [15]


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 1), (-0.1, 0, 1, 1), (0.5, 0, 0.6, 1), (0, 0, math.nan, 1), (0, 0, 1), (0, 0, 1, "wide")]
)
def test_boxes_that_are_none(box):
    with pytest.raises(BadRegion, match=r"X,Y,WIDTH,HEIGHT.*\.$"):
        checked_box(box)


@pytest.mark.parametrize(("width", "height"), [(96, 72), (60, 200), (64, 64)])
@pytest.mark.parametrize("fit", ["squash", "crop 36"])
def test_the_seen_part_is_what_the_network_is_shown(width, height, fit):
    part = seen_part(width, height, 32, fit)
    shown = seen(random_picture(1, width, height), 32, fit)
    assert (part[2] * width, part[3] * height) == pytest.approx(shown.size, abs=1)
    assert part[0] == pytest.approx((1 - part[2]) / 2) and part[1] == pytest.approx((1 - part[3]) / 2)


def test_a_box_outside_of_what_is_seen():
    part = seen_part(200, 100, 90, "crop 100")
    assert within_part((0, 0, 1, 1), part) == (0, 0, 1, 1)
    x, y, width, height = within_part((0.5, 0.5, 0.5, 0.5), part)
    assert (x, y, width, height) == pytest.approx((0.5, 0.5, 0.5, 0.5))
    with pytest.raises(BadRegion, match=r"0\.28,0\.05,0\.45,0\.90.*\.$"):
        within_part((0, 0, 0.2, 1), part)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([None, 5]))
def test_the_whole_picture_as_a_region_is_one_direction_of_the_score(seed, pictures, keys):
    a = [features(seed, keys=keys), features(seed + 1, tokens=25, keys=keys)]
    b = [features(seed + 2, pictures, keys=keys), features(seed + 3, pictures, 25, keys)]
    weights = (1.0, 3.0)
    there = [aligned_attention(x, y)[0] for x, y in zip(a, b, strict=True)]
    expected = (there[0] + 3 * there[1]) / 4
    assert torch.allclose(score_one_way(region_features(a, (0, 0, 1, 1)), b, weights), expected, atol=1e-6)


def test_a_region_against_numpy():
    """The definition, written out: heads x tokens x channels of R in one vector, A's keys unrestricted."""
    a, b = features(5), features(6)
    box = (0.3, 0.0, 0.4, 0.5)
    tokens = [1, 2, 5, 6]
    assert touched_tokens(box, (4, 4)) == tokens

    def rebuilt(source: AttentionFeatures) -> np.ndarray:
        parts = []
        for head in range(2):
            query, key, value = (x[0, head].double().numpy() for x in (a.query, source.key, source.value))
            weights = np.exp(query[tokens] @ key.T / 2)
            parts.append(weights / weights.sum(1, keepdims=True) @ value)
        return np.concatenate(parts).ravel()

    x, y = rebuilt(a), rebuilt(b)
    expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert score_one_way(region_features([a], box), [b], [1.0]).item() == pytest.approx(expected, abs=1e-6)
    assert score_one_way(region_features([a], box), [a], [1.0]).item() == pytest.approx(1, abs=1e-6)


def test_tokens_before_the_grid_are_no_places():
    a = features(7, tokens=16 + 5)
    (region,) = region_features([a], (0, 0, 0.1, 0.1))
    assert region.query.shape[2] == 1 and torch.equal(region.query[:, :, 0], a.query[:, :, 5])
    assert region.key is a.key and torch.equal(region.map[:, :, 0], a.map[:, :, 5])
