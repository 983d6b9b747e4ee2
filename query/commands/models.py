"""`diffsim models`: the networks available by name and where they are."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from ..text import size_text


@click.group()
def models() -> None:
    """List, fetch and find networks."""


@models.command(name="list")
def list_models() -> None:
    """List the networks and IP-Adapters available by name.

    Each with the side of its pictures in pixels, its size (on disk, or about what is downloaded), about how many
    pictures a second it reads on this machine's processor, what it is for, and whether it is on this machine. The speed
    is estimated from a fifth of a second of arithmetic (docs/networks.md) and may be half of what is true, or twice.
    Those provided by other installed packages are listed with the package's name; a broken package is named on stderr.
    """
    from diffsim.retrieval.families import find_adapter, find_model, known_families

    members = known_families().members
    rate = _operations()
    for member in members:
        for preset in member.family.presets:
            missing = "not here; only a local copy works" if preset.local_only else _not_here(preset.name)
            place = _place(find_model, preset.name)
            about, speed = preset.about, rate / preset.work if preset.work else 0
            _say(preset.name, f"{preset.size} px", preset.download, speed, about, member.package, place, missing)
    for member in members:
        for adapter in member.family.adapters:
            place = _place(find_adapter, adapter.name)
            _say(adapter.name, "", adapter.download, 0, adapter.about, member.package, place, _not_here(adapter.name))
    for sentence in known_families().broken:
        click.echo(sentence, err=True)


def _operations(seconds: float = 0.2) -> float:
    """About how many 10^9 operations a second this machine's processor does, by small matrix products in NumPy, which
    loads faster than torch; 0 if that cannot be found.

    One core's CPU time, the best of several, because others may be using the machine. Half of the cores count: two of
    them may be one in truth, and no network keeps all of them busy.
    """
    try:
        import numpy as np

        matrices = np.ones((64, 64, 64), np.float32)  # larger ones would be computed by several threads
        matrices @ matrices
        least, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.thread_time()
            matrices @ matrices
            least = min(least, time.thread_time() - started)
        return 2 * 64**4 / least / 1e9 * max(1, (os.cpu_count() or 1) / 2)
    except (ImportError, MemoryError, OSError, ZeroDivisionError):
        return 0.0


def _say(
    name: str, side: str, download: int, speed: float, about: str, package: str, place: Path | None, missing: str
) -> None:
    size = _on_disk(place) if place else download
    origin = f"{package}; " if package else ""
    where = f"here: {place}" if place else missing
    estimated = f"~{float(f'{speed:.2g}'):g}/s" if speed else ""
    click.echo(f"{name:20} {side:>7} {size_text(size) if size else '':>8} {estimated:>10}  {about} ({origin}{where})")


def _place(find: Callable[[str], Path], name: str) -> Path | None:
    """Where it is on this machine, if it is."""
    from diffsim.retrieval.families import UnknownModel

    try:
        return find(name)
    except UnknownModel:
        return None


def _on_disk(place: Path) -> int:
    """Bytes of a folder's files, or of a file."""
    return sum(path.stat().st_size for path in (place, *place.rglob("*")) if path.is_file())


def _not_here(name: str) -> str:
    return f"not here; diffsim models fetch {name}"


@models.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download the network or IP-Adapter NAME at its pinned revision.

    Every file is checked against the checksum that the hub declares. An interrupted download goes on where it stopped.
    """
    from diffsim.retrieval.families.fetch import fetch as fetch_model

    from .progress import downloading

    try:
        with downloading(name) as on_progress:
            place = fetch_model(name, on_progress)
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted; what arrived is kept: run the same command again to go on.") from None
    click.echo(place)


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the folder of the network or IP-Adapter NAME."""
    from diffsim.retrieval.families import find_adapter, find_model, known_families

    click.echo(find_adapter(name) if name in known_families().adapters else find_model(name))
