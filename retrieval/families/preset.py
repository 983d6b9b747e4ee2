"""How a network is read by default, and where one available by name comes from. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..names import DEFAULT_TIER
from ..pictures.images import crop_side
from ..settings import InvalidSpace, SpaceSettings, Tap

BUNDLED = Path(__file__).parents[1] / "models"
"""The networks that come with this program."""


@dataclass(frozen=True)
class Source:
    """Files on the Hugging Face hub, at a pinned revision (the whole hash of a commit).

    files: patterns of what is fetched. moves: files and folders to relocate, (path there, path here).
    """

    repository: str
    revision: str
    files: tuple[str, ...]
    moves: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Preset:
    """How a network is read by default, and, for one available by name, what it is and where it comes from.

    size: side of its pictures, pixels. profiles: the taps of style, instance and look, or of some of them; empty only
    for networks without taps. prompt, noises, fit, tier: as in SpaceSettings.
    name, about: empty for the defaults of a folder. sources: what is fetched into one folder; empty for a network in
    the folder `bundled`, and for one that `local_only` says cannot be fetched. adapter: the IP-Adapter preset that
    DiffSim-C uses if none is named. download: about how many bytes are fetched; 0 if that is not known.
    work: how much time a picture takes on a CPU, as the 10^9 operations that a matrix product does meanwhile; 0 if that
    is not known.
    """

    size: int
    profiles: dict[str, tuple[Tap, ...]]
    prompt: str = ""
    noises: int = 1
    fit: str = "squash"
    tier: str = DEFAULT_TIER
    name: str = ""
    about: str = ""
    sources: tuple[Source, ...] = ()
    bundled: Path | None = None
    local_only: str = ""
    adapter: str = ""
    download: int = 0
    work: float = 0.0

    def taps(self, profile: str) -> tuple[Tap, ...]:
        """The profile's taps. Raises InvalidSpace."""
        if profile not in self.profiles:
            raise InvalidSpace(f"The profile {profile!r} is unknown; choose one of {', '.join(self.profiles)}.")
        return self.profiles[profile]

    def settings(self, taps: tuple[Tap, ...], **changes: Any) -> SpaceSettings:
        """The settings to read the network at these taps. changes: settings that differ from the defaults, as in
        SpaceSettings; None keeps a default. Raises InvalidSpace."""
        chosen = {name: value for name, value in changes.items() if value is not None}
        size = chosen.setdefault("size", self.size)
        return SpaceSettings(taps, **{**self._usual(size), **chosen})

    def _usual(self, size: int) -> dict[str, Any]:
        return {"fit": self._fit(size), "prompt": self.prompt, "noises": self.noises, "tier": self.tier}

    def _fit(self, size: int) -> str:
        """The fit for pictures of another size: `crop N` keeps cutting away the same share."""
        short = crop_side(self.fit)
        return self.fit if short is None else f"crop {max(size, round(short * size / self.size))}"


@dataclass(frozen=True)
class AdapterPreset:
    """An IP-Adapter: its one file and its `image_encoder/` are fetched into one folder. download: as in Preset."""

    name: str
    about: str
    sources: tuple[Source, ...]
    download: int = 0


def released(module: str) -> dict[str, tuple[Tap, ...]]:
    """The released settings: 101 (step index 900) for style, 251 (750) for instance, 501 (500) for look."""
    return {"style": (Tap(module, 101),), "instance": (Tap(module, 251),), "look": (Tap(module, 501),)}
