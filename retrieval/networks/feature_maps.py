"""A frozen pretrained encoder whose feature maps are taps of their own, and the latents of a diffusion network, as in
representation autoencoders (arXiv 2510.11690); without a decoder, because no picture is ever generated here.

An encoder has no attention layers. At its taps queries, keys and values are the standardised map itself, averaged over
the grid of the deepest map: attention without trained parameters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import COPY_AGAIN, BadNetwork
from ..json_table import read_table
from ..projection import Projection
from .efficientnet_lite import CHANNELS, WEIGHTS, EfficientNetLite2

*LATENT_STRIDES, DEEPEST = CHANNELS
FACTOR = LATENT_STRIDES[-1]
"""Pixels per latent along one side."""

LATENT_CHANNELS = sum(CHANNELS[stride] for stride in LATENT_STRIDES)

LAYERS = {f"encoder.stride_{stride}": stride for stride in CHANNELS}
"""Taps by name, with the stride of their map in pixels."""

DEEPEST_CHANNELS = 192
"""Of the deepest map's tokens: nearly as good as all 352, at half the size."""

_WHITENING = 0.5
"""A component has standard deviation std ** (1 - _WHITENING)."""

_HEADS = 4

_SHARPNESS = {4: 1.0, 8: 1.0, 16: 1.0, 32: 0.3}
"""Factor of the queries: what a thing is, is best asked of large parts of the other picture at once."""

_STATISTICS = "model.safetensors"


@dataclass(frozen=True)
class Statistics:
    """What standardises the maps, from the pictures of a training; float32.

    latent_mean, latent_deviation: of each channel of the latents. deepest_mean: of each channel of the deepest map.
    deepest_basis: [channels, DEEPEST_CHANNELS], its principal components, half whitened, of standardised channels.
    """

    latent_mean: Tensor
    latent_deviation: Tensor
    deepest_mean: Tensor
    deepest_basis: Tensor

    @classmethod
    def fit(cls, latents: Tensor, deepest: Tensor) -> "Statistics":
        """Of sampled latents [pictures, channels, height, width] and places of the deepest map [places, channels],
        float32; more places than channels."""
        deviation, mean = torch.std_mean(deepest.double(), dim=0, correction=0)
        deviation = deviation.clamp(min=1e-6)
        variance, components = torch.linalg.eigh(((deepest.double() - mean) / deviation).T.cov())
        variance = variance.flip(0)[:DEEPEST_CHANNELS].clamp(min=1e-6)
        basis = components.flip(1)[:, :DEEPEST_CHANNELS] * variance ** (-_WHITENING / 2) / deviation[:, None]
        # The sign of an eigenvector is arbitrary: fixed, the same pictures always give the same basis.
        basis = basis * basis.sum(0).sign()
        deviations, means = torch.std_mean(latents, dim=(0, 2, 3), correction=0)
        return cls(means, deviations.clamp(min=1e-6), mean.float(), basis.float())

    def standardise(self, maps: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Latents [pictures, channels, height, width], and tokens of the deepest map [pictures, tokens, channels],
        float32, of the encoder's maps."""
        mean, deviation = (numbers[:, None, None] for numbers in (self.latent_mean, self.latent_deviation))
        deepest = maps[DEEPEST].float().flatten(2).transpose(1, 2)
        return (joined(maps) - mean) / deviation, (deepest - self.deepest_mean) @ self.deepest_basis

    def save(self, folder: Path) -> None:
        """Write a folder that `FeatureMaps.load` reads. The encoder's weights are not part of it."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": FeatureMaps.__name__, "encoder": WEIGHTS}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in vars(self).items()}, folder / _STATISTICS)

    @classmethod
    def load(cls, folder: Path, device: str) -> "Statistics":
        """Raises BadNetwork."""
        try:
            statistics = cls(**load_file(folder / _STATISTICS, device))
        except (OSError, TypeError, SafetensorError) as problem:
            raise BadNetwork(f"{folder / _STATISTICS} cannot be read ({problem}); {COPY_AGAIN}") from problem
        shapes = [tuple(numbers.shape) for numbers in vars(statistics).values()]
        if shapes != [
            (LATENT_CHANNELS,),
            (LATENT_CHANNELS,),
            (CHANNELS[DEEPEST],),
            (CHANNELS[DEEPEST], DEEPEST_CHANNELS),
        ]:
            raise BadNetwork(f"{folder / _STATISTICS} describes other feature maps; {COPY_AGAIN}")
        return statistics


@dataclass(frozen=True)
class FeatureMaps:
    """The encoder, in evaluation mode, and what standardises its maps."""

    encoder: EfficientNetLite2
    statistics: Statistics

    @classmethod
    def load(cls, folder: Path, precision: torch.dtype, device: str) -> "FeatureMaps":
        """Raises BadNetwork."""
        if read_table(folder / "config.json").get("encoder") != WEIGHTS:
            raise BadNetwork(f"{folder / 'config.json'} does not name an encoder that is known here; {COPY_AGAIN}")
        return cls(EfficientNetLite2.load(precision, device), Statistics.load(folder, device))

    @property
    def channels(self) -> int:
        return LATENT_CHANNELS

    @property
    def factor(self) -> int:
        return FACTOR

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(LAYERS)

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """`latents` [pictures, channels, height, width], and by layer the tokens of its tap [pictures, tokens,
        channels]; float32."""
        maps = self.encoder(pixels)
        latents, deepest = self.statistics.standardise(maps)
        parts = torch.split(latents, [CHANNELS[stride] for stride in LATENT_STRIDES], dim=1)
        finer = (_over_grid(part, maps[DEEPEST]).flatten(2).transpose(1, 2) for part in parts)
        return {"latents": latents, **dict(zip(LAYERS, (*finer, deepest), strict=True))}

    def sample(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Latents; an encoder has no distribution to draw them from."""
        return self.encode(pixels)["latents"]


def joined(maps: Mapping[int, Tensor]) -> Tensor:
    """The maps of LATENT_STRIDES as one, float32 [pictures, channels, height, width]: finer ones are averaged over the
    grid of the coarsest."""
    return torch.cat([_over_grid(maps[stride].float(), maps[FACTOR]) for stride in LATENT_STRIDES], dim=1)


def projection(layer: str) -> Projection:
    """Queries, keys and values are the tokens; the queries scaled."""
    stride = LAYERS[layer]
    identity = torch.eye(DEEPEST_CHANNELS if stride == DEEPEST else CHANNELS[stride])
    return Projection(_HEADS, (torch.cat([_SHARPNESS[stride] * identity, identity, identity]),), (None,))


def _over_grid(found: Tensor, coarser: Tensor) -> Tensor:
    """Averages of a map over the grid of a coarser one."""
    height, width = coarser.shape[2:]
    return F.adaptive_avg_pool2d(found, (height, width))
