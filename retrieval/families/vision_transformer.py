"""Vision transformers in the layout of transformers: CLIP, SigLIP, DINOv2 (with and without registers), DINOv3.

How pictures are prepared is read from config.json and preprocessor_config.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RetrievalError
from ..json_table import read_table
from ..settings import LARGEST, Tap
from .family import Family
from .preset import Preset, Source

if TYPE_CHECKING:
    from ..networks import Network


class BadPreprocessing(RetrievalError):
    """The picture preparation that a folder describes is not supported."""


@dataclass(frozen=True)
class VisionSettings:
    """A vision transformer's folder. kind: `model_type` in config.json. depth: encoder layers.

    size, fit: as in SpaceSettings, the network's own. mean, std: of RGB, in [0, 1].
    """

    kind: str
    depth: int
    size: int
    fit: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class _Usual:
    """Defaults without a preprocessor_config.json. size, short: None means the network's own image size; short: the
    short side before the middle is cut out, 0 if the picture is squashed."""

    size: int | None
    short: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = _Usual(None, None, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SIGLIP = _Usual(None, 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_DINOV2 = _Usual(224, 256, *_IMAGENET)  # not its image size, 518, which is that of the last training stage

_KINDS = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_vit": _Usual(224, 0, *_IMAGENET),
}


def matches(folder: Path) -> bool:
    """Raises BadPreprocessing."""
    return _settings(folder) is not None


def vision_settings(folder: Path) -> VisionSettings:
    """How pictures are prepared for the vision transformer in a folder. Raises BadPreprocessing; ValueError for a
    folder without one."""
    settings = _settings(folder)
    if settings is None:
        raise ValueError(f"there is no vision transformer in {folder}")
    return settings


def defaults(folder: Path) -> Preset:
    settings = vision_settings(folder)
    return Preset(settings.size, _by_depth(settings.depth), noises=0, fit=settings.fit)


def load(folder: Path, dtype: str, device: str, adapter: str) -> "Network":
    from ..networks.vit import VitNetwork

    return VitNetwork.load(folder, vision_settings(folder), dtype, device)


def _settings(folder: Path) -> VisionSettings | None:
    # A broken file is treated as missing here; loading the network reports what is wrong with it.
    config = read_table(folder / "config.json", {})
    kind = config.get("model_type")
    if kind not in _KINDS:
        return None
    usual = _KINDS[kind]
    # transformers omits values that equal its defaults from the file: 12 layers and 224 pixels in all these kinds.
    vision = config.get("vision_config", config)
    shown = read_table(folder / "preprocessor_config.json", {})
    try:
        own, depth = _side(vision.get("image_size", 224)), _side(vision.get("num_hidden_layers", 12))
        size = own if usual.size is None else usual.size
        short = own if usual.short is None else usual.short
        if shown.get("do_center_crop", bool(short)):
            size, short = _side(shown.get("crop_size", size)), _side(shown.get("size", short or size))
        else:
            size, short = _side(shown.get("size", size)), 0
        mean, std = _rgb(shown.get("image_mean", usual.mean)), _rgb(shown.get("image_std", usual.std))
    except (AttributeError, TypeError, ValueError) as problem:
        raise BadPreprocessing(
            f"The network in {folder} prepares pictures in a way that is not supported ({problem}); "
            "it must be one square size, or one short side and a square crop."
        ) from problem
    fit = f"crop {short}" if short else "squash"
    return VisionSettings(kind, depth, size, fit, mean, std)


def _side(value: Any) -> int:
    """224 of `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`."""
    sides = set(value.values()) if isinstance(value, dict) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) and 0 < side <= LARGEST for side in sides):
        raise ValueError(f"a size of {value}")
    side: int = sides.pop()
    return side


def _rgb(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _by_depth(layers: int) -> dict[str, tuple[Tap, ...]]:
    """Shallow layers see strokes and textures, deep ones what an object is, and the middle both. Studies of these
    networks agree on that; the choice of layer is worth some 20 points in the paper's own tables. The best one was not
    measured here, because no trained weights were available."""
    places = {"style": layers // 4, "instance": layers * 5 // 6, "look": layers // 2}
    return {profile: (Tap(f"layers.{number}", 0),) for profile, number in places.items()}


def _published(
    name: str, about: str, repository: str, revision: str, download: int, work: float, fit: str = "squash"
) -> Preset:
    tokenizer = ("tokenizer*.json", "vocab*.json", "merges*.txt", "spiece*.model", "special_tokens_map*.json")
    files = ("config.json", "preprocessor_config.json", "model.safetensors", *tokenizer)  # DINOv2 has no tokenizer
    sources = (Source(repository, revision, files),)
    return Preset(
        224, _by_depth(12), noises=0, fit=fit, name=name, about=about, sources=sources, download=download, work=work
    )


_PRESETS = (
    _published(
        "clip-vit-b32",
        "CLIP ViT-B/32, for what a picture is about; takes text",
        "openai/clip-vit-base-patch32",
        "b97b0100e55e367c057773c2a614676470b0d575",
        606_000_000,
        2.6,
        "crop 224",
    ),
    _published(
        "dinov2-small",
        "DINOv2 ViT-S/14, for objects and their parts; the smallest",
        "facebook/dinov2-small",
        "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        88_000_000,
        3.5,
        "crop 256",
    ),
    _published(
        "dinov2-base",
        "DINOv2 ViT-B/14, for objects and their parts",
        "facebook/dinov2-base",
        "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        346_000_000,
        12.9,
        "crop 256",
    ),
    _published(
        "siglip-base",
        "SigLIP ViT-B/16, for what a picture is about; takes text",
        "google/siglip-base-patch16-224",
        "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed",
        813_000_000,
        9.7,
    ),
    # No preset for DINOv3: its repositories are gated, so a fetch would be refused. A local copy works.
)

FAMILY = Family(
    "vision-transformer",
    f"config.json of a vision transformer ({', '.join(_KINDS)})",
    matches,
    defaults,
    load,
    ("S", "global"),
    _PRESETS,
)
