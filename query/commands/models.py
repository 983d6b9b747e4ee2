"""`diffsim models`: the networks known by name and where they are."""

import click


@click.group()
def models() -> None:
    """List, fetch and find networks."""


@models.command(name="list")
def list_models() -> None:
    """The networks known by name, and whether they are on this machine."""
    from retrieval.presets import PRESETS, UnknownModel, find_model

    for preset in PRESETS.values():
        try:
            place = str(find_model(preset.name))
        except UnknownModel:
            place = f"not here; diffsim models fetch {preset.name}"
        click.echo(f"{preset.name:12} {preset.size:4d} px  {preset.about} ({place})")


@models.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download the network NAME at its pinned revision."""
    from retrieval.presets import fetch as fetch_model

    click.echo(fetch_model(name))


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the folder of the network NAME."""
    from retrieval.presets import find_model

    click.echo(find_model(name))
