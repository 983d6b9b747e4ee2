"""How vision transformers are shown pictures, from config.json and preprocessor_config.json. No torch: see presets."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RetrievalError


class BadPreprocessing(RetrievalError):
    """A folder says how pictures are prepared in a way that is not understood here."""


@dataclass(frozen=True)
class VisionSettings:
    """A vision transformer's folder. kind: `model_type` in config.json. depth: encoder layers.

    size, fit: as in FeatureSpace, the network's own way. mean, std: of RGB, in [0, 1].
    """

    kind: str
    depth: int
    size: int
    fit: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class _Family:
    """What holds where there is no preprocessor_config.json. size, short: None is the network's own image size; short:
    of the side before the middle is cut out, 0 where the picture is squashed."""

    size: int | None
    short: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = _Family(None, None, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SIGLIP = _Family(None, 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_DINOV2 = _Family(224, 256, *_IMAGENET)  # not its image size: that is 518, of the last stage of its training

_FAMILIES = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_vit": _Family(224, 0, *_IMAGENET),
}

KINDS = tuple(_FAMILIES)
"""Kinds of vision transformers that can be read."""


def vision_settings(folder: Path) -> VisionSettings | None:
    """How a vision transformer's folder wants its pictures; None for another folder. Raises BadPreprocessing."""
    config = _table(folder / "config.json")
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        return None
    family = _FAMILIES[kind]
    # transformers leaves out of the file what equals its defaults: 12 layers and 224 pixels in all these families.
    vision = config.get("vision_config", config)
    shown = _table(folder / "preprocessor_config.json")
    try:
        own, depth = _side(vision.get("image_size", 224)), _side(vision.get("num_hidden_layers", 12))
        size = own if family.size is None else family.size
        short = own if family.short is None else family.short
        if shown.get("do_center_crop", bool(short)):
            size, short = _side(shown.get("crop_size", size)), _side(shown.get("size", short or size))
        else:
            size, short = _side(shown.get("size", size)), 0
        mean, std = _rgb(shown.get("image_mean", family.mean)), _rgb(shown.get("image_std", family.std))
    except (AttributeError, TypeError, ValueError) as problem:
        raise BadPreprocessing(
            f"The network in {folder} asks for pictures in a way that is not understood here ({problem}); "
            "it must be one square size, or one short side and a square crop."
        ) from problem
    fit = f"crop {short}" if short else "squash"
    return VisionSettings(kind, depth, size, fit, mean, std)


def _table(path: Path) -> dict[str, Any]:
    """A JSON file's settings, empty where it is missing. A broken file is as good as none: what needs it says so."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _side(value: Any) -> int:
    """224 of `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`."""
    sides = set(value.values()) if isinstance(value, dict) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"a size of {value}")
    side: int = sides.pop()
    return side


def _rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
