"""The network, its moving average and the optimizer: one step, and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ..durable import put_in_place
from ..networks.feature_maps import FACTOR, LATENT_CHANNELS
from ..networks.taps import hidden_states, run_to_taps
from .batches import Batches, Grid
from .encoded import Encoded
from .losses import contrastive_loss, denoising_errors, keeping_loss, score_matrix
from .pictures import Pictures, TrainingError
from .recipe import SCHEDULE, Recipe

_STATEFUL = ("unet", "ema", "optimizer")


@dataclass(frozen=True)
class Losses:
    """Losses of one batch: denoising; finding the same subject and the same style in a grid by the score, the sums over
    the grids; keeping the encoder's similarities by the subject's score."""

    denoising: Tensor
    subject: Tensor
    style: Tensor
    keeping: Tensor

    def values(self) -> list[float]:
        return [float(getattr(self, field.name).detach()) for field in fields(self)]


def build_unet(recipe: Recipe) -> UNet2DConditionModel:
    """A U-Net with attention at every resolution except the finest."""
    levels = len(recipe.block_out_channels)
    return UNet2DConditionModel(
        sample_size=recipe.picture_size // FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=recipe.block_out_channels,
        layers_per_block=recipe.layers_per_block,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        cross_attention_dim=recipe.cross_attention_dim,
        # what diffusers calls attention_head_dim is the number of heads
        attention_head_dim=tuple(channels // recipe.head_channels for channels in recipe.block_out_channels),
    )


class Trainer:
    """Holds the state after `step` batches, which took `seconds` of work."""

    def __init__(self, recipe: Recipe, pictures: Pictures, encoded: Encoded, device: str = "cpu") -> None:
        self.recipe, self.encoded, self.device = recipe, encoded, torch.device(device)
        self.batches = Batches(pictures, encoded, recipe)
        self.step, self.seconds = 0, 0.0
        # bfloat16 is emulated, slowly, on processors without AVX-512
        self.mixed_precision = device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
        torch.manual_seed(recipe.seed)
        self.unet = build_unet(recipe).to(self.device)
        self.ema = build_unet(recipe).to(self.device)
        self.ema.load_state_dict(self.unet.state_dict())
        self.prompt_embeds = torch.randn(1, 1, recipe.cross_attention_dim)
        self.scheduler = DDPMScheduler(**SCHEDULE)
        self.modules = [f"{tap}.transformer_blocks.0.attn1" for tap in (recipe.subject_tap, recipe.style_tap)]
        decayed = [p for p in self.unet.parameters() if p.ndim > 1]
        others = [p for p in self.unet.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    def train_step(self) -> Losses:
        """One batch; returns its losses. Noise and timesteps are a function of seed and step alone.

        The parts of a batch go through the network one after the other: their gradients add up, and only one part's
        activations are in memory.
        """
        started = time.monotonic()
        recipe, generator = self.recipe, torch.Generator().manual_seed(self.recipe.seed * 2**32 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        batch = self.batches.draw(self.step)
        denoising = self._backward(lambda: self._denoising(batch.denoised, generator), recipe.denoising_weight)
        found = [self._on_grid(grid, generator) for grid in batch.grids]
        subject, style, keeping = (torch.stack(losses).sum() for losses in zip(*found, strict=True))
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.unet.parameters()), 1 - decay)
        self.step += 1
        self.seconds += time.monotonic() - started
        return Losses(denoising, subject, style, keeping)

    def _backward(self, loss: Callable[[], Tensor], weight: float = 1.0) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            value = loss()
        torch.autograd.backward(weight * value)
        return value.detach()

    def _denoising(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(latents.shape, generator=generator)
        # one timestep from each of n equal slices of the schedule: the same distribution, less variance
        count = len(latents)
        slices = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
        timesteps = (slices * len(self.scheduler.alphas_cumprod) / count).long().to(self.device)
        latents, noise = latents.to(self.device), noise.to(self.device)
        predicted = self.unet(
            self.scheduler.add_noise(latents, noise, timesteps), timesteps, self._prompt(count)
        ).sample
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        signal = self.scheduler.alphas_cumprod.to(self.device)[timesteps]
        return denoising_errors(predicted, target, signal, self.recipe.snr_limit).mean()

    def _on_grid(self, grid: Grid, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of subject, style and keeping. A grid is at one timestep; half of the grids get one noise for all
        pictures, as the pictures of an index do."""
        recipe = self.recipe
        timestep = torch.randint(1, recipe.contrast_timestep + 1, (1,), generator=generator)
        noise = torch.randn(grid.latents.shape, generator=generator)
        if torch.rand((), generator=generator) < 0.5:
            noise[:] = noise[:1].clone()
        noised = self.scheduler.add_noise(grid.latents, noise, timestep).to(self.device)
        parts: list[Tensor] = []

        def losses() -> Tensor:
            subject_scores, style_scores = self._scores(noised, timestep.to(self.device))
            subjects, styles = grid.subjects.to(self.device), grid.styles.to(self.device)
            subject = contrastive_loss(subject_scores, subjects, recipe.subject_temperature)
            style = contrastive_loss(style_scores, styles, recipe.style_temperature)
            keeping = torch.zeros((), device=self.device)
            if grid.deep is not None:
                deep = grid.deep.to(self.device)
                keeping = keeping_loss(subject_scores, deep, recipe.subject_temperature, recipe.keep_temperature)
            parts.extend(part.detach() for part in (subject, style, keeping))
            return recipe.contrast_weight * (subject + style) + recipe.keep_weight * keeping

        self._backward(losses)
        subject, style, keeping = parts
        return subject, style, keeping

    def _scores(self, noised: Tensor, timestep: Tensor) -> list[Tensor]:
        """The score matrices at the taps of subject and style."""

        def forward() -> None:
            self.unet(noised, timestep, self._prompt(len(noised)))

        entered = run_to_taps(self.unet, self.modules, forward, gradients=True)
        return [score_matrix(self.unet.get_submodule(name), hidden_states(entered[name])) for name in self.modules]

    def _prompt(self, pictures: int) -> Tensor:
        return self.prompt_embeds.to(self.device).expand(pictures, -1, -1)

    def save_checkpoint(self, path: Path) -> None:
        """Save everything that the next step depends on, except the pictures."""
        state = {name: getattr(self, name).state_dict() for name in _STATEFUL}
        state |= {name: getattr(self, name) for name in ("prompt_embeds", "step", "seconds")}
        partial = path.with_suffix(".partial")
        torch.save(state | {"recipe": asdict(self.recipe)}, partial)
        put_in_place(partial, path)

    def load_checkpoint(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe; only the number of steps may differ, as long as the learning
        rate had not begun to fall. Raises TrainingError."""
        if not path.exists():
            raise TrainingError(f"There is no checkpoint {path} to continue from; start without --resume.")
        state = torch.load(path, weights_only=True, map_location=self.device)
        made, asked = state["recipe"], asdict(self.recipe)
        flat = (1 - self.recipe.cool_down) * min(self.recipe.steps, made["steps"])
        differs = [
            f"{name} {made.get(name)} (now {value})"
            for name, value in asked.items()
            if made.get(name) != value and not (name == "steps" and state["step"] <= flat)
        ]
        if differs:
            raise TrainingError(
                f"{path} was made with {', '.join(differs)}; give that again, or start afresh without --resume"
            )
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.prompt_embeds, self.step, self.seconds = (state[name] for name in ("prompt_embeds", "step", "seconds"))
