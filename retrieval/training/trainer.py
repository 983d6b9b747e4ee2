"""The network, its moving average and the optimizer: one step, and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ..durable import put_in_place
from ..networks.patch_autoencoder import PatchAutoencoder
from ..networks.taps import hidden_states, on_entry
from .batches import Batch, draw_batch
from .losses import contrastive_loss, denoising_errors, score_matrix
from .pictures import Pictures, TrainingError
from .recipe import SCHEDULE, Recipe

_STATEFUL = ("unet", "ema", "vae", "optimizer")


@dataclass(frozen=True)
class Losses:
    """Losses of one batch: denoising, and finding the same subject and the same style in a grid by the score."""

    denoising: Tensor
    subject: Tensor
    style: Tensor


def build_unet(recipe: Recipe) -> UNet2DConditionModel:
    """A U-Net with attention at every resolution except the finest."""
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
    """Holds the state after `step` batches, which took `seconds` of work."""

    def __init__(self, recipe: Recipe, pictures: Pictures, device: str = "cpu") -> None:
        self.recipe, self.pictures, self.device = recipe, pictures, torch.device(device)
        self.step, self.seconds = 0, 0.0
        # bfloat16 is emulated, slowly, on processors without AVX-512
        self.mixed_precision = device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
        torch.manual_seed(recipe.seed)
        self.unet = build_unet(recipe).to(self.device)
        self.ema = build_unet(recipe).to(self.device)
        self.ema.load_state_dict(self.unet.state_dict())
        self.prompt_embeds = torch.randn(1, 1, recipe.cross_attention_dim)
        self.scheduler = DDPMScheduler(**SCHEDULE)
        never_reached = [draw_batch(pictures, recipe, 2**32 + i) for i in range(12)]
        sample = torch.cat([part for batch in never_reached for part in (batch.denoised, batch.grids[0].pixels)])
        self.vae = PatchAutoencoder.fit(sample, recipe.patch_size, recipe.latent_channels).to(self.device)
        decayed = [p for p in self.unet.parameters() if p.ndim > 1]
        others = [p for p in self.unet.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    def losses(self, batch: Batch) -> Losses:
        """Losses of a batch; noise and timesteps are a function of seed and step alone."""
        recipe, generator = self.recipe, torch.Generator().manual_seed(self.recipe.seed * 2**32 + self.step)
        parts = [batch.denoised, *(grid.pixels for grid in batch.grids)]
        sizes = [len(part) for part in parts]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            pixels = torch.cat(parts).to(self.device)
            latents = self.vae.encode(pixels).latent_dist.mean * self.vae.config.scaling_factor
            noise, timesteps = self._noise(latents.shape, sizes, generator)
            noised = self.scheduler.add_noise(latents, noise, timesteps)
            subject_module, style_module = (
                f"{tap}.transformer_blocks.0.attn1" for tap in (recipe.subject_tap, recipe.style_tap)
            )
            entered: dict[str, Tensor] = {}
            modules = (subject_module, style_module)
            with on_entry(self.unet, modules, lambda name, what: entered.update({name: hidden_states(what)})):
                prompt = self.prompt_embeds.to(self.device).expand(len(latents), -1, -1)
                predicted = self.unet(noised, timesteps, prompt).sample
            target = self.scheduler.get_velocity(latents, noise, timesteps)
            signal = self.scheduler.alphas_cumprod.to(self.device)[timesteps]
            errors = torch.split(denoising_errors(predicted, target, signal, recipe.snr_limit), sizes)
            denoising = errors[0].mean() + recipe.grid_denoising * torch.cat(errors[1:]).mean()
            subject, style = (
                self._finding(module, torch.split(entered[module], sizes)[1:], labels, temperature)
                for module, labels, temperature in (
                    (subject_module, [grid.subjects for grid in batch.grids], recipe.subject_temperature),
                    (style_module, [grid.styles for grid in batch.grids], recipe.style_temperature),
                )
            )
        return Losses(denoising, subject, style)

    def _finding(self, module: str, tokens: Sequence[Tensor], labels: Sequence[Tensor], temperature: float) -> Tensor:
        """Contrastive loss of the score at this module for pictures with the same label: the sum over the grids."""
        attention = self.unet.get_submodule(module)
        return torch.stack(
            [
                contrastive_loss(score_matrix(attention, of_grid), same.to(self.device), temperature)
                for of_grid, same in zip(tokens, labels, strict=True)
            ]
        ).sum()

    def _noise(self, shape: torch.Size, sizes: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise [n,C,h,w] and timesteps [n]. Half of the grids get one noise for all, as the pictures of an index do;
        a grid is at one timestep."""
        noise = torch.randn(shape, generator=generator)
        # one timestep from each of n equal slices of the schedule: the same distribution, less variance
        slices = torch.randperm(sizes[0], generator=generator) + torch.rand(sizes[0], generator=generator)
        timesteps = [(slices * len(self.scheduler.alphas_cumprod) / sizes[0]).long()]
        start = sizes[0]
        for size in sizes[1:]:
            timesteps.append(
                torch.randint(1, self.recipe.contrast_timestep + 1, (1,), generator=generator).expand(size)
            )
            if torch.rand((), generator=generator) < 0.5:
                noise[start : start + size] = noise[start]
            start += size
        return noise.to(self.device), torch.cat(timesteps).to(self.device)

    def train_step(self) -> Losses:
        """One batch; returns its losses."""
        started = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        losses = self.losses(draw_batch(self.pictures, self.recipe, self.step))
        torch.autograd.backward(losses.denoising + self.recipe.contrast_weight * (losses.subject + losses.style))
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.unet.parameters()), 1 - decay)
        self.step += 1
        self.seconds += time.monotonic() - started
        return losses

    def save_checkpoint(self, path: Path) -> None:
        """Save everything that the next step depends on, except the pictures."""
        state = {name: getattr(self, name).state_dict() for name in _STATEFUL}
        state |= {name: getattr(self, name) for name in ("prompt_embeds", "step", "seconds")}
        partial = path.with_suffix(".partial")
        state |= {"recipe": asdict(self.recipe), "scaling_factor": self.vae.config.scaling_factor}
        torch.save(state, partial)
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
        self.vae.register_to_config(scaling_factor=state["scaling_factor"])
        self.prompt_embeds, self.step, self.seconds = (state[name] for name in ("prompt_embeds", "step", "seconds"))
