"""The networks on this machine: where one is, how it is read by default, and how it is loaded. No torch before that."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffsim.errors import did_you_mean

from ..errors import BadNetwork, RetrievalError
from ..user_folders import NoHome, user_data
from .family import Family
from .preset import Preset
from .registry import Member, known_families

if TYPE_CHECKING:
    from ..networks import Network


class UnknownModel(RetrievalError):
    """No network of this name or at this path."""


@dataclass(frozen=True)
class KnownNetwork:
    """reference: a preset's name, or the absolute path of a folder. defaults: how it is read by default, under the name
    that the user gave."""

    reference: str
    family: Family
    defaults: Preset


@dataclass(frozen=True)
class LocatedNetwork:
    """A network on this machine: its folder and the family that reads it."""

    folder: Path
    member: Member

    @property
    def key(self) -> tuple[str, str]:
        """Equal for equal networks."""
        return str(self.folder), self.member.stamp

    def load(self, dtype: str, device: str, adapter: str = "") -> "Network":
        """Load it; adapter: a preset or path, for DiffSim-C. Raises UnknownModel, BadNetwork, FamilyProblem."""
        return self.member.load(self.folder, dtype, device, str(find_adapter(adapter)) if adapter else "")


def models_folder() -> Path:
    """Where fetched networks are kept: $DIFFSIM_MODELS, else the platform's user data folder. Raises NoHome."""
    return Path(os.environ.get("DIFFSIM_MODELS") or user_data() / "models")


def known_network(reference: str) -> KnownNetwork:
    """A preset, which need not be on this machine, or the network in a folder. Raises UnknownModel, FamilyProblem."""
    if preset := known_families().presets.get(reference):
        return KnownNetwork(reference, known_families().of_preset(reference).family, preset)
    found = locate(reference)
    defaults = found.member.defaults(found.folder)
    # If the family's defaults are a preset, keep only its settings: this folder is another copy of the network.
    defaults = replace(defaults, name=reference, about="", sources=(), bundled=None, local_only="")
    return KnownNetwork(str(found.folder), found.member.family, defaults)


def defaults_of(reference: str) -> Preset:
    """How a network is read by default. Raises UnknownModel, FamilyProblem."""
    return known_network(reference).defaults


def locate(reference: str, made_by: str | None = None) -> LocatedNetwork:
    """Find a preset, or a local network in its family's layout.

    made_by: FeatureSpace.family of the existing space that needs it. Raises UnknownModel, FamilyProblem.
    """
    known = known_families()
    known.require(made_by)
    if preset := known.presets.get(reference):
        member = known.of_preset(reference)
        for folder in (preset.bundled, _fetched(reference)):
            if folder and member.claims(folder):
                return LocatedNetwork(folder, member)
        if preset.local_only:
            raise UnknownModel(not_published(preset))
        raise UnknownModel(
            f"The network {reference} is not on this machine; fetch it with `diffsim models fetch {reference}`, "
            "or give a local copy with --model FOLDER."
        )
    folder = _expanded(reference)
    found = known.of_folder(folder, made_by)
    if found:
        return LocatedNetwork(folder.resolve(), found)
    names = ", ".join(known.presets)
    broken = "".join(f" ({sentence.removesuffix('.')})" for sentence in known.broken)  # one of these might provide it
    if folder.is_dir():
        raise UnknownModel(
            f"The folder {reference} {_holds_none()}{broken}; --model takes {names} or the folder of such a network."
        )
    raise UnknownModel(
        f"The network {reference!r} is unknown{did_you_mean(reference, known.presets)}{broken}; choose one of {names}, "
        "or give a network's folder."
    )


def find_model(reference: str) -> Path:
    """The folder of a preset or of a local network; raises as `locate` does."""
    return locate(reference).folder


def load_network(folder: Path, dtype: str, device: str, adapter: str = "") -> "Network":
    """Load the network in a folder, with an IP-Adapter (its file or folder). Raises BadNetwork, FamilyProblem."""
    member = known_families().of_folder(folder)
    if member is None:
        raise BadNetwork(f"The folder {folder} {_holds_none()}.")
    return member.load(folder, dtype, device, adapter)


def find_adapter(reference: str) -> Path:
    """The file or folder of an IP-Adapter, by preset or path. Raises UnknownModel."""
    preset = reference in known_families().adapters
    path = _fetched(reference) if preset else _expanded(reference)
    if path and path.exists():
        return path.resolve()
    if preset:
        raise UnknownModel(
            f"The IP-Adapter {reference} is not on this machine; fetch it with `diffsim models fetch {reference}`, "
            "or give a local copy with --ip-adapter FOLDER."
        )
    raise UnknownModel(f"There is no IP-Adapter at {reference!r}; give its safetensors file or folder.")


def not_published(preset: Preset) -> str:
    """Why a preset with `local_only` cannot be fetched."""
    return f"The network {preset.name} cannot be fetched: {preset.local_only}, and give the folder with --model FOLDER."


def _fetched(name: str) -> Path | None:
    """Where a fetched network is, if it is there; None where none can be."""
    try:
        return models_folder() / name
    except NoHome:
        return None


def _expanded(reference: str) -> Path:
    """A path in which `~` may stand for a home folder. Raises UnknownModel."""
    if not reference:
        raise UnknownModel("An empty text names no network; give a name of `diffsim models list` or a folder.")
    try:
        return Path(reference).expanduser()
    except RuntimeError:  # no such user, or one without a home
        return Path(reference)


def _holds_none() -> str:
    return f"has no {', nor a '.join(member.family.layout for member in known_families().members)}"
