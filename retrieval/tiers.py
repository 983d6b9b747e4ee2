"""Storage tiers: attention tokens as bytes and back.

A record holds the tokens of each tap in turn. `fp32` and `fp16` are the plain little-endian numbers; `int8` has, per
tap, one fp16 scale per channel and then the rounded numbers, which are off by at most half a scale. The query goes
through the same tier as the gallery, so that score(A, A) = 1 on every tier.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Shapes = Sequence[tuple[int, int]]
"""(tokens, channels) of each tap."""

_FLOAT: dict[str, np.dtype] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}
_TORCH_FLOAT = {"fp32": torch.float32, "fp16": torch.float16}


def encode_tokens(tokens: Sequence[Tensor], tier: str) -> bytes:
    """One picture's tokens, per tap [tokens, channels] float on the CPU, as one record of the tier."""
    return b"".join(_encode_tap(tap.numpy(), tier) for tap in tokens)


def _encode_tap(tokens: np.ndarray, tier: str) -> bytes:
    if tier in _FLOAT:
        return tokens.astype(_FLOAT[tier]).tobytes()
    largest = np.abs(tokens).max(axis=0)
    scale = (largest / 127).astype("<f2")
    # Rounded up, never down: the largest number must fit into 127 steps, even if fp16 is coarse (small channels).
    scale = np.where(scale.astype(np.float32) * 127 < largest, np.nextafter(scale, np.float16(np.inf)), scale)
    safe = np.where(scale > 0, scale, 1).astype(np.float32)
    return bytes(scale.astype("<f2").tobytes() + np.rint(tokens / safe).astype(np.int8).tobytes())


def record_bytes(shapes: Shapes, tier: str) -> int:
    """Bytes of one token record."""
    if tier in _FLOAT:
        return sum(tokens * channels for tokens, channels in shapes) * _FLOAT[tier].itemsize
    return sum((tokens + 2) * channels for tokens, channels in shapes)


def decode_tokens(
    records: Sequence[bytes | memoryview], shapes: Shapes, tier: str, device: torch.device | str = "cpu"
) -> tuple[Tensor, ...]:
    """Token records of several pictures as one float32 tensor per tap, [pictures, tokens, channels], on the device.

    The bytes travel as they are stored, in one transfer, and become numbers on the device. Raises ValueError for a
    record of another length: it cannot be of this space.
    """
    size = record_bytes(shapes, tier)
    for record in records:
        if len(record) != size:
            raise ValueError(f"a token record has {len(record)} bytes where this space has {size}")
    rows = np.empty((len(records), size), np.uint8)
    for row, record in enumerate(records):
        rows[row] = np.frombuffer(record, np.uint8)
    raw = torch.from_numpy(rows)
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        raw = raw.pin_memory()  # makes the copy to the GPU faster and asynchronous
    raw = raw.to(device, non_blocking=True)
    taps, start = [], 0
    for tokens, channels in shapes:
        end = start + record_bytes([(tokens, channels)], tier)
        taps.append(_decode_tap(raw[:, start:end], tokens, channels, tier))
        start = end
    return tuple(taps)


def _decode_tap(raw: Tensor, tokens: int, channels: int, tier: str) -> Tensor:
    if tier in _FLOAT:
        return _as(raw, _TORCH_FLOAT[tier]).reshape(len(raw), tokens, channels).float()
    scale = _as(raw[:, : 2 * channels], torch.float16).float()
    steps = _as(raw[:, 2 * channels :], torch.int8).reshape(len(raw), tokens, channels)
    return steps.float() * scale[:, None, :]


def _as(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes [n, bytes] as numbers; without a copy if they are aligned."""
    places = raw.storage_offset(), raw.stride(0), raw.shape[1]
    aligned = raw.is_contiguous() and not any(place % dtype.itemsize for place in places)
    return (raw if aligned else raw.clone(memory_format=torch.contiguous_format)).view(dtype)
