"""Stable Diffusion's layout: a U-Net with its autoencoder, noise schedule and (perhaps) text encoder and IP-Adapter.

Components, not pipelines: `unet/` and `scheduler/` by diffusers' own classes, `vae/` by diffusers' or by our small
PatchAutoencoder, chosen by `_class_name` from a closed table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from ..kit import Projection
from ..space import Tap
from .files import DTYPES, BadNetwork, hash_files, load_component, weight_files
from .ip_adapter import IPAdapter
from .latents import Latents
from .network import BadSize, Read, TapPlace
from .prompts import prompt_embedding
from .taps import block_attentions, hidden_states, resolve_module, run_to_taps

_FOREIGN_CONDITIONING = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "num_class_embeds")
"""Settings of U-Nets that want more than latents, timestep and prompt; SDXL has the first."""


@dataclass(frozen=True)
class UNetNetwork:
    """A loaded U-Net in evaluation mode; see network.Network for what it does.

    unet: diffusers' UNet2DConditionModel. adapter: where there is one, the cross-attentions are read (DiffSim-C), else
    the self-attentions (DiffSim-S).
    weights: SHA-256 (hex) of the weights of U-Net, autoencoder, text encoder and adapter, of what their configurations
    and the scheduler's say, and of the tokenizer or the stored conditioning.
    """

    folder: Path
    unet: Any
    latents: Latents
    adapter: IPAdapter | None
    weights: str
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def load(cls, folder: Path, dtype: str, device: str, adapter: str = "") -> "UNetNetwork":
        """Read the folder's components. Raises BadNetwork, which names the file that is wrong."""
        precision = DTYPES[dtype]
        unet = load_component(diffusers.UNet2DConditionModel, folder / "unet", precision)
        foreign = [setting for setting in _FOREIGN_CONDITIONING if unet.config.get(setting)]
        if foreign:
            raise BadNetwork(
                f"The network in {folder} wants more than a prompt ({', '.join(foreign)}), which is not supported yet; "
                "use a Stable Diffusion 1.x or 2.x network."
            )
        latents = Latents.load(folder, precision, device)
        if unet.config.in_channels != latents.channels:
            raise BadNetwork(
                f"The U-Net in {folder} takes {unet.config.in_channels} channels where its autoencoder makes "
                f"{latents.channels}; inpainting, depth and upscaling networks are not supported."
            )
        weights = _hash_weights(folder)
        installed = None
        if adapter:
            installed = IPAdapter.install(unet, Path(adapter), folder, precision, device)
            weights = f"{weights}+{installed.weights}"
        unet = unet.to(device).eval().requires_grad_(False)
        return cls(folder, unet, latents, installed, weights, precision, torch.device(device))

    @property
    def variants(self) -> tuple[str, ...]:
        return ("C",) if self.adapter else ("S",)

    def resolve(self, tap: Tap) -> Tap:
        kind = "attn2" if self.adapter else "attn1"
        return replace(tap, module=resolve_module(block_attentions(self.unet, kind), tap.module))

    def constants(self, *, size: int, prompt: str, seed: int, noises: int) -> dict[str, Tensor]:
        side = self._side(size)
        constants = {"conditioning": prompt_embedding(self.folder, prompt, self.unet.config.cross_attention_dim)}
        if noises:
            shape = (noises, self.latents.channels, side, side)
            constants["noise"] = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
        return constants

    def projection(self, module: str) -> Projection:
        attention = self.unet.get_submodule(module)
        if self.adapter is None:
            return Projection.of(attention, attention.to_q, attention.to_k, attention.to_v)
        processor = attention.processor
        return Projection.of(attention, attention.to_q, processor.to_k_ip[0], processor.to_v_ip[0], cross=True)

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError("a U-Net has no global embedding")

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        encoded = {"latents": self.latents.encode(pixels)}
        if self.adapter:
            encoded["image"] = self.adapter.see(pixels)
        return encoded

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        found: Read = {}
        latents, image = encoded["latents"], encoded.get("image")
        for timestep in sorted({tap.timestep for tap in taps}):
            modules = sorted({tap.module for tap in taps if tap.timestep == timestep})
            passes = []
            for noise in constants.get("noise", (None,)):
                noisy = latents if noise is None else self.latents.noised(latents, noise, timestep)
                passes.append(self.enter(modules, noisy, timestep, constants["conditioning"], image))
            for module in modules:
                over_noises = zip(*(done[module] for done in passes), strict=True)
                found[TapPlace(module, timestep)] = tuple(torch.stack(each).mean(0) for each in over_noises)
        return found

    def enter(
        self, modules: Sequence[str], noisy: Tensor, timestep: int, words: Tensor, image: Tensor | None
    ) -> dict[str, tuple[Tensor, ...]]:
        """What enters each of the modules: the tokens [pictures, tokens, channels], float32, and for cross-attentions
        the image tokens [pictures, image tokens, channels] too.

        noisy: [pictures, channels, height, width]. words: [1 or pictures, words, channels]. image: IPAdapter.see's.
        """

        def forward() -> None:
            more = {} if image is None else {"image_embeds": [image]}
            self.unet(
                noisy.to(self.dtype),
                timestep,
                encoder_hidden_states=words.to(self.dtype).expand(len(noisy), -1, -1),
                added_cond_kwargs=more,
            )

        inputs: dict[str, tuple[Tensor, ...]] = {}
        for module, entered in run_to_taps(self.unet, modules, forward).items():
            tokens = [hidden_states(entered)]
            if image is not None:
                tokens.append(entered[1]["encoder_hidden_states"][1][0].flatten(1, 2))
            inputs[module] = tuple(each.float() for each in tokens)
        return inputs

    def _side(self, size: int) -> int:
        """Latents along the side of a picture; raises BadSize."""
        unit = self.latents.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if size < unit or size % unit:
            raise BadSize(f"The picture size {size} does not suit this network; choose a multiple of {unit}.")
        return size // self.latents.factor


def _hash_weights(folder: Path) -> str:
    parts = [folder / part for part in ("unet", "vae", "text_encoder")]
    tokenizer = sorted((folder / "tokenizer").glob("*.json")) + sorted((folder / "tokenizer").glob("*.txt"))
    weights = [path for part in parts for path in weight_files(part)[1]]
    return hash_files(
        [*weights, *tokenizer, folder / "conditioning.safetensors"],
        [part / "config.json" for part in parts] + [folder / "scheduler" / "scheduler_config.json"],
    )
