"""Downloads the networks available by name."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RetrievalError
from .hub import HubFile, WrongBytes, WrongRepository, listed, of_the_disk, status_of
from .locate import UnknownModel, models_folder, not_published
from .preset import AdapterPreset, Preset, Source
from .registry import known_families

Progress = Callable[[int, int, int, int], None]
"""Called with: complete files, files in all, bytes on disk, bytes in all."""


class CannotFetch(RetrievalError):
    """A network could not be downloaded."""


def fetch(name: str, on_progress: Progress = lambda *_: None) -> Path:
    """Download a network or an IP-Adapter at its pinned revisions: configuration and safetensors only.

    It appears in its place when every file is complete and has the hub's checksum. Raises UnknownModel or CannotFetch.
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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{name}.lock"), timeout=0):
            if not target.exists():  # else another process has just put it there
                part = target.with_name(f"{name}.part")  # what arrived before an interruption; never taken for complete
                _download(preset, part, on_progress)
                os.replace(part, target)
    except Timeout:
        raise CannotFetch(f"The network {name} is being fetched by another process; wait until it is done.") from None
    except OSError as problem:
        raise CannotFetch(_about_the_disk(problem, name, target.parent)) from problem
    return target


def _download(preset: Preset | AdapterPreset, folder: Path, on_progress: Progress) -> None:
    files: list[HubFile] = []
    for source in preset.sources:
        with _explaining(preset, source):
            files += listed(source, folder)
    _remove_others(folder, files)
    total = sum(file.size for file in files)
    missing, free = total - sum(file.arrived for file in files), shutil.disk_usage(folder.parent).free
    if missing > free:
        raise OSError(errno.ENOSPC, f"{missing / 1e9:.2f} GB are missing and {free / 1e9:.2f} GB are free")
    done = 0
    for number, file in enumerate(files):
        if not file.complete:
            with _explaining(preset, file.source):
                file.download(lambda arrived: on_progress(number, len(files), done + arrived, total))  # noqa: B023
        done += file.size
        on_progress(number + 1, len(files), done, total)


def _remove_others(folder: Path, files: list[HubFile]) -> None:
    """What an earlier version of this program, or an older pin of the network, has left there."""
    ours = {path for file in files for path in (file.here, file.partial)}
    for path in folder.rglob("*"):
        if path.is_file() and path not in ours:
            path.unlink()


@contextmanager
def _explaining(preset: Preset | AdapterPreset, source: Source) -> Iterator[None]:
    """Turns what goes wrong with the hub into a sentence. What goes wrong with the disk passes."""
    try:
        yield
    except Exception as problem:
        if of_the_disk(problem):
            raise
        from huggingface_hub.constants import ENDPOINT

        reason, step = _explained(problem, source, f"`diffsim models fetch {preset.name}`")
        option = "--model FOLDER" if isinstance(preset, Preset) else "--ip-adapter FOLDER"
        raise CannotFetch(
            f"{source.repository} could not be downloaded from {ENDPOINT} ({reason}); {step}, or copy the files from "
            f"elsewhere and give them with {option}."
        ) from problem


def _explained(problem: Exception, source: Source, command: str) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = status_of(problem)
    update = "update diffsim-search, which may know another place"
    if status in (401, 403):
        return f"it answers {status}: not to everybody", f"log in with `hf auth login` and run {command} again"
    if status in (404, 410):
        return f"it answers {status}: nothing at revision {source.revision[:12]}", update
    if status:
        return f"it answers {status}", f"run {command} later, which goes on where it stopped"
    if isinstance(problem, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids it", f"unset that variable and run {command} again"
    if isinstance(problem, WrongRepository):
        return str(problem), update
    if isinstance(problem, WrongBytes):
        return str(problem), f"it was thrown away: run {command} again"
    reason = " ".join(f"{type(problem).__name__} {problem}".split()).rstrip(".")
    return reason, f"check the network and run {command} again, which goes on where it stopped"


def _about_the_disk(problem: OSError, name: str, folder: Path) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        what, step = f"There is no room for {name} in {folder}", "make some, or set DIFFSIM_MODELS to another folder"
    else:
        what, step = f"{name} cannot be written to {folder}", "set DIFFSIM_MODELS to a folder that you may write"
    reason = problem.strerror or str(problem)
    return f"{what} ({reason}); {step}, and run `diffsim models fetch {name}` again."
