"""Vision transformers of every family in their real layout, with narrow layers and seeded random weights."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

_COMMON = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
_PATCHES = _COMMON | {"image_size": 32, "patch_size": 8}
_TWIN = _PATCHES | {"intermediate_size": 48}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": (
        "CLIPModel",
        {"vision_config": _TWIN | {"projection_dim": 20}, "text_config": _TEXT, "projection_dim": 20},
    ),
    "clip-vision": ("CLIPVisionModelWithProjection", _TWIN | {"projection_dim": 20}),
    "clip-headless": ("CLIPVisionModel", _TWIN),
    "siglip": ("SiglipModel", {"vision_config": _TWIN, "text_config": _TEXT}),
    "siglip-vision": ("SiglipVisionModel", _TWIN),
    "dinov2": ("Dinov2Model", _PATCHES | {"mlp_ratio": 2}),
    "dinov2-registers": ("Dinov2WithRegistersModel", _PATCHES | {"mlp_ratio": 2, "num_register_tokens": 2}),
    "dinov3": ("DINOv3ViTModel", _TWIN | {"num_register_tokens": 2}),
}
"""Class of transformers and its settings; 16 patches at 32 pixels."""

PREPROCESSING = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "size": {"shortest_edge": 36},
}


def make_vit(folder: Path, name: str, preprocessing: dict[str, Any] | None = None) -> Path:
    """Save a network into the folder, in the layout of transformers."""
    torch.manual_seed(5)
    loader, settings = MODELS[name]
    kind: Any = getattr(transformers, loader)
    model = kind(kind.config_class(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)  # no bias stays 0, no norm 1, no attention flat
    model.save_pretrained(folder)
    if preprocessing is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder
