"""The colour histogram in the form of a network, so that it is indexed, searched and combined like one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..colour import histogram
from ..projection import Projection
from ..settings import InvalidSpace, SpaceSettings, Tap
from .files import DTYPES, hash_files
from .network import Read, refuse_conditions


@dataclass(frozen=True)
class ColourNetwork:
    """See network.Network for what it does. weights: SHA-256 (hex) of the configuration; a later way to count colours
    gets another one."""

    folder: Path
    weights: str
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def load(cls, folder: Path, dtype: str, device: str) -> "ColourNetwork":
        return cls(folder, hash_files([], [folder / "config.json"]), DTYPES[dtype], torch.device(device))

    @property
    def variants(self) -> tuple[str, ...]:
        return ("global",)

    @property
    def layers(self) -> tuple[str, ...]:
        return ()

    def resolve(self, tap: Tap) -> Tap:
        raise InvalidSpace(f"Colours have no layers, so there is no {tap.module!r}; leave out --layer.")

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        refuse_conditions(self.folder, settings)
        return {}

    def projection(self, module: str) -> Projection:
        raise InvalidSpace(f"Colours have no layers, so there is no {module!r}; leave out --layer.")

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """On the CPU whatever the device: a picture takes less time than its way to a GPU."""
        found = [histogram(picture) for picture in pixels.cpu().numpy()]
        return {"histogram": torch.from_numpy(np.stack(found))}

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        return {}

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        return encoded["histogram"]
