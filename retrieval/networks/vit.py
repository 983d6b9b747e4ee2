"""Vision transformers in the layout of transformers: CLIP, SigLIP, DINOv2 (with and without registers), DINOv3.

CLIP-AAS and DINOv2-AAS are the same score on a layer's own queries, keys and values, computed from the output of its
first LayerNorm. (DiffSim's released code feeds CLIP's projections the residual stream before that norm.) All tokens
are kept, including the class token and registers, as in the released code: they are a few of many.

A layer is called `layers.N` here, independent of module names in releases of transformers: the name is part of every
feature space and must outlive them.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from ..json_table import read_table
from ..projection import Projection
from ..settings import SpaceSettings, Tap
from .files import DTYPES, hash_files, load_component, weight_files
from .network import BadSize, EmbeddedText, Read, TapPlace, refuse_conditions, refuse_timestep
from .taps import hidden_states, resolve_module, run_to_taps
from .text_tower import TextTower, tokenizer_hash

if TYPE_CHECKING:
    from ..families.vision_transformer import VisionSettings

_LOADERS = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
"""Classes of transformers by `model_type`."""

_INTERPOLATING = ("clip", "siglip")
"""Kinds that interpolate their positions on request; the others always do."""

_LINEAR = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
"""Names of an attention's projections in releases of transformers."""

_LAYER = re.compile(r"(?:.*\.)?layers?\.([0-9]+)(?:\..*)?")
"""A layer by its module's name: `layers.5`, `encoder.layer.5`, `vision_model.encoder.layers.5.self_attn`, ..."""


@dataclass(frozen=True)
class VitNetwork:
    """A loaded vision transformer in evaluation mode; see network.Network for what it does.

    model: one of _LOADERS' classes. attentions: by our name of the layer, the module's name in the model.
    weights: SHA-256 (hex) of the weights, the text tower's included, of config.json's entries, and of the mean and
    deviation of RGB. text: as in network.TextNetwork.
    """

    folder: Path
    model: Any
    settings: "VisionSettings"
    attentions: dict[str, str]
    weights: str
    dtype: torch.dtype
    device: torch.device
    text: str

    @classmethod
    def load(cls, folder: Path, settings: "VisionSettings", dtype: str, device: str) -> "VitNetwork":
        """Read the folder. Raises BadNetwork, which names the faulty file."""
        config = read_table(folder / "config.json")
        if (folder / "preprocessor_config.json").exists():
            read_table(folder / "preprocessor_config.json")
        headless = config.get("architectures") == ["CLIPVisionModel"]  # without the projection
        loader = getattr(transformers, "CLIPVisionModel" if headless else _LOADERS[settings.kind])
        if settings.kind in ("clip", "siglip"):
            # The text part of such a checkpoint is not loaded here, which transformers would report in some 200 lines.
            loader = type(loader.__name__, (loader,), {"_keys_to_ignore_on_load_unexpected": ["^text_", "^logit_"]})
        model = load_component(loader, folder, DTYPES[dtype])
        names = [name for name, module in model.named_modules() if _linear_names(module)]
        attentions = {f"layers.{number}": name for number, name in enumerate(names)}
        shown = f"{settings.mean} {settings.std}"
        files = hash_files(weight_files(folder)[1], [folder / "config.json"])
        weights = hashlib.sha256(f"{files} {shown}".encode()).hexdigest()
        model = model.to(device).eval().requires_grad_(False)
        text = tokenizer_hash(folder, settings.kind)
        return cls(folder, model, settings, attentions, weights, DTYPES[dtype], torch.device(device), text)

    @property
    def variants(self) -> tuple[str, ...]:
        headless = isinstance(self.model, transformers.CLIPVisionModel)
        embeds = not headless and getattr(self.model.config, "vision_use_head", True)
        return ("S", "global") if embeds else ("S",)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.attentions)

    def resolve(self, tap: Tap) -> Tap:
        refuse_timestep(self.folder, tap)
        found = _LAYER.fullmatch(tap.module)
        name = f"layers.{int(found[1])}" if found else tap.module
        return replace(tap, module=resolve_module(self.layers, name))

    def constants(self, settings: SpaceSettings) -> dict[str, Tensor]:
        refuse_conditions(self.folder, settings)
        patch = self.model.config.patch_size
        if settings.size < patch or settings.size % patch:
            raise BadSize(f"The picture size {settings.size} does not suit this network; choose a multiple of {patch}.")
        if self.settings.kind != "dinov3_vit":
            return {}
        return {"rotary": self._rotary(settings.size)}

    def projection(self, module: str) -> Projection:
        attention = self.model.get_submodule(self.attentions[module])
        layers = tuple(getattr(attention, name) for name in _linear_names(attention))
        return Projection.of_layers(self.model.config.num_attention_heads, [layers])

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        pictures = pixels.permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=pixels.device).view(3, 1, 1)
            for values in (self.settings.mean, self.settings.std)
        )
        return {"pictures": ((pictures - mean) / std).to(self.dtype)}

    def read(self, encoded: dict[str, Tensor], taps: Sequence[Tap], constants: dict[str, Tensor]) -> Read:
        modules = {tap.module: self.attentions[tap.module] for tap in taps}
        entered = run_to_taps(self.model, modules.values(), lambda: self._forward(encoded))
        return {TapPlace(name, 0): (hidden_states(entered[module]).float(),) for name, module in modules.items()}

    def embed(self, encoded: dict[str, Tensor]) -> Tensor:
        """CLIP's projected image embedding, SigLIP's pooled one, DINO's class token after the last LayerNorm."""
        output = self._forward(encoded)
        embedding: Tensor = output.image_embeds if "image_embeds" in output else output.pooler_output
        return embedding.float()

    def embed_text(self, text: str) -> EmbeddedText:
        return self._text_tower.embed(text)

    @cached_property
    def _text_tower(self) -> TextTower:
        return TextTower.load(self.folder, self.settings.kind, self.dtype, self.device)

    def _forward(self, encoded: dict[str, Tensor]) -> Any:
        interpolate = self.settings.kind.startswith(_INTERPOLATING)
        more = {"interpolate_pos_encoding": True} if interpolate else {}
        return self.model(pixel_values=encoded["pictures"], **more)

    def _rotary(self, size: int) -> Tensor:
        """Cosine and sine for every token, [2, tokens, head_dim], float32; class token and registers are not turned."""
        config = self.model.config
        # A new module, because the loaded one's frequencies may have been rounded to half precision.
        rotary = type(self.model.rope_embeddings)(config).eval()
        turned = torch.stack(rotary(torch.zeros(1, 3, size, size)))
        still = torch.zeros(2, 1 + config.num_register_tokens, turned.shape[2])
        still[0] = 1
        return torch.cat([still, turned], dim=1)


def _linear_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a module's three projections if it is a self-attention, else empty."""
    return next(
        (names for names in _LINEAR if all(isinstance(getattr(module, name, None), nn.Linear) for name in names)), ()
    )
