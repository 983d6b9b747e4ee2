"""Train a small latent diffusion model in the Stable Diffusion layout on folders of pictures: how `mini` was made.

    python -m retrieval.training photos drawings --out mini --minutes 45

OUT is a model folder that `--model` takes. Beside it lie OUT.pictures.npy (the decoded pictures), OUT.loss.csv and
OUT.checkpoint.pt, from which `--resume` goes on to the weights that an unbroken run would have reached.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import RetrievalError
from .images import PICTURE_SUFFIXES, UnreadableImage, decode
from .networks.patch_autoencoder import PatchAutoencoder

# Stable Diffusion's noise, but v-prediction: its target is well scaled at every timestep.
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}


class TrainingError(RetrievalError):
    """The training cannot start: no pictures, an unreadable one, or a checkpoint of another run."""


@dataclass(frozen=True)
class Recipe:
    """Everything but the pictures that decides the weights."""

    seed: int = 0
    picture_size: int = 128  # pixels; crops of the cached pictures are resized to it
    cached_size: int = 160  # pixels
    patch_size: int = 8
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (64, 128, 160)
    layers_per_block: int = 1
    head_channels: int = 32
    cross_attention_dim: int = 64
    batch_size: int = 32
    learning_rate: float = 6e-4
    warm_up_steps: int = 150
    ema_decay: float = 0.998
    snr_limit: float = 5.0  # min-SNR-gamma, arXiv 2303.09556


def list_pictures(folders: Sequence[Path]) -> list[list[Path]]:
    """The pictures below each folder, in the order of their names."""
    listed = [sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES) for folder in folders]
    for folder, files in zip(folders, listed, strict=True):
        if not files:
            raise TrainingError(f"{folder} holds no pictures; name folders with pictures to train on")
    return listed


def cached_pictures(files: Sequence[Path], size: int, cache: Path) -> NDArray[np.uint8]:
    """All pictures as one memory-mapped array [files, size, size, 3]; decoded again only for another list of files."""
    names = "".join(f"{file}\n" for file in files)
    listing = cache.with_suffix(".txt")
    if not (cache.exists() and listing.exists() and listing.read_text() == names):
        listing.unlink(missing_ok=True)
        shape = (len(files), size, size, 3)
        pictures = np.lib.format.open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
        for row, file in zip(pictures, files, strict=True):
            try:
                row[:] = decode(file.read_bytes(), size).pixels
            except UnreadableImage as error:
                raise TrainingError(f"{file} cannot be decoded ({error}); remove it and start again") from error
        pictures.flush()
        listing.write_text(names)
    return cast("NDArray[np.uint8]", np.load(cache, mmap_mode="r"))


def augment(picture: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random crop (a quarter of the time the whole), perhaps mirrored; a white ground perhaps coloured."""
    full = len(picture)
    side = min(full, int(rng.integers(int(0.7 * full), int(1.1 * full) + 1)))
    top, left = rng.integers(0, full - side + 1, 2)
    crop = Image.fromarray(picture[top : top + side, left : left + side]).resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(crop)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if picture[:: full - 1, :: full - 1].min() > 250 and rng.random() < 0.5:  # all four corners are white
        pixels = (pixels * rng.uniform(0.25, 1.0, 3)).astype(np.uint8)  # multiplied like ink on coloured paper
    return pixels


def to_network(pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 [H,W,3] each -> float32 [B,3,H,W] in [-1,1]."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_batch(pictures: NDArray[np.uint8], groups: Sequence[range], recipe: Recipe, step: int) -> Tensor:
    """Batch number `step`, a function of seed and step alone; every group has the same share, whatever its size."""
    rng = np.random.default_rng([recipe.seed, step])
    chosen = [int(rng.choice(groups[i % len(groups)])) for i in range(recipe.batch_size)]
    return to_network([augment(pictures[i], recipe.picture_size, rng) for i in chosen])


def build_unet(recipe: Recipe) -> UNet2DConditionModel:
    """A U-Net with attention at every resolution but the finest."""
    levels = len(recipe.block_out_channels)
    return UNet2DConditionModel(
        sample_size=recipe.picture_size // recipe.patch_size,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        block_out_channels=recipe.block_out_channels,
        layers_per_block=recipe.layers_per_block,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        cross_attention_dim=recipe.cross_attention_dim,
        # what diffusers calls attention_head_dim is the number of heads
        attention_head_dim=tuple(channels // recipe.head_channels for channels in recipe.block_out_channels),
    )


class Trainer:
    """The network, its moving average and the optimizer; `step` batches have been seen."""

    def __init__(self, recipe: Recipe, pictures: NDArray[np.uint8], groups: Sequence[range]) -> None:
        self.recipe, self.pictures, self.groups = recipe, pictures, groups
        self.step, self.seconds = 0, 0.0
        torch.manual_seed(recipe.seed)
        self.unet = build_unet(recipe)
        self.ema = build_unet(recipe)
        self.ema.load_state_dict(self.unet.state_dict())
        self.prompt_embeds = torch.randn(1, 1, recipe.cross_attention_dim)
        self.scheduler = DDPMScheduler(**SCHEDULE)
        steps_never_reached = range(2**32, 2**32 + 16)
        sample = torch.cat([draw_batch(pictures, groups, recipe, step) for step in steps_never_reached])
        self.vae = PatchAutoencoder.fit(sample, recipe.patch_size, recipe.latent_channels)
        decayed = [p for p in self.unet.parameters() if p.ndim > 1]
        others = [p for p in self.unet.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    def loss(self) -> Tensor:
        """Min-SNR-weighted v-prediction loss of the next batch."""
        recipe, generator = self.recipe, torch.Generator().manual_seed(self.recipe.seed * 2**32 + self.step)
        pixels = draw_batch(self.pictures, self.groups, recipe, self.step)
        latents = self.vae.encode(pixels).latent_dist.mean * self.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator)
        # one timestep from each of batch_size equal slices of the schedule: the same distribution, less variance
        slices = torch.arange(len(latents)) + torch.rand(len(latents), generator=generator)
        timesteps = (slices * len(self.scheduler.alphas_cumprod) / len(latents)).long()
        # the batch alternates between the groups: no group may keep the even slices
        timesteps = timesteps[torch.randperm(len(latents), generator=generator)]
        with torch.autocast("cpu", torch.bfloat16):
            noised = self.scheduler.add_noise(latents, noise, timesteps)
            predicted = self.unet(noised, timesteps, self.prompt_embeds.expand(len(latents), -1, -1)).sample
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        abar = self.scheduler.alphas_cumprod[timesteps]
        snr = abar / (1 - abar)
        weight = snr.clamp(max=recipe.snr_limit) / (snr + 1)
        return cast(Tensor, (weight * (predicted.float() - target).square().mean((1, 2, 3))).mean())

    def train_step(self) -> float:
        """One batch; returns its loss."""
        started = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * min(1.0, (self.step + 1) / self.recipe.warm_up_steps)
        loss = self.loss()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.unet.parameters()), 1 - decay)
        self.step += 1
        self.seconds += time.monotonic() - started
        return float(loss.detach())

    def save_checkpoint(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("unet", "ema", "vae", "optimizer")}
        partial = path.with_suffix(".partial")
        torch.save(state | {"recipe": asdict(self.recipe), "step": self.step, "seconds": self.seconds}, partial)
        os.replace(partial, path)

    def load_checkpoint(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        asked = asdict(self.recipe)
        differs = [
            f"{name} {made} (now {asked[name]})" for name, made in state["recipe"].items() if made != asked[name]
        ]
        if differs:
            raise TrainingError(
                f"{path} was made with {', '.join(differs)}; give that again, or start afresh without --resume"
            )
        for name in ("unet", "ema", "vae", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def export(self, out: Path) -> None:
        """Write the averaged weights in float16 as a model folder."""
        unet = build_unet(self.recipe)
        unet.load_state_dict(self.ema.state_dict())
        unet.half().save_pretrained(out / "unet")
        self.vae.save_pretrained(out / "vae")
        self.scheduler.save_pretrained(out / "scheduler")
        save_file({"prompt_embeds": self.prompt_embeds}, out / "conditioning.safetensors")
        index = {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["retrieval.networks.patch_autoencoder", "PatchAutoencoder"],
            "scheduler": ["diffusers", "DDPMScheduler"],
        }
        (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def train(
    folders: Sequence[Path],
    out: Path,
    recipe: Recipe,
    *,
    steps: float = math.inf,
    minutes: float = math.inf,
    resume: bool = False,
) -> Trainer:
    """Train until `steps` batches or `minutes` of work, both counted from the first start, whichever comes first."""
    listed = list_pictures(folders)
    ends = np.cumsum([len(files) for files in listed])
    groups = [range(end - len(files), end) for files, end in zip(listed, ends, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = cached_pictures(
        [f for files in listed for f in files], recipe.cached_size, out.with_name(f"{out.name}.pictures.npy")
    )
    checkpoint, log = out.with_name(f"{out.name}.checkpoint.pt"), out.with_name(f"{out.name}.loss.csv")
    trainer = Trainer(recipe, pictures, groups)
    if resume:
        trainer.load_checkpoint(checkpoint)
    with log.open("a" if resume else "w", newline="") as file:
        rows = csv.writer(file)
        if not resume:
            rows.writerow(["step", "seconds", "loss"])
        losses: list[float] = []
        while trainer.step < steps and trainer.seconds < minutes * 60:
            losses.append(trainer.train_step())
            if trainer.step % 50 == 0:
                rows.writerow([trainer.step, round(trainer.seconds), round(sum(losses) / len(losses), 5)])
                file.flush()
                losses.clear()
            if trainer.step % 250 == 0:
                trainer.save_checkpoint(checkpoint)
    trainer.save_checkpoint(checkpoint)
    trainer.export(out)
    return trainer


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option(
    "--minutes", default=45.0, show_default=True, help="How long to train, earlier runs of --resume included."
)
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--seed", default=0, show_default=True, help="Decides weights, crops and noise.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside OUT.")
def main(folders: tuple[Path, ...], out: Path, minutes: float, threads: int, seed: int, resume: bool) -> None:
    """Train on FOLDERS; each has the same share of every batch, whatever its size."""
    torch.set_num_threads(threads)
    try:
        trainer = train(folders, out, replace(Recipe(), seed=seed), minutes=minutes, resume=resume)
    except RetrievalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{trainer.step} steps in {trainer.seconds / 60:.1f} min: {out}", err=True)


if __name__ == "__main__":
    main()
