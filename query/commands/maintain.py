"""`diffsim verify` and `diffsim prune`."""

import os
from pathlib import Path

import click

from ..text import printable
from .options import FilePath, index_option, memory_option
from .progress import stages


@click.command()
@index_option
@memory_option
def verify(index_path: Path, memory: int) -> None:
    """Check the catalog and every record, rebuild what is damaged, and queue pictures with damaged features again."""
    from diffsim.indexer.index_folder import IndexFolder
    from diffsim.indexer.maintain import verify_index

    with stages() as on_work:
        found = verify_index(IndexFolder.open(index_path), memory, on_work)
    if found.fault:
        click.echo(f"catalog: damaged ({printable(found.fault)}) and rebuilt from what could be read")
    for space in found.spaces:
        orphans = f", {space.orphans} orphans (harmless)" if space.orphans else ""
        click.echo(f"{space.name}: {space.pictures} pictures, {len(space.damaged)} damaged{orphans}")
        if space.rebuilt:
            click.echo(f"{space.name}: the FAISS file was rebuilt")
    if found.strays:
        click.echo(f"{len(found.strays)} forgotten spaces or shards on disk (harmless); `diffsim prune` removes them")
    if found.sketches:
        click.echo(f"sketches: {found.sketches} damaged, made again by the next `diffsim index`")
    damaged = sum(len(space.damaged) for space in found.spaces)
    if found.fault:
        raise click.ClickException(
            f"The catalog was damaged and {damaged} pictures have no sound features; run `diffsim index`, which finds "
            "and extracts again what was lost."
        )
    if damaged:
        raise click.ClickException(
            f"{damaged} pictures have no sound features and were queued again; run `diffsim index` to extract them."
        )
    click.echo("clean")


@click.command()
@index_option
@click.option("--space", "spaces", multiple=True, help="Forget this feature space, by name or fingerprint; repeatable.")
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=FilePath(),
    help="Forget this indexed folder, present or not, and what only it holds; repeatable.",
)
@memory_option
def prune(index_path: Path, spaces: tuple[str, ...], folders: tuple[Path, ...], memory: int) -> None:
    """Forget missing files and the features of pictures that no longer have a file. Offline folders are kept.

    With --space or --folder, only what they name is forgotten. Picture files are never touched.
    """
    from diffsim.indexer.index_folder import IndexFolder
    from diffsim.indexer.maintain import prune_index

    with stages() as on_work:
        pruned = prune_index(IndexFolder.open(index_path), memory, spaces, folders, on_work=on_work)
    for forgotten in pruned.spaces:
        space = forgotten.space
        click.echo(f"forgot the space {space.name} ({space.fingerprint}) with {forgotten.pictures} pictures")
    for folder in pruned.folders:
        where = printable(os.fsdecode(folder.root.path))
        click.echo(f"forgot the folder {where} with {folder.files} files and {folder.pictures} pictures")
    if not spaces and not folders:
        click.echo(f"forgot {pruned.files} missing files and {pruned.pictures} pictures")
