"""The networks on this machine: where they are, how one in a folder is asked, and fetching them. No torch."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from .errors import RetrievalError
from .preprocessing import KINDS, vision_settings
from .presets import ADAPTERS, PRESETS, Preset, Source, by_depth, released
from .settings import Tap

BUNDLED = Path(__file__).parent / "models"

READ_AS = "diffsim.json"
"""In the folder of a network trained by this project: the size of its pictures and the taps of its profiles."""


class UnknownModel(RetrievalError):
    """No network of this name or at this path."""


class CannotFetch(RetrievalError):
    """A network could not be downloaded."""


def models_folder() -> Path:
    """Where fetched networks are kept: $DIFFSIM_MODELS, else the platform's user data folder."""
    return Path(os.environ.get("DIFFSIM_MODELS") or platformdirs.user_data_path("diffsim") / "models")


def find_model(reference: str) -> Path:
    """The folder of a preset or of a local network in the layout of diffusers or transformers; raises UnknownModel."""
    if reference in PRESETS:
        for folder in (BUNDLED / reference, models_folder() / reference):
            if _holds_network(folder):
                return folder
        if PRESETS[reference].local_only:
            raise UnknownModel(_local_only(PRESETS[reference]))
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
            f"The folder {reference} has no unet/config.json or transformer/config.json, nor a config.json of a vision "
            f"transformer ({', '.join(KINDS)}); --model takes {names} or the folder of such a network."
        )
    raise UnknownModel(f"The network {reference!r} is unknown; choose one of {names}, or give a network's folder.")


def _holds_network(folder: Path) -> bool:
    diffusion = any((folder / part / "config.json").is_file() for part in ("unet", "transformer"))
    return diffusion or vision_settings(folder) is not None


def _local_only(preset: Preset) -> str:
    return f"The network {preset.name} cannot be fetched: {preset.local_only}, and give the folder with --model FOLDER."


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
    return replace(_defaults_of_folder(find_model(reference)), name=reference, about="", sources=(), local_only="")


def _defaults_of_folder(folder: Path) -> Preset:
    """A network trained here, DiT, SDXL, Stable Diffusion 2.x and vision transformers as the folder says; any other is
    taken for Stable Diffusion 1.x."""
    trained_here = _settings(folder / READ_AS)
    if trained_here:
        profiles = {profile: Tap(module, timestep) for profile, (module, timestep) in trained_here["profiles"].items()}
        return Preset("", "", trained_here["size"], "", profiles)
    vision = vision_settings(folder)
    if vision:
        return Preset("", "", vision.size, "", by_depth(vision.depth), noises=0, fit=vision.fit)
    transformer, unet = (_settings(folder / part / "config.json") for part in ("transformer", "unet"))
    if transformer:
        taps = released(f"transformer_blocks.{transformer.get('num_layers', 28) // 2}")
        return replace(PRESETS["dit-xl-2-256"], size=_trained_size(transformer, 32), profiles=taps)
    if unet.get("addition_embed_type") == "text_time":
        return PRESETS["sdxl"]
    if unet.get("cross_attention_dim") == 1024:
        return replace(PRESETS["sd21"], size=_trained_size(unet, 96))
    return PRESETS["sd15"]


def _trained_size(config: dict[str, Any], latents: int) -> int:
    """Pixels along the side of the pictures of the training, eight to a latent."""
    return 8 * int(config.get("sample_size") or latents)


def _settings(path: Path) -> dict[str, Any]:
    """A configuration as far as it can be read; loading the network says what is wrong with it."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def fetch(name: str) -> Path:
    """Download a network or an IP-Adapter at its pinned revisions: configuration and safetensors only.

    Raises UnknownModel or CannotFetch.
    """
    preset = PRESETS.get(name) or ADAPTERS.get(name)
    if preset is None:
        raise UnknownModel(f"The network {name!r} is unknown; choose one of {', '.join([*PRESETS, *ADAPTERS])}.")
    if (BUNDLED / name).is_dir():
        return BUNDLED / name
    target = models_folder() / name
    if target.exists():
        return target
    if isinstance(preset, Preset) and preset.local_only:
        raise CannotFetch(_local_only(preset))
    part = target.with_name(f"{name}.part")  # where a broken download goes on; it is never taken for a whole one
    for source in preset.sources:
        _download(source, part, "--ip-adapter FOLDER" if name in ADAPTERS else "--model FOLDER")
    os.replace(part, target)
    return target


def _download(source: Source, folder: Path, option: str) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            source.repository, revision=source.revision, allow_patterns=list(source.files), local_dir=folder
        )
        for there, here in source.moves:
            (folder / here).parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / there, folder / here)
    except Exception as problem:
        raise CannotFetch(
            f"{source.repository} could not be downloaded ({type(problem).__name__}); check the network and try again, "
            f"or copy the files from elsewhere and give them with {option}."
        ) from problem
