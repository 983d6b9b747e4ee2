"""A few steps of the real trainer on generated pictures."""

import csv
import runpy
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, TINY
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.networks.patch_autoencoder import PatchAutoencoder
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import score
from diffsim.retrieval.settings import Tap
from diffsim.retrieval.training.batches import augment, draw_batch, draw_motifs, draw_painted
from diffsim.retrieval.training.curve import draw_losses
from diffsim.retrieval.training.losses import contrastive_loss, denoising_errors, score_matrix
from diffsim.retrieval.training.pictures import Pictures, TrainingError, find_motifs, list_pictures, read_pictures
from diffsim.retrieval.training.recipe import Recipe
from diffsim.retrieval.training.run import train
from diffsim.retrieval.training.trainer import Trainer

TOY = Recipe(
    steps=3, picture_size=32, cached_size=40, latent_channels=4, block_out_channels=(32, 32), head_channels=16,
    cross_attention_dim=8, subject_tap="up_blocks.0.attentions.0", style_tap="up_blocks.0.attentions.1",
    look_tap="up_blocks.0.attentions.1",
    denoised=4, motifs=(2, 2), painted=(2, 2), warm_up_steps=2,
)  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Nine coarse colour pictures, and three subjects on white in two styles: one has the colours turned."""
    rng = np.random.default_rng(0)
    photos, drawings = tmp_path / "photos", tmp_path / "drawings"
    photos.mkdir()
    for i in range(9):
        save(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), photos / f"{i}.png")
    for style in ("plain", "turned"):
        (drawings / style).mkdir(parents=True)
    for i in range(3):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        coarse[[0, -1]] = coarse[:, [0, -1]] = 255
        save(coarse, drawings / "plain" / f"{i}.png")
        save(coarse[..., ::-1], drawings / "turned" / f"{i}.png")
    return [photos, drawings]


def save(coarse: np.ndarray, path: Path) -> None:
    Image.fromarray(np.ascontiguousarray(coarse)).resize((48, 48), Image.Resampling.NEAREST).save(path)


def same_weights(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_resumed_run_ends_in_the_weights_of_an_unbroken_one(folders: list[Path], tmp_path: Path) -> None:
    unbroken = train(folders, tmp_path / "unbroken", TOY)
    train(folders, tmp_path / "broken", TOY, until=2)
    resumed = train(folders, tmp_path / "broken", TOY, resume=True)
    assert resumed.step == 3
    assert same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    assert same_weights(unbroken.ema.parameters(), resumed.ema.parameters())
    fresh = train(folders, tmp_path / "fresh", TOY, until=2)
    assert not same_weights(fresh.unet.parameters(), resumed.unet.parameters())


def test_the_exported_folder_holds_the_averaged_network_and_says_how_it_is_read(
    folders: list[Path], tmp_path: Path
) -> None:
    trainer = train(folders, tmp_path / "model", replace(TOY, steps=1), snapshots=1)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    assert same_weights(unet.parameters(), [p.half().float() for p in trainer.ema.parameters()])
    assert PatchAutoencoder.from_pretrained(tmp_path / "model" / "vae").config.latent_channels == 4
    assert DDPMScheduler.from_pretrained(tmp_path / "model" / "scheduler").config.prediction_type == "v_prediction"
    assert load_file(tmp_path / "model" / "conditioning.safetensors")["prompt_embeds"].shape == (1, 1, 8)
    (request,) = requested_spaces(str(tmp_path / "model.step-1"), ["instance"])
    settings = request.settings
    assert (settings.size, settings.prompt, settings.taps) == (32, "", (Tap(TOY.subject_tap, TOY.read_at),))


def test_training_lowers_every_loss_and_logs_it(folders: list[Path], tmp_path: Path) -> None:
    recipe = replace(TOY, steps=100, learning_rate=3e-3, denoised=8, motifs=(3, 2), painted=(3, 3))
    before = mean_losses(train(folders, tmp_path / "untrained", recipe, until=0))
    after = mean_losses(train(folders, tmp_path / "trained", recipe))
    assert (after < 0.95 * before).all(), (before, after)
    with (tmp_path / "trained.loss.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["50", "100"]
    with Image.open(tmp_path / "trained.loss.png") as plot:
        assert plot.width > 500
    assert not draw_losses(tmp_path / "untrained.loss.csv", tmp_path / "nothing.png")


def mean_losses(trainer: Trainer) -> Tensor:
    """Denoising, subject and style over ten batches, the same for every trainer of one recipe."""
    rows = []
    for trainer.step in range(1000, 1010):
        with torch.no_grad():
            losses = trainer.losses(draw_batch(trainer.pictures, trainer.recipe, trainer.step))
        rows.append([float(losses.denoising), float(losses.subject), float(losses.style)])
    return torch.tensor(rows).mean(0)


def test_a_run_starts_from_a_trained_folder(folders: list[Path], tmp_path: Path) -> None:
    first = train(folders, tmp_path / "first", TOY)
    other = replace(TOY, seed=1)
    begun = train(folders, tmp_path / "begun", other, until=0, start=tmp_path / "first")
    assert same_weights(begun.unet.parameters(), [p.half().float() for p in first.ema.parameters()])
    assert same_weights(begun.vae.parameters(), first.vae.parameters())
    assert torch.equal(begun.prompt_embeds, first.prompt_embeds)
    unbroken = train(folders, tmp_path / "unbroken", other, start=tmp_path / "first")
    train(folders, tmp_path / "broken", other, until=2, start=tmp_path / "first")
    resumed = train(folders, tmp_path / "broken", other, resume=True)
    assert same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    assert torch.equal(unbroken.prompt_embeds, resumed.prompt_embeds)
    configs = [(tmp_path / run / "vae" / "config.json").read_text() for run in ("first", "broken")]
    assert configs[0] == configs[1]  # the same scale, and no word of where it came from


@pytest.mark.parametrize("model", [TINY, DATA])
def test_a_folder_that_does_not_fit_is_no_start(folders: list[Path], tmp_path: Path, model: Path) -> None:
    with pytest.raises(TrainingError, match=r"does not hold a network of this recipe's shape.* give mini or a folder"):
        train(folders, tmp_path / "model", TOY, start=model)


def test_a_checkpoint_of_another_recipe_is_refused(folders: list[Path], tmp_path: Path) -> None:
    train(folders, tmp_path / "model", TOY, until=1)
    with pytest.raises(TrainingError, match=r"made with seed 0 \(now 1\).*start afresh without --resume"):
        train(folders, tmp_path / "model", replace(TOY, seed=1), resume=True)
    with pytest.raises(TrainingError, match=r"no checkpoint .* start without --resume"):
        train(folders, tmp_path / "other", TOY, resume=True)


def test_a_run_can_be_made_longer_or_shorter_before_its_rate_falls(folders: list[Path], tmp_path: Path) -> None:
    unbroken = train(folders, tmp_path / "unbroken", replace(TOY, steps=4))
    train(folders, tmp_path / "broken", replace(TOY, steps=5), until=2)
    resumed = train(folders, tmp_path / "broken", replace(TOY, steps=4), resume=True)
    assert same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    with pytest.raises(TrainingError, match=r"steps 4 \(now 9\)"):
        train(folders, tmp_path / "broken", replace(TOY, steps=9), resume=True)


def test_the_score_that_is_trained_is_the_score_that_is_asked() -> None:
    attention = nn.Module()
    attention.heads = 2
    torch.manual_seed(0)
    attention.to_q, attention.to_k, attention.to_v = (nn.Linear(16, 16, bias=False) for _ in range(3))
    tokens = torch.randn(5, 9, 16)
    matrix = score_matrix(attention, tokens)
    features = Projection.of(attention, attention.to_q, attention.to_k, attention.to_v)([tokens])
    for row in range(5):
        assert torch.allclose(matrix[row], score([features[row : row + 1]], [features], [1.0]), atol=1e-5)


def test_the_contrastive_loss_is_the_formula() -> None:
    scores = torch.tensor([[1.0, 0.9, 0.2, 0.1], [0.9, 1.0, 0.3, 0.4], [0.2, 0.3, 1.0, 0.5], [0.1, 0.4, 0.5, 1.0]])
    expected = 0.0
    for row, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        others = [scores[row, column] / 0.5 for column in range(4) if column != row]
        expected -= float(scores[row, partner] / 0.5 - torch.stack(others).logsumexp(0)) / 4
    assert float(contrastive_loss(scores, torch.tensor([0, 0, 1, 1]), 0.5)) == pytest.approx(expected, abs=1e-6)


def test_the_denoising_error_is_the_formula() -> None:
    predicted, target = torch.zeros(2, 1, 1, 1), torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    signal = torch.tensor([0.5, 0.99])  # SNR 1 and 99, cut at 5
    assert denoising_errors(predicted, target, signal, 5.0).tolist() == pytest.approx(
        [1 / 2 * 1, 5 / 100 * 4], rel=1e-4
    )


def test_one_name_in_several_folders_is_one_subject_in_several_styles(folders: list[Path], tmp_path: Path) -> None:
    (photos, drawings) = list_pictures(folders)
    assert find_motifs(photos) == {}
    found = find_motifs(drawings)
    assert {(subject, Path(style).name) for subject, style in found} == {
        (subject, style) for subject in "012" for style in ("plain", "turned")
    }
    pictures = read_pictures(folders, 40, tmp_path / "cache.npy")
    grid = draw_motifs(pictures, replace(TOY, motifs=(3, 2)), np.random.default_rng(0))
    assert (grid.subjects.tolist(), grid.styles.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])


def test_every_folder_and_every_subfolder_has_the_same_share() -> None:
    pixels = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 10, 10, 10, 10, 10, 100, 200)])
    pictures = Pictures(pixels, ((np.arange(6), np.array([6])), (np.array([7]),)), {})
    rng = np.random.default_rng(0)
    drawn = [int(pictures.one_of(pictures.kind(rng), rng)[0, 0, 0]) for _ in range(2000)]
    # six standard deviations of 2000 draws with a chance of a quarter
    assert [drawn.count(value) / 2000 for value in (10, 100, 200)] == pytest.approx([0.25, 0.25, 0.5], abs=0.07)


def test_two_kinds_under_one_look_are_two_styles() -> None:
    pixels = np.stack([np.full((40, 40, 3), value, np.uint8) for value in (10, 10, 200, 200)])
    pictures = Pictures(pixels, ((np.array([0, 1]),), (np.array([2, 3]),)), {})
    mixed = 0
    for seed in range(60):
        grid = draw_painted(pictures, TOY, np.random.default_rng(seed))
        subjects_of = {style: grid.subjects[grid.styles == style].tolist() for style in grid.styles.tolist()}
        untouched = (((grid.pixels.mean((1, 2, 3)) + 1) * 127.5).round() - torch.tensor([[10.0], [200.0]])).abs() < 0.5
        kinds_of = {style: untouched[:, grid.styles == style].any(1).tolist() for style in subjects_of}
        if len(subjects_of) == 4:
            mixed += 1
            assert subjects_of == {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3]}
            assert not any(kinds_of[a] == kinds_of[b] != [False, False] for a in (0, 1) for b in (2, 3))
        else:
            assert subjects_of == {0: [0, 1], 1: [0, 1]}
        assert not any(all(kinds) for kinds in kinds_of.values())
    assert 30 - 24 < mixed < 30 + 24  # six standard deviations of a fair coin
    larger = replace(TOY, painted=(5, 4))
    counts = {len(draw_painted(pictures, larger, np.random.default_rng(seed)).pixels) for seed in range(20)}
    assert counts == {5 * 4, 2 * 3 * 4}
    alone = replace(pictures, shares=pictures.shares[:1])
    assert {len(draw_painted(alone, TOY, np.random.default_rng(seed)).pixels) for seed in range(20)} == {4}


def test_a_batch_follows_from_seed_and_step_alone(folders: list[Path], tmp_path: Path) -> None:
    pictures = read_pictures(folders, 40, tmp_path / "cache.npy")
    first, again, next_one = (draw_batch(pictures, TOY, step) for step in (5, 5, 6))
    assert torch.equal(first.denoised, again.denoised) and not torch.equal(first.denoised, next_one.denoised)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first.grids, again.grids, strict=True))
    painted, motifs = (grid.pixels.shape for grid in first.grids)
    assert painted in ((4, 3, 32, 32), (8, 3, 32, 32)) and motifs == (4, 3, 32, 32)
    assert len(draw_batch(replace(pictures, motifs={}), TOY, 0).grids) == 1


def test_a_white_ground_is_coloured_half_the_time_and_others_never() -> None:
    white, grey = np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    coloured = sum(augment(white, 32, rng).min() < 255 for _ in range(400))
    assert 200 - 60 < coloured < 200 + 60  # six standard deviations of a fair coin
    assert all((augment(grey, 32, rng) == 100).all() for _ in range(20))


def test_the_rate_warms_up_holds_and_cools_down() -> None:
    recipe = Recipe(steps=1000, learning_rate=1.0, warm_up_steps=10, cool_down=0.4)
    assert [recipe.rate(step) for step in (0, 9, 600, 800, 999)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])


def test_pictures_are_left_out_by_a_list(folders: list[Path], tmp_path: Path) -> None:
    without = {(folders[1] / "plain" / "0.png").resolve()}
    assert [len(files) for files in list_pictures(folders, without)] == [9, 5]


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no pictures"):
        train([tmp_path], tmp_path / "model", TOY)


def test_an_unreadable_picture_is_named(folders: list[Path], tmp_path: Path) -> None:
    (folders[1] / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"broken.png cannot be decoded .*; remove it and start again"):
        train(folders, tmp_path / "model", TOY, until=1)


def test_the_command_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", str(tmp_path), "--out", str(tmp_path / "model")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("diffsim.retrieval.training", run_name="__main__")
    assert ended.value.code == 1
    sentence = f"Error: {tmp_path} holds no pictures to train on; name folders with pictures"
    assert capsys.readouterr().err.strip() == sentence
