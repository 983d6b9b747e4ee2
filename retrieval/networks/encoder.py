"""A pretrained encoder without a diffusion network: its feature maps are the taps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..projection import Projection
from ..settings import SpaceSettings, Tap
from . import feature_maps
from .feature_maps import DEEPEST, LAYERS, FeatureMaps
from .files import DTYPES, hash_files, weight_files
from .network import BadSize, Read, TapPlace, refuse_conditions, refuse_timestep
from .taps import resolve_module


@dataclass(frozen=True)
class EncoderNetwork:
    """A loaded encoder; see network.Network for what it does. weights: SHA-256 (hex) of its statistics and of its
    configuration, which names the encoder's weights by their hash."""

    folder: Path
    maps: FeatureMaps
    weights: str
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def load(cls, folder: Path, dtype: str, device: str) -> "EncoderNetwork":
        """Raises BadNetwork."""
        maps = FeatureMaps.load(folder, DTYPES[dtype], device)
        weights = hash_files(weight_files(folder)[1], [folder / "config.json"])
        return cls(folder, maps, weights, DTYPES[dtype], torch.device(device))

    @property
    def variants(self) -> tuple[str, ...]:
        return ("S", "global")

    @property
    def layers(self) -> tuple[str, ...]:
        return self.maps.layers

    def resolve(self, tap: Tap) -> Tap:
        refuse_timestep(self.folder, tap)
        return replace(tap, module=resolve_module(self.layers, tap.module))

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        refuse_conditions(self.folder, settings)
        if settings.size < DEEPEST or settings.size % DEEPEST:
            raise BadSize(
                f"The picture size {settings.size} does not suit this network; choose a multiple of {DEEPEST}."
            )
        return {}

    def projection(self, module: str) -> Projection:
        return feature_maps.projection(module)

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        return self.maps.encode(pixels)

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        return {TapPlace(tap.module, 0): (encoded[tap.module],) for tap in taps}

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        """The mean of the standardised deepest map."""
        deepest = next(name for name, stride in LAYERS.items() if stride == DEEPEST)
        return encoded[deepest].mean(1)
