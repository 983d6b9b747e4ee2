"""Downloads the networks available by name."""

import os
from pathlib import Path

from ..errors import RetrievalError
from .locate import UnknownModel, models_folder, not_published
from .preset import Preset, Source
from .registry import known_families


class CannotFetch(RetrievalError):
    """A network could not be downloaded."""


def fetch(name: str) -> Path:
    """Download a network or an IP-Adapter at its pinned revisions: configuration and safetensors only.

    Raises UnknownModel or CannotFetch.
    """
    presets, adapters = known_families().presets, known_families().adapters
    preset = presets.get(name) or adapters.get(name)
    if preset is None:
        raise UnknownModel(f"The network {name!r} is unknown; choose one of {', '.join([*presets, *adapters])}.")
    if isinstance(preset, Preset) and preset.bundled:
        return preset.bundled
    target = models_folder() / name
    if target.exists():
        return target
    if isinstance(preset, Preset) and preset.local_only:
        raise CannotFetch(not_published(preset))
    part = target.with_name(f"{name}.part")  # an interrupted download resumes here, never taken for complete
    for source in preset.sources:
        _download(source, part, "--ip-adapter FOLDER" if name in adapters else "--model FOLDER")
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
