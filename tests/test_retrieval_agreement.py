"""Agreement token by token, against float64 from the formulas, and how it adds up to the score."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrieval_score import features, reference_map

from diffsim.retrieval.agreement import NoGrid, agreement, attention_weights, token_agreement
from diffsim.retrieval.score import AttentionFeatures, aligned_attention, attend, score

quick = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
sides = st.integers(1, 6)
layers = st.fixed_dictionaries({"heads": st.integers(1, 4), "width": st.integers(1, 12)})


def maps(a: AttentionFeatures, b: AttentionFeatures) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the module's text as float64 [tokens, heads x head_dim]."""
    query, key, value = (part[0].double().numpy() for part in (a.query, a.key, a.value))
    other_key, other_value = (part[0].double().numpy() for part in (b.key, b.value))
    both = reference_map(query, key, value), reference_map(query, other_key, other_value)
    x, y = (one.transpose(1, 0, 2).reshape(query.shape[1], -1) for one in both)
    return x, y


def crossed(query_tokens: int, key_tokens: int, seed: int) -> AttentionFeatures:
    """A layer whose keys are not places in the picture, as in DiffSim-C."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 2, query_tokens, 4, generator=generator)
    key, value = torch.randn(2, 1, 2, key_tokens, 4, generator=generator)
    return AttentionFeatures(query, key, value, attend(query, key, value))


@quick
@given(seeds, sides, layers)
def test_equals_the_float64_reference(seed: int, side: int, layer: dict) -> None:
    a, b = features(seed, tokens=side**2, **layer), features(seed + 1, tokens=side**2, **layer)
    why = agreement([a], [b], [1.0])
    for found, (x, y) in ((why.a_from_b, maps(a, b)), (why.b_from_a, maps(b, a))):
        expected = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert found.shape == (side, side)
        assert found.flatten().numpy() == pytest.approx(expected, abs=1e-5)
    assert why.score == pytest.approx(score([a], [b], [1.0]).item(), abs=1e-6)


@quick
@given(seeds, st.integers(1, 20), layers)
def test_the_score_is_the_norm_weighted_combination_not_the_mean(seed: int, tokens: int, layer: dict) -> None:
    a, b = features(seed, tokens=tokens, **layer), features(seed + 1, tokens=tokens, **layer)
    x, y = maps(a, b)
    aas = aligned_attention(a, b)[0].item()
    assert aas == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-5)
    shares = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1) / np.linalg.norm(x) / np.linalg.norm(y)
    assert shares.sum() <= 1 + 1e-9
    assert (token_agreement(a, b).numpy() * shares).sum() == pytest.approx(aas, abs=1e-5)


def test_the_mean_of_the_agreements_is_another_number() -> None:
    a, b = features(1, tokens=16), features(2, tokens=16)
    assert abs(token_agreement(a, b).mean().item() - aligned_attention(a, b)[0].item()) > 0.01


@quick
@given(seeds, st.lists(sides, min_size=1, max_size=3), layers)
def test_a_picture_agrees_with_itself_everywhere(seed: int, grid_sides: list[int], layer: dict) -> None:
    a = [features(seed + i, tokens=side**2, **layer) for i, side in enumerate(grid_sides)]
    why = agreement(a, a, [1.0 + i for i in range(len(a))])
    for found in (why.a_from_b, why.b_from_a):
        assert found.shape == (max(grid_sides), max(grid_sides))
        assert found.numpy() == pytest.approx(np.ones(found.shape), abs=1e-5)


@quick
@given(seeds, layers)
def test_exchanging_the_pictures_exchanges_the_maps(seed: int, layer: dict) -> None:
    a, b = features(seed, tokens=9, **layer), features(seed + 1, tokens=9, **layer)
    there, back = agreement([a], [b], [1.0]), agreement([b], [a], [1.0])
    assert torch.equal(there.a_from_b, back.b_from_a) and torch.equal(there.b_from_a, back.a_from_b)


@quick
@given(seeds, st.integers(1, 20), layers)
def test_attention_weights_rebuild_the_map(seed: int, tokens: int, layer: dict) -> None:
    """With one head, the weights times B's values are the very row of the rebuilt map."""
    a, b = (features(seed + i, tokens=tokens, heads=1, width=layer["width"]) for i in (0, 1))
    weights = attention_weights(a, b, tokens - 1)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    rebuilt = attend(a.query, b.key, b.value)[0, 0, tokens - 1]
    assert (weights @ b.value[0, 0]).numpy() == pytest.approx(rebuilt.numpy(), abs=1e-4)


def test_attention_is_the_mean_over_heads() -> None:
    a, b = features(1, heads=3, tokens=9), features(2, heads=3, tokens=9)
    query, key = a.query[0].double().numpy(), b.key[0].double().numpy()
    logits = np.einsum("hd,htd->ht", query[:, 5], key) / np.sqrt(query.shape[2])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert attention_weights(a, b, 5).numpy() == pytest.approx(shares.mean(0), abs=1e-6)


def test_a_part_moved_is_found_where_it_went() -> None:
    """B holds A's tokens in another order, with keys that know their queries: attention goes to the moved token."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(torch.randn(1, 1, 64, 32, generator=torch.Generator().manual_seed(1)), dim=3)
    query, key, value = 30 * unit, 30 * unit, unit
    a = AttentionFeatures(query, key, value, attend(query, key, value))
    b = AttentionFeatures(*(part[:, :, order] for part in (a.query, a.key, a.value, a.map)))
    why = agreement([a], [b], [1.0], regions=5)
    assert len(why.regions) >= 3
    for region in why.regions:
        assert region.agreement == pytest.approx(1, abs=1e-5)
        assert order[region.peak[0] * 8 + region.peak[1]] == region.row * 8 + region.column


def test_regions_are_the_best_and_apart_in_both_pictures() -> None:
    a, b = features(5, tokens=64), features(6, tokens=64)
    why = agreement([a], [b], [1.0], regions=5)
    found = [region.agreement for region in why.regions]
    assert found == sorted(found, reverse=True) and found[0] == why.a_from_b.max().item()
    assert 1 < len(found) <= 5
    for i, one in enumerate(why.regions):
        assert one.agreement == why.a_from_b[one.row, one.column].item()
        assert one.attention.shape == (8, 8) and one.attention.sum().item() == pytest.approx(1, abs=1e-5)
        assert one.attention[one.peak] == one.attention.max()
        for other in why.regions[:i]:
            assert np.hypot(one.row - other.row, one.column - other.column) > 2
            assert np.hypot(one.peak[0] - other.peak[0], one.peak[1] - other.peak[1]) > 2


def test_prefix_tokens_are_attended_to_but_not_drawn() -> None:
    a, b = features(1, tokens=5 + 16), features(2, tokens=5 + 16)
    why = agreement([a], [b], [1.0], prefix=5)
    assert why.a_from_b.flatten().numpy() == pytest.approx(token_agreement(a, b)[5:].numpy(), abs=1e-6)
    best = why.regions[0]
    weights = attention_weights(a, b, 5 + best.row * 4 + best.column)
    assert best.attention.flatten().numpy() == pytest.approx(weights[5:].numpy(), abs=1e-6)
    assert best.attention.sum() < 1


def test_grids_need_not_be_square_and_taps_meet_on_the_finest() -> None:
    coarse, fine = (2, 3), (4, 6)
    a = [features(1, tokens=6), features(3, tokens=24)]
    b = [features(2, tokens=6), features(4, tokens=24)]
    why = agreement(a, b, [1.0, 3.0], grids=[coarse, fine])
    alone = [agreement([x], [y], [1.0], grids=[grid]) for x, y, grid in zip(a, b, (coarse, fine), strict=True)]
    enlarged = torch.nn.functional.interpolate(
        alone[0].a_from_b[None, None], size=fine, mode="bilinear", align_corners=False
    )[0, 0]
    assert why.a_from_b.numpy() == pytest.approx((enlarged / 4 + 3 * alone[1].a_from_b / 4).numpy(), abs=1e-6)
    for region in why.regions:
        assert region.attention.shape == fine and region.attention.sum().item() == pytest.approx(1, abs=1e-5)
    weights = [
        attention_weights(a[0], b[0], why.regions[0].row // 2 * 3 + why.regions[0].column // 2),
        attention_weights(a[1], b[1], why.regions[0].row * 6 + why.regions[0].column),
    ]
    spread = torch.nn.functional.interpolate(
        weights[0].view(1, 1, *coarse), size=fine, mode="bilinear", align_corners=False
    )[0, 0]
    expected = spread / 4 / 4 + 3 * weights[1].view(fine) / 4
    assert why.regions[0].attention.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_keys_that_are_no_places_give_maps_without_regions() -> None:
    a, b = crossed(16, 5, 1), crossed(16, 5, 2)
    why = agreement([a], [b], [1.0])
    assert why.a_from_b.shape == (4, 4) and why.regions == ()


@pytest.mark.parametrize(
    ("tokens", "more"), [(8, {}), (9, {"prefix": 1}), (9, {"grids": [(2, 4)]}), (1, {"prefix": 1})]
)
def test_tokens_that_make_no_grid(tokens: int, more: dict) -> None:
    with pytest.raises(NoGrid, match=rf"^{tokens} tokens, .*\.$"):
        agreement([features(1, tokens=tokens)], [features(2, tokens=tokens)], [1.0], **more)
