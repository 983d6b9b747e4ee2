"""Three steps of the real trainer on generated pictures."""

import csv
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from retrieval.networks.patch_autoencoder import PatchAutoencoder
from retrieval.training import Recipe, Trainer, TrainingError, augment, draw_batch, list_pictures, train

TOY = Recipe(
    picture_size=32, cached_size=40, latent_channels=4, block_out_channels=(32, 32), head_channels=16,
    cross_attention_dim=8, batch_size=4, warm_up_steps=2,
)  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A folder of nine coarse colour pictures and one of three drawings on white."""
    rng = np.random.default_rng(0)
    photos, drawings = tmp_path / "photos", tmp_path / "drawings"
    for folder, count in ((photos, 9), (drawings, 3)):
        folder.mkdir()
        for i in range(count):
            coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            if folder == drawings:
                coarse[[0, -1]] = coarse[:, [0, -1]] = 255
            Image.fromarray(coarse).resize((48, 48), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    return [photos, drawings]


def same_weights(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_resumed_run_ends_in_the_weights_of_an_unbroken_one(folders: list[Path], tmp_path: Path) -> None:
    unbroken = train(folders, tmp_path / "unbroken", TOY, steps=3)
    train(folders, tmp_path / "broken", TOY, steps=2)
    resumed = train(folders, tmp_path / "broken", TOY, steps=3, resume=True)
    assert resumed.step == 3
    assert same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    assert same_weights(unbroken.ema.parameters(), resumed.ema.parameters())
    fresh = train(folders, tmp_path / "fresh", TOY, steps=2)
    assert not same_weights(fresh.unet.parameters(), resumed.unet.parameters())


def test_the_exported_folder_holds_the_averaged_network(folders: list[Path], tmp_path: Path) -> None:
    trainer = train(folders, tmp_path / "model", TOY, steps=1)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    assert same_weights(unet.parameters(), [p.half().float() for p in trainer.ema.parameters()])
    assert PatchAutoencoder.from_pretrained(tmp_path / "model" / "vae").config.latent_channels == 4
    assert DDPMScheduler.from_pretrained(tmp_path / "model" / "scheduler").config.prediction_type == "v_prediction"
    assert load_file(tmp_path / "model" / "conditioning.safetensors")["prompt_embeds"].shape == (1, 1, 8)


def test_training_lowers_the_loss_and_logs_it(folders: list[Path], tmp_path: Path) -> None:
    recipe = replace(TOY, learning_rate=3e-3, batch_size=8)
    untrained = train(folders, tmp_path / "untrained", recipe, steps=0)
    trained = train(folders, tmp_path / "trained", recipe, steps=50)
    assert mean_loss(trained) < 0.9 * mean_loss(untrained)
    with (tmp_path / "trained.loss.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["50"]


def mean_loss(trainer: Trainer) -> float:
    """Over ten batches, the same for every trainer of one recipe."""
    losses = []
    for trainer.step in range(1000, 1010):
        with torch.no_grad():
            losses.append(float(trainer.loss()))
    return sum(losses) / len(losses)


def test_a_checkpoint_of_another_recipe_is_refused(folders: list[Path], tmp_path: Path) -> None:
    train(folders, tmp_path / "model", TOY, steps=1)
    with pytest.raises(TrainingError, match="start afresh without --resume"):
        train(folders, tmp_path / "model", replace(TOY, seed=1), steps=2, resume=True)


def test_every_folder_has_the_same_share_of_a_batch(folders: list[Path]) -> None:
    assert [len(files) for files in list_pictures(folders)] == [9, 3]
    pictures = np.concatenate([np.full((9, 40, 40, 3), 10, np.uint8), np.full((3, 40, 40, 3), 200, np.uint8)])
    batch = draw_batch(pictures, [range(9), range(9, 12)], TOY, step=0)
    assert batch.shape == (4, 3, 32, 32)
    assert (batch.mean((1, 2, 3)) > 0).tolist() == [False, True, False, True]
    assert torch.equal(batch, draw_batch(pictures, [range(9), range(9, 12)], TOY, step=0))


def test_a_white_ground_is_coloured_half_the_time_and_others_never() -> None:
    white, grey = np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    coloured = sum(augment(white, 32, rng).min() < 255 for _ in range(400))
    assert 200 - 60 < coloured < 200 + 60  # six standard deviations of a fair coin
    assert all((augment(grey, 32, rng) == 100).all() for _ in range(20))


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no pictures"):
        train([tmp_path], tmp_path / "model", TOY, steps=math.inf)


def test_an_unreadable_picture_is_named(folders: list[Path], tmp_path: Path) -> None:
    (folders[1] / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"broken.png cannot be decoded .*; remove it and start again"):
        train(folders, tmp_path / "model", TOY, steps=1)
