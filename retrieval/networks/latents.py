"""The latent part of a diffusion network: its autoencoder, its noise schedule, and reading taps over noises."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from ..errors import COPY_AGAIN, BadNetwork
from ..json_table import read_table
from ..settings import SpaceSettings, Tap
from .autoencoder import Autoencoder
from .feature_maps import FeatureMaps
from .files import first_line
from .network import BadSize, Read, TapPlace

AUTOENCODERS: dict[str, type[Autoencoder] | type[FeatureMaps]] = {
    "AutoencoderKL": Autoencoder,
    "FeatureMaps": FeatureMaps,
}

Enter = Callable[[Sequence[str], Tensor, int], dict[str, tuple[Tensor, ...]]]
"""Modules, latents [pictures, channels, height, width] and timestep -> what enters each of the modules."""


@dataclass(frozen=True)
class Latents:
    """An autoencoder and alphas_cumprod [1000], float64: the share of the picture's variance at each DDPM timestep."""

    autoencoder: Autoencoder | FeatureMaps
    signal: Tensor

    @classmethod
    def load(cls, folder: Path, precision: torch.dtype, device: str) -> "Latents":
        """Read `vae/` and `scheduler/`. Raises BadNetwork."""
        name = read_table(folder / "vae" / "config.json").get("_class_name")
        if name not in AUTOENCODERS:
            raise BadNetwork(
                f"The autoencoder class {name!r} in {folder / 'vae'} is not supported; "
                f"it must be one of {', '.join(AUTOENCODERS)}."
            )
        return cls(AUTOENCODERS[name].load(folder / "vae", precision, device), _load_signal(folder / "scheduler"))

    def noised(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Latents at a noise level: sqrt(alpha_bar) x latents + sqrt(1 - alpha_bar) x noise."""
        share = float(self.signal[timestep])
        return math.sqrt(share) * latents + math.sqrt(1 - share) * noise

    def side(self, size: int, unit: int) -> int:
        """Latents along one side of a picture; raises BadSize if `size` is not a multiple of `unit` latents."""
        pixels = self.autoencoder.factor * unit
        if size < pixels or size % pixels:
            raise BadSize(f"The picture size {size} does not suit this network; choose a multiple of {pixels}.")
        return size // self.autoencoder.factor

    def draw(self, settings: SpaceSettings, unit: int) -> dict[str, Tensor]:
        """`noise` [noises, channels, side, side], drawn on the CPU from the seed; an empty dictionary for 0 noises.

        unit: as in `side`. Raises BadSize.
        """
        side = self.side(settings.size, unit)
        if not settings.noises:
            return {}
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        return {"noise": torch.randn((settings.noises, self.autoencoder.channels, side, side), generator=generator)}

    def read(self, latents: Tensor, taps: Sequence[Tap], noises: Tensor | None, enter: Enter) -> Read:
        """One pass of `enter` per timestep and noise collects all its taps; returns the mean over the noises of what
        entered. Without noises the network sees the clean picture, and the timestep is only a condition."""
        found: Read = {}
        for timestep in sorted({tap.timestep for tap in taps}):
            modules = sorted({tap.module for tap in taps if tap.timestep == timestep})
            levels = [latents] if noises is None else [self.noised(latents, noise, timestep) for noise in noises]
            passes = [enter(modules, level, timestep) for level in levels]
            for module in modules:
                over_noises = zip(*(done[module] for done in passes), strict=True)
                found[TapPlace(module, timestep)] = tuple(torch.stack(each).mean(0) for each in over_noises)
        return found


def _load_signal(folder: Path) -> Tensor:
    path = folder / "scheduler_config.json"
    config = read_table(path)
    try:
        scheduler_class = getattr(diffusers, str(config.get("_class_name")))
        signal: Tensor = scheduler_class.from_config(config).alphas_cumprod.double()
    except (AttributeError, ImportError, RuntimeError, TypeError, ValueError) as problem:
        raise BadNetwork(
            f"{path} describes no noise schedule with alphas_cumprod ({first_line(problem)}); {COPY_AGAIN}"
        ) from problem
    if len(signal) != 1000:
        raise BadNetwork(f"{path} has {len(signal)} timesteps; a network trained with 1000 is needed.")
    return signal
