"""The families of networks that can be read: those of this program, and those from installed packages.

A package provides one by an entry point in the group `diffsim.families` that names a Family (docs/families.md). A
broken one is reported in a sentence and skipped.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import COPY_AGAIN, BadNetwork, RetrievalError
from .family import Family
from .preset import AdapterPreset, Preset

if TYPE_CHECKING:
    from ..networks import Network

GROUP = "diffsim.families"

_BUILT_IN = tuple(
    EntryPoint(module, f"{__package__}.{module}:FAMILY", GROUP)
    for module in ("stable_diffusion", "feature_maps", "dit", "vision_transformer", "colour")
)
"""Loaded like those of other packages, but declared here instead of in this package's metadata, so that a source tree
that was never installed, or was installed before a family was added, has them too."""

_UNEXPECTED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a configuration with values of other types or sizes than expected ends in."""


class FamilyProblem(RetrievalError):
    """A family of networks from another package cannot be used."""


class BrokenPlugin(FamilyProblem):
    """The package that provides a family fails."""


class AmbiguousNetwork(FamilyProblem):
    """Two packages claim one folder."""


class MissingFamily(FamilyProblem):
    """A feature space was made with a family that no installed package provides."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"The feature space was made with the network family {name}, which no installed package provides; install "
            "the package that does, or query with an indexed picture, which needs no network."
        )


@dataclass(frozen=True)
class Member:
    """A family, and the package that provides it, with its version; empty for one of this program."""

    family: Family
    package: str = ""

    @property
    def stamp(self) -> str:
        """The name that feature spaces record, see FeatureSpace.family."""
        return self.family.name if self.package else ""

    def claims(self, folder: Path) -> bool:
        """Whether the folder holds a network of this family. Raises BrokenPlugin."""
        with self._blamed(folder):
            return self.family.matches(folder)

    def defaults(self, folder: Path) -> Preset:
        """How the network in a folder is read by default. Raises BrokenPlugin, and the family's own errors."""
        with self._blamed(folder):
            return self.family.defaults(folder)

    def load(self, folder: Path, dtype: str, device: str, adapter: str) -> "Network":
        """adapter: path of an IP-Adapter, or empty. Raises BadNetwork, BrokenPlugin."""
        if adapter and "C" not in self.family.variants:
            raise BadNetwork(f"The network in {folder} takes no IP-Adapter; drop --ip-adapter, or choose a U-Net.")
        with self._blamed(folder):
            network = self.family.load(folder, dtype, device, adapter)
            if self.package and not network.weights.startswith(self.family.stamped("")):
                raise ValueError(f"weights {network.weights!r} without the stamp {self.family.stamped('')!r}")
        return network

    @contextmanager
    def _blamed(self, folder: Path) -> Iterator[None]:
        """Turns an unexpected error of another package's code into a sentence that names the package."""
        try:
            yield
        except RetrievalError:
            raise
        except Exception as problem:
            if not self.package and isinstance(problem, _UNEXPECTED):
                raise BadNetwork(
                    f"The network in {folder} is configured as none can be ({_quoted(problem)}); {COPY_AGAIN}"
                ) from problem
            if not self.package:
                raise
            raise BrokenPlugin(
                f"The network family {self.family.name} of the package {self.package} failed on {folder} "
                f"({_quoted(problem)}); update or uninstall that package."
            ) from problem


@dataclass(frozen=True)
class Families:
    """members: the families of this program, then those of packages, ordered by the names of their entry points.
    broken: a sentence for each package that cannot be used."""

    members: tuple[Member, ...]
    broken: tuple[str, ...]

    @property
    def presets(self) -> dict[str, Preset]:
        return {preset.name: preset for member in self.members for preset in member.family.presets}

    @property
    def adapters(self) -> dict[str, AdapterPreset]:
        return {adapter.name: adapter for member in self.members for adapter in member.family.adapters}

    def of_preset(self, name: str) -> Member:
        return next(member for member in self.members if any(preset.name == name for preset in member.family.presets))

    def of_folder(self, folder: Path, made_by: str | None = None) -> Member | None:
        """The family of the network in a folder; None if no family matches.

        A package's family takes precedence over those of this program, which match broadly. Two packages that claim one
        folder are an error, because the choice between them would change every number.
        made_by: the Member.stamp recorded in a feature space: selects that family, even if another claims the folder.
        Raises AmbiguousNetwork, BrokenPlugin.
        """
        failed = []
        plugins = [member for member in self.members if member.package]
        groups = [plugins, [member for member in self.members if not member.package]]
        if made_by is not None:
            groups = [[member for member in self.members if member.stamp == made_by]]
        for group in groups:
            claiming = []
            for member in group:
                try:
                    claiming += [member] if member.claims(folder) else []
                except BrokenPlugin as problem:
                    failed.append(problem)
            if group is plugins and len(claiming) > 1:
                raise AmbiguousNetwork(_ambiguous(folder, claiming))
            if claiming:
                return claiming[0]
        if failed:
            raise failed[0]
        return None

    def require(self, made_by: str | None) -> None:
        """Raises MissingFamily if a feature space's family is not installed."""
        if made_by and not any(member.stamp == made_by for member in self.members):
            raise MissingFamily(made_by)


@cache
def known_families() -> Families:
    """All families, loaded once per process, when a network is first needed."""
    members: list[Member] = []
    broken = []
    for entry in (*_BUILT_IN, *sorted(entry_points(group=GROUP), key=lambda entry: entry.name)):
        try:
            members.append(_member(entry, members))
        except BrokenPlugin as problem:
            broken.append(str(problem))
    return Families(tuple(members), tuple(broken))


def _member(entry: EntryPoint, known: Sequence[Member]) -> Member:
    """Load what an entry point names. Raises BrokenPlugin."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
    try:
        family = entry.load()
        if not isinstance(family, Family):
            raise TypeError(f"{entry.value} is not a Family")
        for one in (member.family for member in known):
            if one.name == family.name:
                raise ValueError(f"there is a family {family.name} already")
            if taken := _names(one) & _names(family):
                raise ValueError(f"there is a network {min(taken)} already")
    except Exception as problem:
        if not package:
            raise
        raise BrokenPlugin(
            f"The package {package} provides a network family that cannot be used ({_quoted(problem)}); update or "
            "uninstall it."
        ) from problem
    return Member(family, package)


def _names(family: Family) -> set[str]:
    return {preset.name for preset in family.presets} | {adapter.name for adapter in family.adapters}


def _ambiguous(folder: Path, claiming: Sequence[Member]) -> str:
    names = " and ".join(f"{member.family.name} (package {member.package})" for member in claiming)
    return f"The network in {folder} is claimed by the families {names}; uninstall all but one of these packages."


def _quoted(problem: Exception) -> str:
    first = (str(problem).strip().splitlines() or [""])[0].removesuffix(".")
    return f"{type(problem).__name__}: {first}" if first else type(problem).__name__
