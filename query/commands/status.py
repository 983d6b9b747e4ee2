"""`diffsim status`: what is in the index, what failed and why. Loads neither torch nor FAISS."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable, size_text
from .options import index_option

if TYPE_CHECKING:
    from diffsim.db.catalog import KnownSpace


@click.command()
@index_option
def status(index_path: Path) -> None:
    """Show the index: its folders, feature spaces, missing and failed files."""
    from diffsim.indexer.choose import answering
    from diffsim.indexer.index_folder import IndexFolder
    from diffsim.indexer.roots import offline_roots

    index = IndexFolder.open(index_path)
    with index.catalog(readonly=True) as catalog:
        state = catalog.status()
        spaces = {space.id: space for space in catalog.spaces()}
        offline = offline_roots(catalog)
    visible = {count.space_id: count.visible for count in state.spaces}
    click.echo(f"index    {index.path}, {size_text(index.disk_bytes())} on disk")
    if index.identity:
        click.echo(f"catalog  {index.catalog_url}")
    click.echo(f"networks {_networks()}")
    for count in state.spaces:
        space = spaces[count.space_id]
        waiting = state.files - len(state.failed) - count.files
        more = f", {waiting} waiting for `diffsim index`" if waiting else ""
        click.echo(f"space    {space.name} ({space.fingerprint}): {count.files} files, {count.contents} pictures{more}")
        namesakes = [each for each in spaces.values() if each.name == space.name]
        if len(namesakes) > 1:
            click.echo(f"         {_standing(space, answering(namesakes, visible))}")
    for root in state.roots:
        away = f", offline: {offline[root.root.id]}" if root.root.id in offline else ""
        missing = f", {root.missing} missing" if root.missing else ""
        click.echo(f"folder   {printable(os.fsdecode(root.root.path))}: {root.files} files{missing}{away}")
        if root.root.left_out:
            click.echo(f"         leaves out {printable(', '.join(root.root.left_out))}")
        if root.root.include_hidden:
            click.echo("         takes in hidden files")
    if state.missing:
        click.echo(f"missing  {state.missing} files; `diffsim prune` forgets them")
    for failed in state.failed:
        click.echo(f"failed   {printable(os.fsdecode(failed.path))}: {failed.reason}")


def _networks() -> str:
    """The folder of fetched networks, or why there is none."""
    from diffsim.retrieval.families.locate import models_folder
    from diffsim.retrieval.user_folders import NoHome

    try:
        return str(models_folder())
    except NoHome:
        return "none can be fetched: this user has no home folder, and $DIFFSIM_MODELS names none"


def _standing(space: "KnownSpace", answers: "KnownSpace") -> str:
    """The role of a space among those that share its name."""
    if space == answers:
        return f"answers for the name {space.name}"
    if space.id > answers.id:
        return f"answers for its name when it holds as many pictures as {answers.fingerprint}"
    return f"replaced by {answers.fingerprint}; `diffsim prune --space {space.fingerprint}` forgets it"
