"""The convolutional variational autoencoder of Stable Diffusion and DiT: pictures as latents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from ..json_table import read_table
from .files import load_component


@dataclass(frozen=True)
class Autoencoder:
    """model: diffusers' AutoencoderKL in evaluation mode."""

    model: Any

    @classmethod
    def load(cls, folder: Path, precision: torch.dtype, device: str) -> "Autoencoder":
        """Read a `vae/` folder. In float16, one whose configuration requests upcasting runs in bfloat16: SDXL's
        overflows in float16. Raises BadNetwork."""
        if precision is torch.float16 and read_table(folder / "config.json").get("force_upcast", False):
            precision = torch.bfloat16
        model = load_component(diffusers.AutoencoderKL, folder, precision)
        return cls(model.to(device).eval().requires_grad_(False))

    @property
    def channels(self) -> int:
        count: int = self.model.config.latent_channels
        return count

    @property
    def factor(self) -> int:
        side: int = 2 ** (len(self.model.config.block_out_channels) - 1)
        return side

    @property
    def layers(self) -> tuple[str, ...]:
        return ()

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """`latents`: the scaled mean of the posterior."""
        return {"latents": self.scaled(self.posterior(pixels).mean.float())}

    def sample(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Latents drawn from the posterior: its mean and its deviation times the noise, scaled."""
        posterior = self.posterior(pixels)
        return self.scaled(posterior.mean.float() + posterior.std.float() * noise)

    def posterior(self, pixels: Tensor) -> Any:
        """The distribution over unscaled latents."""
        pictures = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.model.encode(pictures.to(self.model.dtype)).latent_dist

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as the denoising network was trained on them."""
        shift: float = getattr(self.model.config, "shift_factor", None) or 0.0
        scale: float = self.model.config.scaling_factor
        return (latents - shift) * scale
