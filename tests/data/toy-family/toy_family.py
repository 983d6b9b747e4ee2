"""A network family for diffsim-search: one self-attention over square patches of pixels."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsim.retrieval.families import Family, Preset
from diffsim.retrieval.settings import Tap

FILE, SIDE, HEADS = "patches.safetensors", 8, 4  # the file holds `qkv`, float32 [3 x inner, 3 x SIDE x SIDE]


@dataclass(frozen=True)
class PatchNetwork:
    folder: Path
    weights: str
    dtype: Any
    device: Any
    qkv: Any
    variants = ("S", "global")
    layers = ("patches",)

    def resolve(self, tap):
        from diffsim.retrieval.networks.taps import resolve_module

        return Tap(resolve_module(self.layers, tap.module), tap.timestep)

    def constants(self, settings):
        return {}

    def projection(self, module):
        from diffsim.retrieval.projection import Projection

        return Projection(HEADS, weights=(self.qkv,), biases=(None,))

    def encode(self, pixels):
        from torch.nn.functional import unfold

        pictures = pixels.permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1
        return {"patches": unfold(pictures, SIDE, stride=SIDE).transpose(1, 2)}

    def read(self, encoded, taps, constants):
        from diffsim.retrieval.networks import TapPlace

        return {TapPlace(tap.module, tap.timestep): (encoded["patches"].float(),) for tap in taps}

    def embed(self, encoded):
        return encoded["patches"].float().mean(1)


def load(folder, dtype, device, adapter):
    import torch
    from safetensors.torch import load_file

    weights = FAMILY.stamped(hashlib.sha256((folder / FILE).read_bytes()).hexdigest())
    qkv = load_file(folder / FILE)["qkv"]
    return PatchNetwork(folder, weights, getattr(torch, dtype), torch.device(device), qkv)


FAMILY = Family(
    name="patches",
    layout=FILE,
    matches=lambda folder: (folder / FILE).is_file(),
    defaults=lambda folder: Preset(size=64, profiles={"look": (Tap("patches", 0),)}, noises=0),
    load=load,
    variants=("S", "global"),
)
