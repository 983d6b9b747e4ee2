"""The score against an independent float64 reference written from the paper's formulas, and its properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsim.retrieval.pooling import pool
from diffsim.retrieval.score import AttentionFeatures, attend, score

WITHIN = 1e-6


def reference_map(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Attn(Q,K,V) of [heads, tokens, head_dim] in float64, token by token."""
    maps = np.zeros_like(query)
    for head in range(query.shape[0]):
        for token in range(query.shape[1]):
            logits = key[head] @ query[head, token] / np.sqrt(query.shape[2])
            shares = np.exp(logits - logits.max())
            maps[head, token] = shares @ value[head] / shares.sum()
    return maps


def reference_score(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> float:
    def direction(x: tuple[np.ndarray, ...], y: tuple[np.ndarray, ...]) -> float:
        own, other = reference_map(*x).ravel(), reference_map(x[0], y[1], y[2]).ravel()
        return float(own @ other / np.sqrt(own @ own) / np.sqrt(other @ other))

    return (direction(a, b) + direction(b, a)) / 2


def features(seed: int, pictures: int = 1, heads: int = 2, tokens: int = 9, width: int = 4) -> AttentionFeatures:
    """Random Q, K and V with values off zero, so that scores spread."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = 2 * torch.randn(3, pictures, heads, tokens, width, generator=generator) + 0.3
    return AttentionFeatures(query, key, value, attend(query, key, value))


def as_float64(one: AttentionFeatures, picture: int) -> tuple[np.ndarray, ...]:
    return tuple(part[picture].double().numpy() for part in (one.query, one.key, one.value))


shapes = st.fixed_dictionaries(
    {"heads": st.integers(1, 4), "tokens": st.integers(1, 20), "width": st.integers(1, 12)},
)
seeds = st.integers(0, 2**31)
quick = settings(max_examples=40, deadline=None, derandomize=True)


@quick
@given(seeds, st.integers(1, 4), shapes)
def test_equals_the_float64_reference(seed: int, pictures: int, shape: dict) -> None:
    a, b = features(seed, **shape), features(seed + 1, pictures, **shape)
    expected = [reference_score(as_float64(a, 0), as_float64(b, picture)) for picture in range(pictures)]
    assert score([a], [b], [1.0]).numpy() == pytest.approx(np.array(expected), abs=1e-5)


@quick
@given(seeds, shapes)
def test_symmetric_and_in_range(seed: int, shape: dict) -> None:
    a, b = features(seed, **shape), features(seed + 1, **shape)
    there, back = score([a], [b], [1.0]).item(), score([b], [a], [1.0]).item()
    assert there == pytest.approx(back, abs=WITHIN)
    assert -1 <= there <= 1


@quick
@given(seeds, shapes)
def test_a_picture_scores_one_against_itself(seed: int, shape: dict) -> None:
    a = features(seed, **shape)
    assert score([a], [a], [1.0]).item() == pytest.approx(1, abs=WITHIN)


def test_large_maps_score_one_against_themselves() -> None:
    a = features(3, heads=8, tokens=1024, width=40)
    assert score([a], [a], [1.0]).item() == pytest.approx(1, abs=WITHIN)


@quick
@given(seeds, shapes)
def test_order_of_keys_and_values_is_irrelevant(seed: int, shape: dict) -> None:
    a, b = features(seed, **shape), features(seed + 1, **shape)
    order = torch.randperm(shape["tokens"], generator=torch.Generator().manual_seed(seed))
    key, value = b.key[:, :, order], b.value[:, :, order]
    permuted = AttentionFeatures(b.query, key, value, attend(b.query, key, value))
    assert score([a], [permuted], [1.0]).item() == pytest.approx(score([a], [b], [1.0]).item(), abs=WITHIN)
    # All tokens of B moved together: a vector of the same numbers in another order has the same cosines.
    moved = AttentionFeatures(b.query[:, :, order], key, value, b.map[:, :, order])
    assert score([a], [moved], [1.0]).item() == pytest.approx(score([a], [b], [1.0]).item(), abs=WITHIN)


def test_keys_belong_to_their_values() -> None:
    a, b = features(1), features(2)
    torn = AttentionFeatures(b.query, b.key, b.value.flip(2), attend(b.query, b.key, b.value.flip(2)))
    assert abs(score([a], [torn], [1.0]).item() - score([a], [b], [1.0]).item()) > 1e-3


@quick
@given(seeds, st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
def test_several_taps_are_the_weighted_mean(seed: int, weights: list[float]) -> None:
    a = [features(seed + 2 * tap, tokens=4 + tap) for tap in range(len(weights))]
    b = [features(seed + 2 * tap + 1, 3, tokens=4 + tap) for tap in range(len(weights))]
    each = np.array([score([x], [y], [1.0]).numpy() for x, y in zip(a, b, strict=True)])
    assert score(a, b, weights).numpy() == pytest.approx(np.average(each, axis=0, weights=weights), abs=WITHIN)


def test_taps_must_match() -> None:
    with pytest.raises(ValueError, match="longer"):
        score([features(1)], [features(2), features(3)], [1.0, 1.0])


@quick
@given(seeds, shapes)
def test_candidates_together_as_one_by_one(seed: int, shape: dict) -> None:
    a, b = features(seed, **shape), features(seed + 1, 5, **shape)
    alone = [score([a], [b[row : row + 1]], [1.0]).item() for row in range(len(b))]
    assert score([a], [b], [1.0]).numpy() == pytest.approx(np.array(alone), abs=WITHIN)


@quick
@given(seeds, st.lists(st.floats(0.01, 100), min_size=1, max_size=3), shapes)
def test_descriptors_have_unit_norm_and_no_order(seed: int, weights: list[float], shape: dict) -> None:
    taps = [features(seed + tap, 3, **shape) for tap in range(len(weights))]
    descriptors = pool(taps, weights)
    assert descriptors.norm(dim=1).numpy() == pytest.approx(np.ones(3), abs=1e-5)
    order = torch.randperm(shape["tokens"], generator=torch.Generator().manual_seed(seed))
    moved = [AttentionFeatures(*(part[:, :, order] for part in (x.query, x.key, x.value, x.map))) for x in taps]
    assert pool(moved, weights).numpy() == pytest.approx(descriptors.numpy(), abs=1e-5)


def test_descriptor_products_are_weighted_means_over_taps() -> None:
    one, two = features(1, 2), features(2, 2)
    products = [pool([tap], [1.0])[0] @ pool([tap], [1.0])[1] for tap in (one, two)]
    both = pool([one, two], [3.0, 1.0])
    assert (both[0] @ both[1]).item() == pytest.approx((3 * products[0] + products[1]).item() / 4, abs=1e-6)


def test_a_flat_map_has_a_descriptor() -> None:
    """One token has no deviation, a black one no mean: numbers all the same."""
    nothing = torch.zeros(1, 2, 1, 4)
    assert pool([AttentionFeatures(nothing, nothing, nothing, nothing)], [1.0]).isfinite().all()
