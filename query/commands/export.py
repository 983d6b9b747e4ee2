"""`diffsim export`: the pictures of an index as files for other programs."""

from pathlib import Path

import click

from diffsim.retrieval.names import PROFILES

from .options import Choice, FilePath, index_option
from .progress import progress


@click.command()
@index_option
@click.option("--parquet", type=FilePath(), metavar="FILE", help="Write a .parquet file, a row for each picture.")
@click.option("--numpy", type=FilePath(), metavar="FOLDER", help="Write a folder of numpy arrays.")
@click.option(
    "--by",
    "profiles",
    multiple=True,
    type=Choice(PROFILES),
    help="The feature space of a profile; repeatable.  [default: the first space of the index]",
)
@click.option("--space", "spaces", multiple=True, help="A feature space by name or fingerprint; repeatable.")
@click.option("--tokens", is_flag=True, help="Also the token records, in Parquet: large.")
@click.option("--include-private", is_flag=True, help="Also where pictures were taken, and their captions.")
@click.option("--force", is_flag=True, help="Let --parquet replace a file that this program did not write.")
def export(
    index_path: Path,
    parquet: Path | None,
    numpy: Path | None,
    profiles: tuple[str, ...],
    spaces: tuple[str, ...],
    tokens: bool,
    include_private: bool,
    force: bool,
) -> None:
    """Write what is known of every picture, and its descriptors, for other programs."""
    from .. import export as files

    with progress("Exporting", "pictures") as on_progress:
        done = files.export(
            index_path,
            parquet=parquet,
            numpy=numpy,
            spaces=profiles + spaces,
            tokens=tokens,
            private=include_private,
            force=force,
            on_progress=on_progress,
        )
    click.echo(f"{done.pictures:,} pictures written.", err=True)
    if done.incomplete:
        click.echo(
            f"{done.incomplete:,} of them have no path, because the catalog's rows are damaged or gone; run "
            "`diffsim verify`, then `diffsim index`.",
            err=True,
        )
