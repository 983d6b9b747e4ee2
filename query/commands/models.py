"""`diffsim models`: the networks known by name and where they are."""

import click


@click.group()
def models() -> None:
    """List, fetch and find networks."""


@models.command(name="list")
def list_models() -> None:
    """The networks and IP-Adapters known by name, and whether they are on this machine."""
    from diffsim.retrieval.local_models import UnknownModel, find_adapter, find_model
    from diffsim.retrieval.presets import ADAPTERS, PRESETS

    for preset in PRESETS.values():
        try:
            place = str(find_model(preset.name))
        except UnknownModel:
            place = "not here; only a local copy works" if preset.local_only else _not_here(preset.name)
        click.echo(f"{preset.name:20} {preset.size:4d} px  {preset.about} ({place})")
    for adapter in ADAPTERS.values():
        try:
            place = str(find_adapter(adapter.name))
        except UnknownModel:
            place = _not_here(adapter.name)
        click.echo(f"{adapter.name:20} {'':7}  {adapter.about} ({place})")


def _not_here(name: str) -> str:
    return f"not here; diffsim models fetch {name}"


@models.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download the network or IP-Adapter NAME at its pinned revision."""
    from diffsim.retrieval.local_models import fetch as fetch_model

    click.echo(fetch_model(name))


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the folder of the network or IP-Adapter NAME."""
    from diffsim.retrieval.local_models import find_adapter, find_model
    from diffsim.retrieval.presets import ADAPTERS

    click.echo(find_adapter(name) if name in ADAPTERS else find_model(name))
