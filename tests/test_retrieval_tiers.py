"""Storage tiers: tokens to bytes and back, and what each tier may lose."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import score
from diffsim.retrieval.tiers import decode_tokens, encode_tokens, record_bytes

SHAPES = ((7, 5), (3, 8))
TIERS = ("fp32", "fp16", "int8")


def tokens(seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


@pytest.mark.parametrize("tier", TIERS)
def test_several_records_come_back_in_order(tier: str) -> None:
    records = [encode_tokens(tokens(seed), tier) for seed in range(4)]
    assert {len(record) for record in records} == {record_bytes(SHAPES, tier)}
    together = decode_tokens(records, SHAPES, tier)
    assert [tuple(tap.shape) for tap in together] == [(4, *shape) for shape in SHAPES]
    assert all(tap.dtype == torch.float32 for tap in together)
    for row, record in enumerate(records):
        for tap, alone in zip(together, decode_tokens([memoryview(record)], SHAPES, tier), strict=True):
            assert torch.equal(tap[row], alone[0])
    for tap, original in zip(decode_tokens(records[:1], SHAPES, tier), tokens(0), strict=True):
        assert tap[0].numpy() == pytest.approx(original.numpy(), abs=0.02)


def test_fp32_is_exact() -> None:
    for tap, original in zip(decode_tokens([encode_tokens(tokens(1), "fp32")], SHAPES, "fp32"), tokens(1), strict=True):
        assert torch.equal(tap[0], original)


def test_fp16_is_exact_on_its_own_numbers() -> None:
    halves = [tap.half().float() for tap in tokens(2)]
    for tap, original in zip(decode_tokens([encode_tokens(halves, "fp16")], SHAPES, "fp16"), halves, strict=True):
        assert torch.equal(tap[0], original)


def test_bytes_are_little_endian() -> None:
    assert encode_tokens([torch.tensor([[1.0, -2.0]])], "fp32") == bytes.fromhex("0000803f000000c0")
    assert encode_tokens([torch.tensor([[1.0, -2.0]])], "fp16") == bytes.fromhex("003c00c0")
    assert encode_tokens([torch.tensor([[127.0], [-63.5]])], "int8") == bytes.fromhex("003c7fc0")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    arrays.arrays(np.float32, (6, 1), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([1e-7, 1e-5, 1e-3, 1.0, 300.0, 1e6]),
)
def test_int8_is_off_by_half_a_step(numbers: np.ndarray, size: float) -> None:
    """Also where half precision is too coarse for the scale (a channel that hardly varies)."""
    numbers = numbers * np.float32(size)
    record = encode_tokens([torch.from_numpy(numbers)], "int8")
    scale = np.frombuffer(record[:2], "<f2").astype(np.float64)[0]
    (back,) = decode_tokens([record], [(6, 1)], "int8")
    assert np.abs(back[0].numpy().astype(np.float64) - numbers).max() <= scale / 2 * (1 + 1e-5)
    assert scale <= max(np.abs(numbers).max() / 127 * 1.002, 2.0**-24) + 2.0**-24


def test_int8_keeps_a_zero_channel() -> None:
    tap = torch.stack([torch.zeros(4), torch.arange(4.0)], dim=1)
    (back,) = decode_tokens([encode_tokens([tap], "int8")], [(4, 2)], "int8")
    assert torch.equal(back[0, :, 0], torch.zeros(4))
    assert back[0, :, 1].numpy() == pytest.approx(tap[:, 1].numpy(), abs=0.02)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("change", [lambda r: r[:-1], lambda r: r + b"\0", lambda r: b""])
def test_a_record_of_another_length_is_refused(tier: str, change: Callable[[bytes], bytes]) -> None:
    record = encode_tokens(tokens(0), tier)
    with pytest.raises(ValueError, match=f"where this space has {len(record)}"):
        decode_tokens([record, change(record)], SHAPES, tier)


@pytest.mark.parametrize("tier", TIERS)
def test_a_picture_scores_one_against_itself_on_every_tier(tier: str) -> None:
    generator = torch.Generator().manual_seed(5)
    projections = [Projection(2, (torch.randn(24, width, generator=generator),), (None,)) for _, width in SHAPES]

    def stored(seed: int) -> list:
        read = decode_tokens([encode_tokens(tokens(seed), tier)], SHAPES, tier)
        return [project([tap]) for project, tap in zip(projections, read, strict=True)]

    assert score(stored(0), stored(0), [1.0, 2.0]).item() == pytest.approx(1, abs=1e-6)
    assert score(stored(0), stored(1), [1.0, 2.0]).item() < 0.99
