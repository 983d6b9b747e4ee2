"""`diffsim verify` and `diffsim prune`."""

from pathlib import Path

import click

from .options import index_option, memory_option


@click.command()
@index_option
@memory_option
def verify(index_path: Path | None, memory: int) -> None:
    """Read every record, rebuild what is only a cache, and queue again what is damaged."""
    from indexer.index_folder import IndexFolder, default_index
    from indexer.maintain import verify_index

    found = verify_index(IndexFolder.open(index_path or default_index()), memory)
    for space in found.spaces:
        orphans = f", {space.orphans} orphans (harmless)" if space.orphans else ""
        click.echo(f"{space.name}: {space.pictures} pictures, {len(space.damaged)} damaged{orphans}")
        if space.rebuilt:
            click.echo(f"{space.name}: the FAISS file was rebuilt")
    damaged = sum(len(space.damaged) for space in found.spaces)
    if damaged:
        raise click.ClickException(
            f"{damaged} pictures have no sound features and were queued again; run `diffsim index` to extract them."
        )
    click.echo("clean")


@click.command()
@index_option
@memory_option
def prune(index_path: Path | None, memory: int) -> None:
    """Forget missing files and the features of pictures that no file holds any more. Offline folders are kept."""
    from indexer.index_folder import IndexFolder, default_index
    from indexer.maintain import prune_index

    pruned = prune_index(IndexFolder.open(index_path or default_index()), memory)
    click.echo(f"forgot {pruned.files} missing files and {pruned.pictures} pictures")
