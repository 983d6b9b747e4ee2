"""`diffsim models`: the networks available by name and where they are."""

from collections.abc import Callable
from pathlib import Path

import click


@click.group()
def models() -> None:
    """List, fetch and find networks."""


@models.command(name="list")
def list_models() -> None:
    """List the networks and IP-Adapters available by name, and whether they are on this machine.

    Those provided by other installed packages are listed below them with the package's name; a broken package is
    named on stderr.
    """
    from diffsim.retrieval.families import find_adapter, find_model, known_families

    for member in known_families().members:
        origin = f"{member.package}; " if member.package else ""
        for preset in member.family.presets:
            missing = "not here; only a local copy works" if preset.local_only else _not_here(preset.name)
            place = _place(find_model, preset.name) or missing
            click.echo(f"{preset.name:20} {preset.size:4d} px  {preset.about} ({origin}{place})")
    for member in known_families().members:
        origin = f"{member.package}; " if member.package else ""
        for adapter in member.family.adapters:
            place = _place(find_adapter, adapter.name) or _not_here(adapter.name)
            click.echo(f"{adapter.name:20} {'':7}  {adapter.about} ({origin}{place})")
    for sentence in known_families().broken:
        click.echo(sentence, err=True)


def _place(find: Callable[[str], Path], name: str) -> str:
    """Its path, empty if it is not on this machine."""
    from diffsim.retrieval.families import UnknownModel

    try:
        return str(find(name))
    except UnknownModel:
        return ""


def _not_here(name: str) -> str:
    return f"not here; diffsim models fetch {name}"


@models.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download the network or IP-Adapter NAME at its pinned revision."""
    from diffsim.retrieval.families.fetch import fetch as fetch_model

    click.echo(fetch_model(name))


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the folder of the network or IP-Adapter NAME."""
    from diffsim.retrieval.families import find_adapter, find_model, known_families

    click.echo(find_adapter(name) if name in known_families().adapters else find_model(name))
