"""Stable Diffusion's layout, 1.x, 2.x and XL: a U-Net with its autoencoder, noise schedule and, optionally, text
encoders and IP-Adapter.

Components, not pipelines: `unet/` and `scheduler/` use diffusers' classes, `vae/` diffusers' or our small
PatchAutoencoder, chosen by `_class_name` from a closed table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from ..errors import BadNetwork
from ..projection import Projection
from ..settings import SpaceSettings, Tap
from . import feature_maps
from .files import DTYPES, hash_network, load_component
from .ip_adapter import IPAdapter
from .latents import Latents
from .network import Read, TapPlace
from .prompts import embed_prompt
from .taps import block_attentions, hidden_states, resolve_module, run_to_taps, shortest

_FOREIGN_CONDITIONING = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "num_class_embeds")
"""Settings of U-Nets that need more than latents, timestep and prompt."""

_SDXL = "text_time"
"""SDXL's addition_embed_type: the pooled embedding of the prompt, and six numbers about the picture's size."""

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class UNetNetwork:
    """A loaded U-Net in evaluation mode; see network.Network for what it does.

    unet: diffusers' UNet2DConditionModel. adapter: with one, the cross-attentions are read (DiffSim-C), else
    the self-attentions (DiffSim-S).
    weights: SHA-256 (hex) of the weights of U-Net, autoencoder, text encoders and adapter, of their configurations and
    the scheduler's, and of the tokenizers or the stored conditioning.
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
        """Read the folder's components. Raises BadNetwork, which names the faulty file."""
        precision = DTYPES[dtype]
        unet = load_component(diffusers.UNet2DConditionModel, folder / "unet", precision)
        foreign = [setting for setting in _FOREIGN_CONDITIONING if unet.config.get(setting) not in (None, _SDXL)]
        if foreign:
            raise BadNetwork(
                f"The network in {folder} needs more than a prompt ({', '.join(foreign)}), which is not supported yet; "
                "use a Stable Diffusion 1.x, 2.x or XL network."
            )
        latents = Latents.load(folder, precision, device)
        if unet.config.in_channels != latents.autoencoder.channels:
            raise BadNetwork(
                f"The U-Net in {folder} takes {unet.config.in_channels} channels where its autoencoder makes "
                f"{latents.autoencoder.channels}; inpainting, depth and upscaling networks are not supported."
            )
        weights = hash_network(folder, _PARTS)
        installed = None
        if adapter:
            installed = IPAdapter.install(unet, Path(adapter), folder, precision, device)
            weights = f"{weights}+{installed.weights}"
        unet = unet.to(device).eval().requires_grad_(False)
        return cls(folder, unet, latents, installed, weights, precision, torch.device(device))

    @property
    def is_sdxl(self) -> bool:
        return bool(self.unet.config.addition_embed_type == _SDXL)

    @property
    def variants(self) -> tuple[str, ...]:
        return ("C",) if self.adapter else ("S",)

    @property
    def layers(self) -> tuple[str, ...]:
        valid = self._attentions()
        own = sorted((shortest(name, valid) for name in valid), key=lambda name: name[0])  # down, mid, up
        return (*self.latents.autoencoder.layers, *own)

    def resolve(self, tap: Tap) -> Tap:
        if tap.module in self.latents.autoencoder.layers:
            return replace(tap, timestep=0)  # before any noise
        return replace(tap, module=resolve_module(self._attentions(), tap.module))

    def _attentions(self) -> list[str]:
        return block_attentions(self.unet, "attn2" if self.adapter else "attn1")

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        noise = self.latents.draw(settings, 1)  # odd numbers of latents too: upsampling restores the sizes
        channels = self.unet.config.cross_attention_dim
        if not self.is_sdxl:
            return noise | embed_prompt(self.folder, settings.prompt, channels)
        # The original size, the position of the crop, and the target size: here all of them are the true values.
        side = settings.size
        time_ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
        of_size = time_ids.shape[1] * self.unet.config.addition_time_embed_dim
        pooled_channels = self.unet.config.projection_class_embeddings_input_dim - of_size
        embedded = embed_prompt(self.folder, settings.prompt, channels, pooled_channels)
        return noise | embedded | {"time_ids": time_ids}

    def projection(self, module: str) -> Projection:
        if module in self.latents.autoencoder.layers:
            return feature_maps.projection(module)
        attention = self.unet.get_submodule(module)
        if self.adapter is None:
            return Projection.of(attention, attention.to_q, attention.to_k, attention.to_v)
        processor = attention.processor
        return Projection.of(attention, attention.to_q, processor.to_k_ip[0], processor.to_v_ip[0], cross=True)

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError("a U-Net has no global embedding")

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        encoded = self.latents.autoencoder.encode(pixels)
        if self.adapter:
            encoded["image"] = self.adapter.see(pixels)
        return encoded

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        def enter(modules: Sequence[str], noisy: Tensor, timestep: int) -> dict[str, tuple[Tensor, ...]]:
            return self.enter(modules, noisy, timestep, constants, encoded.get("image"))

        of_encoder = {tap.module for tap in taps} & set(self.latents.autoencoder.layers)
        found: Read = {TapPlace(module, 0): (encoded[module],) for module in of_encoder}
        rest = [tap for tap in taps if tap.module not in of_encoder]
        return found | self.latents.read(encoded["latents"], rest, constants.get("noise"), enter)

    def enter(
        self,
        modules: Sequence[str],
        noisy: Tensor,
        timestep: int,
        constants: dict[str, Tensor],
        image: Tensor | None,
    ) -> dict[str, tuple[Tensor, ...]]:
        """What enters each of the modules: the tokens [pictures, tokens, channels], float32, and for cross-attentions
        also the image tokens [pictures, image tokens, channels].

        noisy: [pictures, channels, height, width]. constants: `conditioning` [1 or pictures, words, channels] and for
        SDXL `pooled` [1, channels] and `time_ids` [1, 6]. image: from IPAdapter.see.
        """
        pictures = len(noisy)
        more: dict[str, Any] = {} if image is None else {"image_embeds": [image]}
        if self.is_sdxl:
            more["text_embeds"] = constants["pooled"].to(self.dtype).expand(pictures, -1)
            more["time_ids"] = constants["time_ids"].expand(pictures, -1)

        def forward() -> None:
            self.unet(
                noisy.to(self.dtype),
                timestep,
                encoder_hidden_states=constants["conditioning"].to(self.dtype).expand(pictures, -1, -1),
                added_cond_kwargs=more,
            )

        inputs: dict[str, tuple[Tensor, ...]] = {}
        for module, entered in run_to_taps(self.unet, modules, forward).items():
            tokens = [hidden_states(entered)]
            if image is not None:
                tokens.append(entered[1]["encoder_hidden_states"][1][0].flatten(1, 2))
            inputs[module] = tuple(each.float() for each in tokens)
        return inputs
