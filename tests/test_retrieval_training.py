"""A few steps of the real trainer on generated pictures, over the real encoder's features."""

import csv
import runpy
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.extractor import make_space
from diffsim.retrieval.families import load_network
from diffsim.retrieval.networks.feature_maps import CHANNELS, DEEPEST, LATENT_CHANNELS, Statistics
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import score
from diffsim.retrieval.training.batches import Batches
from diffsim.retrieval.training.curve import draw_losses
from diffsim.retrieval.training.encoded import Encoded, augment, encode_pictures
from diffsim.retrieval.training.losses import contrastive_loss, denoising_errors, keeping_loss, score_matrix
from diffsim.retrieval.training.pack import pack
from diffsim.retrieval.training.pictures import Pictures, TrainingError, read_pictures
from diffsim.retrieval.training.recipe import Recipe
from diffsim.retrieval.training.run import train
from diffsim.retrieval.training.trainer import Losses, Trainer

TOY = Recipe(
    steps=3, picture_size=64, painted_grids=4, block_out_channels=(32, 32), head_channels=16, cross_attention_dim=8,
    denoised=4, motifs=(2, 2), painted=(2, 2), kinds=(2, 2), warm_up_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of coarse colour pictures, three of each, and three subjects on white in two styles."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(9):
        save(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), folder / f"photo{i}.png")
        rows.append((f"photo{i}.png", "photos", "photograph", f"kind{i % 3}"))
    for i in range(3):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        coarse[[0, -1]] = coarse[:, [0, -1]] = 255
        for style, pixels in (("plain", coarse), ("turned", coarse[..., ::-1])):
            save(pixels, folder / f"{style}{i}.png")
            rows.append((f"{style}{i}.png", "drawings", style, str(i)))
    write(folder / "table.csv", rows)
    return folder / "table.csv"


def save(coarse: np.ndarray, path: Path) -> None:
    Image.fromarray(np.ascontiguousarray(coarse)).resize((64, 64), Image.Resampling.NEAREST).save(path)


def write(table: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "collection", "style", "subject"), *rows])


@pytest.fixture(scope="module")
def encoded(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    return encode_pictures(read_pictures(table), TOY, tmp_path_factory.mktemp("features"), "cpu")


def same_weights(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_resumed_run_ends_in_the_weights_of_an_unbroken_one(table: Path, tmp_path: Path) -> None:
    unbroken = train(table, tmp_path / "unbroken", TOY)
    train(table, tmp_path / "broken", TOY, until=2)
    resumed = train(table, tmp_path / "broken", TOY, resume=True)
    assert resumed.step == 3
    assert same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    assert same_weights(unbroken.ema.parameters(), resumed.ema.parameters())
    fresh = train(table, tmp_path / "fresh", TOY, until=2)
    assert not same_weights(fresh.unet.parameters(), resumed.unet.parameters())


def test_the_exported_folder_is_a_network_that_is_read_like_the_bundled_one(table: Path, tmp_path: Path) -> None:
    trainer = train(table, tmp_path / "model", replace(TOY, steps=1), snapshots=1)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    assert same_weights(unet.parameters(), [p.half().float() for p in trainer.ema.parameters()])
    statistics = Statistics.load(tmp_path / "model" / "vae", "cpu")
    assert torch.equal(statistics.latent_mean, trainer.encoded.statistics.latent_mean)
    assert DDPMScheduler.from_pretrained(tmp_path / "model" / "scheduler").config.prediction_type == "v_prediction"
    assert load_file(tmp_path / "model" / "conditioning.safetensors")["prompt_embeds"].shape == (1, 1, 8)
    (request,) = requested_spaces(str(tmp_path / "model.step-1"), ["instance"], size=64)
    kit = make_space(load_network(tmp_path / "model.step-1", "float32", "cpu"), request.settings)
    assert all(tokens == 4 for tokens, _ in kit.shapes)


def test_training_lowers_every_loss_and_logs_it(table: Path, tmp_path: Path) -> None:
    recipe = replace(TOY, steps=75, learning_rate=3e-3, denoised=8, motifs=(3, 2), kinds=(3, 3))
    before = mean_losses(train(table, tmp_path / "untrained", recipe, until=0))
    trained = train(table, tmp_path / "trained", recipe)
    with (tmp_path / "trained.loss.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["25", "50", "75"]
    after = mean_losses(trained)
    assert (after < 0.97 * before).all(), (before, after)
    with Image.open(tmp_path / "trained.loss.png") as plot:
        assert plot.width > 500
    assert not draw_losses(tmp_path / "untrained.loss.csv", tmp_path / "nothing.png")


def mean_losses(trainer: Trainer) -> Tensor:
    """Of every kind, over ten batches, the same for every trainer of one recipe; nothing is learned."""
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = 0.0
    trainer.recipe = replace(trainer.recipe, learning_rate=0.0)
    rows = []
    for trainer.step in range(1000, 1010):
        rows.append(trainer.train_step().values())
    return torch.tensor(rows).mean(0)


def test_the_features_are_kept_for_the_same_pictures_and_recipe(table: Path, tmp_path: Path) -> None:
    pictures = read_pictures(table)
    first = encode_pictures(pictures, TOY, tmp_path / "features", "cpu")
    written = (tmp_path / "features" / "latents.npy").stat().st_mtime_ns
    encode_pictures(pictures, TOY, tmp_path / "features", "cpu")
    assert (tmp_path / "features" / "latents.npy").stat().st_mtime_ns == written
    fewer = Pictures(*(getattr(pictures, field.name)[:9] for field in fields(Pictures)))
    again = encode_pictures(fewer, TOY, tmp_path / "features", "cpu")
    assert len(again.latents) == 9 and len(first.latents) == 15


def test_the_features_and_their_statistics(encoded: Encoded) -> None:
    side = TOY.picture_size // 16
    assert encoded.latents.shape == (15, TOY.versions, LATENT_CHANNELS, side, side)
    assert encoded.deep.shape == (15, TOY.versions, CHANNELS[DEEPEST])
    assert encoded.painted.shape == (4, 4, LATENT_CHANNELS, side, side)
    plain = encoded.latents[:, 0].astype(np.float32)
    assert encoded.statistics.latent_mean.numpy() == pytest.approx(plain.mean((0, 2, 3)), abs=1e-3)
    assert encoded.statistics.latent_deviation.numpy() == pytest.approx(plain.std((0, 2, 3)), abs=1e-3)
    assert encoded.statistics.deepest_mean.numpy() == pytest.approx(encoded.deep[:, 0].mean(0), abs=1e-2)


def test_a_checkpoint_of_another_recipe_is_refused(table: Path, tmp_path: Path) -> None:
    train(table, tmp_path / "model", TOY, until=1)
    with pytest.raises(TrainingError, match=r"made with read_at 51 \(now 52\).*start afresh without --resume"):
        train(table, tmp_path / "model", replace(TOY, read_at=52), resume=True)
    with pytest.raises(TrainingError, match=r"no checkpoint .* start without --resume"):
        train(table, tmp_path / "other", TOY, resume=True)


def test_a_run_can_be_made_longer_or_shorter_before_its_rate_falls(table: Path, tmp_path: Path) -> None:
    unbroken = train(table, tmp_path / "unbroken", replace(TOY, steps=4))
    train(table, tmp_path / "broken", replace(TOY, steps=5), until=2)
    resumed = train(table, tmp_path / "broken", replace(TOY, steps=4), resume=True)
    assert same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    with pytest.raises(TrainingError, match=r"steps 4 \(now 9\)"):
        train(table, tmp_path / "broken", replace(TOY, steps=9), resume=True)


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


SCORES = torch.tensor([[1.0, 0.9, 0.2, 0.1], [0.9, 1.0, 0.3, 0.4], [0.2, 0.3, 1.0, 0.5], [0.1, 0.4, 0.5, 1.0]])


def test_the_contrastive_loss_is_the_formula() -> None:
    def of_pair(row: int, partner: int) -> float:
        others = [SCORES[row, column] / 0.5 for column in range(4) if column != row]
        return -float(SCORES[row, partner] / 0.5 - torch.stack(others).logsumexp(0))

    pairs = sum(of_pair(*pair) for pair in ((0, 1), (1, 0), (2, 3), (3, 2))) / 4
    assert float(contrastive_loss(SCORES, torch.tensor([0, 0, 1, 1]), 0.5)) == pytest.approx(pairs, abs=1e-6)
    # Pictures without a partner do not ask; they are only others.
    alone = (of_pair(0, 1) + of_pair(1, 0)) / 2
    assert float(contrastive_loss(SCORES, torch.tensor([0, 0, 1, 2]), 0.5)) == pytest.approx(alone, abs=1e-6)
    for labels in ([0, 1, 2, 3], [0, 0, 0, 0]):
        assert float(contrastive_loss(SCORES, torch.tensor(labels), 0.5)) == 0


def test_the_keeping_loss_is_a_divergence_from_the_encoders_similarities() -> None:
    deep = torch.tensor([[1.0, 0.0], [0.8, 0.3], [-1.0, 0.2], [-0.7, -0.6]])
    directions = nn.functional.normalize(deep - deep.mean(0), dim=1)
    own = directions @ directions.T
    assert float(keeping_loss(own, deep, 0.1, 0.1)) == pytest.approx(0, abs=1e-6)
    total = 0.0
    for row in range(4):
        others = [column for column in range(4) if column != row]
        wanted, shares = ((matrix[row, others] / 0.1).softmax(0) for matrix in (own, SCORES))
        total += float((wanted * (wanted / shares).log()).sum()) / 4
    assert float(keeping_loss(SCORES, deep, 0.1, 0.1)) == pytest.approx(total, abs=1e-5)


def test_the_denoising_error_is_the_formula() -> None:
    predicted, target = torch.zeros(2, 1, 1, 1), torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    signal = torch.tensor([0.5, 0.99])  # SNR 1 and 99, cut at 5
    assert denoising_errors(predicted, target, signal, 5.0).tolist() == pytest.approx(
        [1 / 2 * 1, 5 / 100 * 4], rel=1e-4
    )


def test_subjects_in_several_styles_are_motifs_and_the_others_kinds(table: Path) -> None:
    pictures = read_pictures(table)
    assert {cell: pictures.files[row].stem for cell, row in pictures.motifs()["drawings"].items()} == {
        (str(i), style): f"{style}{i}" for i in range(3) for style in ("plain", "turned")
    }
    kinds = pictures.kinds(3)
    assert kinds.keys() == {"photos"} and {name: rows.tolist() for name, rows in kinds["photos"].items()} == {
        "kind0": [0, 3, 6], "kind1": [1, 4, 7], "kind2": [2, 5, 8],
    }  # fmt: skip
    assert pictures.kinds(4) == {}


def test_the_labels_of_a_batch(table: Path, encoded: Encoded) -> None:
    pictures = read_pictures(table)
    batches = Batches(pictures, encoded, replace(TOY, motifs=(3, 2), kinds=(2, 3)))
    for step in range(5):
        painted, motifs, kinds = batches.draw(step).grids
        assert (painted.subjects.tolist(), painted.deep) == ([0, 0, 1, 1], None)
        assert (motifs.subjects.tolist(), motifs.styles.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
        assert (kinds.subjects.tolist(), kinds.styles.tolist()) == ([0, 0, 0, 1, 1, 1], [0] * 6)
        assert kinds.deep is not None and kinds.deep.shape == (6, CHANNELS[DEEPEST])


def test_a_batch_follows_from_seed_and_step_alone(table: Path, encoded: Encoded) -> None:
    batches = Batches(read_pictures(table), encoded, TOY)
    first, again, next_one = (batches.draw(step) for step in (5, 5, 6))
    assert torch.equal(first.denoised, again.denoised) and not torch.equal(first.denoised, next_one.denoised)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(first.grids, again.grids, strict=True))


def test_two_collections_under_one_look_are_two_styles(table: Path, tmp_path: Path) -> None:
    recipe = replace(TOY, painted=(4, 2), painted_grids=24)
    encoded = encode_pictures(read_pictures(table), recipe, tmp_path / "features", "cpu")
    batches = Batches(read_pictures(table), encoded, recipe)
    mixed = 0
    for number in range(24):
        kinds = encoded.kinds[number].tolist()
        assert kinds in ([0] * 4, [1] * 4, [0, 0, 1, 1], [1, 1, 0, 0])
        mixed += len(set(kinds)) == 2
    assert 0 < mixed < 24
    for step in range(20):
        styles = batches.draw(step).grids[0].styles.view(4, 2)
        assert (styles[0] == styles[1]).all() and (styles[2] == styles[3]).all()
        assert len(set(styles.flatten().tolist())) in (2, 4)


def test_every_collection_has_the_same_share(table: Path, encoded: Encoded) -> None:
    batches = Batches(read_pictures(table), encoded, replace(TOY, denoised=40))
    mean, deviation = (
        part[:, None, None] for part in (encoded.statistics.latent_mean, encoded.statistics.latent_deviation)
    )
    known = (torch.from_numpy(encoded.latents[:9].astype(np.float32)) - mean) / deviation
    photos = {float(each.abs().sum()) for each in known.flatten(0, 1)}
    drawn = [float(each.abs().sum()) for step in range(25) for each in batches.draw(step).denoised]
    share = np.mean([min(abs(one - photo) for photo in photos) < 1e-2 for one in drawn])
    assert abs(share - 0.5) < 6 * 0.5 / len(drawn) ** 0.5  # six standard deviations


def test_a_white_ground_is_sometimes_coloured_and_others_never() -> None:
    white, grey = np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    coloured = sum(augment(white, rng).min() < 255 for _ in range(400))
    assert 120 - 55 < coloured < 120 + 55  # six standard deviations of a chance of 0.3
    assert all((augment(grey, rng) == 100).all() for _ in range(20))


def test_the_rate_warms_up_holds_and_cools_down() -> None:
    recipe = Recipe(steps=1000, learning_rate=1.0, warm_up_steps=10, cool_down=0.4)
    assert [recipe.rate(step) for step in (0, 9, 600, 800, 999)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])


def test_the_log_names_every_loss(table: Path, tmp_path: Path) -> None:
    train(table, tmp_path / "model", replace(TOY, steps=1))
    header = (tmp_path / "model.loss.csv").read_text().splitlines()[0].split(",")
    assert header == ["step", "seconds", *(field.name for field in fields(Losses))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,style\n", "must be a CSV of pictures with the columns file, collection, style, subject."),
        ("file,collection,style,subject\nno.png,a,b,c\n", "lists 1 files that do not exist, the first is "),
        ("file,collection,style,subject\ntable.csv,a,b,c\n", "cannot be decoded"),
    ],
)
def test_the_command_names_what_is_wrong(
    text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(text)
    monkeypatch.setattr(sys, "argv", ["training", str(tmp_path / "table.csv"), "--out", str(tmp_path / "model")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("diffsim.retrieval.training", run_name="__main__")
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ") and sentence in line


def test_a_packed_set_is_trained_on_and_resumed_elsewhere(table: Path, tmp_path: Path) -> None:
    packed = tmp_path / "set.tar"
    assert pack(table, packed, 10**6) == 90
    best = packed.stat().st_size
    assert pack(table, packed, best - 1) < 90 and packed.stat().st_size < best
    elsewhere = tmp_path / "elsewhere" / "set.tar"
    elsewhere.parent.mkdir()
    packed.rename(elsewhere)
    train(elsewhere, tmp_path / "broken", TOY, until=2)
    resumed = train(elsewhere, tmp_path / "broken", TOY, resume=True)
    unbroken = train(elsewhere, tmp_path / "unbroken", TOY)
    assert resumed.step == 3 and same_weights(unbroken.unet.parameters(), resumed.unet.parameters())
    before, after = read_pictures(table), read_pictures(next((tmp_path / "broken.pictures").rglob("table.csv")))
    assert (before.collections, before.styles, before.subjects) == (after.collections, after.styles, after.subjects)
    with pytest.raises(TrainingError, match=r"15 pictures do not fit into 0\.001 MB; allow more"):
        pack(table, tmp_path / "small.tar", 1000)
    assert not (tmp_path / "small.tar").exists() and not list(tmp_path.glob("*.part"))
    elsewhere.write_bytes(elsewhere.read_bytes()[:-12_000])
    with pytest.raises(TrainingError, match=r"copy it here,? again"):
        train(elsewhere, tmp_path / "cut", TOY)
