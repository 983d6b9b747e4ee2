"""Golden scores: the released DiffSim implementation's numbers, reproduced with our taps, projections and score.

The released protocol (both guidance branches, sampled posterior, four draws from one generator) is put together here
from the engine's parts; `tests/data/golden_scores.json` was printed by the released code (float32, CPU).
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.kit import Projection
from retrieval.networks import Network, load_network
from retrieval.score import AttentionFeatures, score
from retrieval.taps import run_to_taps

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "golden_scores.json").read_text())
ROWS = [row for row in GOLDEN["scores"] if row["variant"] == "S" and row["similarity"] == "cosine"]
SIZE = GOLDEN["image_size"]


@cache
def network() -> Network:
    return load_network(DATA / "tiny-sd15", "float32", "cpu")


@cache
def prompts() -> torch.Tensor:
    return torch.cat([network().conditioning(""), network().conditioning(GOLDEN["prompt"])])


@cache
def released_features(picture: str, role: int, module: str, timestep: int) -> AttentionFeatures:
    """A picture's features as the released code computes them in the role of A (0) or B (1), both branches as heads."""
    draws = torch.randn(4, 1, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(GOLDEN["seed"]))
    pixels = Image.open(DATA / "images" / picture).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        posterior = network().autoencoder.encode(x).latent_dist
        latent = (posterior.mean + posterior.std * draws[role]) * network().autoencoder.config.scaling_factor
        signal = float(network().signal[timestep])
        noisy = torch.cat([signal**0.5 * latent + (1 - signal) ** 0.5 * draws[2 + role]] * 2)
        unet = network().unet
        inputs = run_to_taps(unet, [module], lambda: unet(noisy, timestep, encoder_hidden_states=prompts()))
        both = Projection.of(unet.get_submodule(module))(inputs[module])
    return AttentionFeatures(*(part.flatten(0, 1)[None] for part in (both.query, both.key, both.value, both.map)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['module'][:22]}-{row['step_index']}-{row['a']}-{row['b']}")
def test_golden_score(row: dict) -> None:
    timestep = 1001 - row["step_index"]
    a = released_features(row["a"], 0, row["module"], timestep)
    b = released_features(row["b"], 1, row["module"], timestep)
    assert score([a], [b], [1.0]).item() == pytest.approx(row["score"], abs=1e-4)
