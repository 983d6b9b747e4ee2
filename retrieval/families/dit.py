"""DiT: diffusion transformers over patches of latents, in diffusers' layout."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..json_table import read_table
from .family import Family
from .preset import Preset, released

if TYPE_CHECKING:
    from ..networks import Network

_LATENTS, _LAYERS = 32, 28
"""Values that the configuration of DiT-XL/2 at 256 pixels leaves out."""


def matches(folder: Path) -> bool:
    return (folder / "transformer").is_dir()  # loading reports what the configuration lacks


def defaults(folder: Path) -> Preset:
    """The middle layer, at the training size: eight pixels per latent."""
    config = read_table(folder / "transformer" / "config.json", {})
    layer = int(config.get("num_layers") or _LAYERS) // 2
    return Preset(8 * int(config.get("sample_size") or _LATENTS), released(f"transformer_blocks.{layer}"))


def load(folder: Path, dtype: str, device: str, adapter: str) -> "Network":
    from ..networks.dit import DitNetwork

    return DitNetwork.load(folder, dtype, device)


_DIT_XL = Preset(
    256,
    released("transformer_blocks.14"),
    name="dit-xl-2-256",
    about="DiT-XL/2, a diffusion transformer trained on ImageNet, for kinds of things",
    local_only="facebook/DiT-XL-2-256 holds its weights as pickles, which are never loaded; save them as safetensors "
    "with diffusers' DiTPipeline.save_pretrained",
    work=394,
)

FAMILY = Family("dit", "transformer/config.json", matches, defaults, load, presets=(_DIT_XL,))
