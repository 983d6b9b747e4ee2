"""`diffsim status`: what is in the index, what failed and why. Loads neither torch nor FAISS."""

import os
from contextlib import suppress
from pathlib import Path

import click

from .options import index_option, printable, size_text


@click.command()
@index_option
def status(index_path: Path | None) -> None:
    """Show the index: its folders, feature spaces, missing and failed files."""
    from indexer.index_folder import IndexFolder, default_index
    from indexer.roots import offline_roots
    from retrieval.presets import models_folder

    index = IndexFolder.open(index_path or default_index())
    with index.catalog(readonly=True) as catalog:
        state = catalog.status()
        spaces = {space.id: space for space in catalog.spaces()}
        offline = offline_roots(catalog)
    click.echo(f"index    {index.path}, {size_text(_disk_bytes(index.path))} on disk")
    click.echo(f"networks {models_folder()}")
    for count in state.spaces:
        space = spaces[count.space_id]
        waiting = state.files - len(state.failed) - count.files
        more = f", {waiting} waiting for `diffsim index`" if waiting else ""
        click.echo(f"space    {space.name} ({space.fingerprint}): {count.files} files, {count.contents} pictures{more}")
    for root in state.roots:
        away = f", offline: {offline[root.root.id]}" if root.root.id in offline else ""
        missing = f", {root.missing} missing" if root.missing else ""
        click.echo(f"folder   {printable(os.fsdecode(root.root.path))}: {root.files} files{missing}{away}")
    if state.missing:
        click.echo(f"missing  {state.missing} files; `diffsim prune` forgets them")
    for failed in state.failed:
        click.echo(f"failed   {printable(os.fsdecode(failed.path))}: {failed.reason}")


def _disk_bytes(folder: Path) -> int:
    """What a folder takes; files that come and go while another process writes do not matter."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total
