"""DiT: a transformer over patches of latents, with its autoencoder and noise schedule, in diffusers' layout.

It was trained on classes of pictures. Here pictures are read without a class, as the null class of its training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from ..errors import BadNetwork
from ..json_table import read_table
from ..projection import Projection
from ..settings import SpaceSettings, Tap
from .files import DTYPES, hash_network, load_component
from .latents import Latents
from .network import Read
from .taps import block_attentions, hidden_states, resolve_module, run_to_taps, shortest

_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
"""Its class names in configurations, now and in the networks on the hub."""


@dataclass(frozen=True)
class DitNetwork:
    """A loaded DiT in evaluation mode; see network.Network for what it does.

    transformer: diffusers' DiTTransformer2DModel. weights: SHA-256 (hex) of the weights of transformer and autoencoder
    and of their configurations and the scheduler's.
    """

    folder: Path
    transformer: Any
    latents: Latents
    weights: str
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def load(cls, folder: Path, dtype: str, device: str) -> "DitNetwork":
        """Read the folder's components. Raises BadNetwork, which names the faulty file."""
        config = read_table(folder / "transformer" / "config.json")
        if config.get("_class_name") not in _CLASSES or config.get("norm_type") != "ada_norm_zero":
            raise BadNetwork(
                f"The transformer in {folder} ({config.get('_class_name')}) is not a DiT; of the diffusion "
                f"transformers only {_CLASSES[0]} is supported."
            )
        precision = DTYPES[dtype]
        transformer = load_component(diffusers.DiTTransformer2DModel, folder / "transformer", precision)
        latents = Latents.load(folder, precision, device)
        if transformer.config.in_channels != latents.autoencoder.channels:
            raise BadNetwork(
                f"The transformer in {folder} takes {transformer.config.in_channels} channels where its autoencoder "
                f"makes {latents.autoencoder.channels}."
            )
        transformer = transformer.to(device).eval().requires_grad_(False)
        weights = hash_network(folder, ("transformer", "vae"))
        return cls(folder, transformer, latents, weights, precision, torch.device(device))

    @property
    def variants(self) -> tuple[str, ...]:
        return ("S",)

    @property
    def layers(self) -> tuple[str, ...]:
        valid = block_attentions(self.transformer, "attn1")
        return tuple(shortest(name, valid) for name in valid)

    def resolve(self, tap: Tap) -> Tap:
        return replace(tap, module=resolve_module(block_attentions(self.transformer, "attn1"), tap.module))

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        """The noise only: there is no prompt, and the null class is the network's own. Any whole number of patches is
        accepted; the positions of a grid of another size than in training are spread over the same range."""
        return self.latents.draw(settings, self.transformer.config.patch_size)

    def projection(self, module: str) -> Projection:
        attention = self.transformer.get_submodule(module)
        return Projection.of(attention, attention.to_q, attention.to_k, attention.to_v)

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        return self.latents.autoencoder.encode(pixels)

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        return self.latents.read(encoded["latents"], taps, constants.get("noise"), self._enter)

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError("a DiT has no global embedding")

    def _enter(self, modules: Sequence[str], noisy: Tensor, timestep: int) -> dict[str, tuple[Tensor, ...]]:
        def forward() -> None:
            each = torch.ones(len(noisy), dtype=torch.long, device=noisy.device)
            null = self.transformer.config.num_embeds_ada_norm
            self.transformer(noisy.to(self.dtype), timestep=each * timestep, class_labels=each * null)

        entered = run_to_taps(self.transformer, modules, forward)
        return {module: (hidden_states(arguments).float(),) for module, arguments in entered.items()}
