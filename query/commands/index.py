"""`diffsim index`: build or update."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsim.retrieval.names import LIKENESSES

from ..text import printable, size_text, time_text
from .options import Choice, FilePath, device_option, index_option, memory_option, space_options
from .progress import stages

if TYPE_CHECKING:
    from diffsim.indexer.build import IndexReport

_SHOWN_FAILURES = 20

_LARGER = (
    "Larger networks may see more than the bundled mini, dinov2-base of objects and sd15 of style: "
    "`diffsim models list` shows each with its speed on this machine and how to get it."
)


@click.command()
@click.argument("folders", nargs=-1, type=FilePath())
@index_option
@click.option(
    "--by",
    "profiles",
    multiple=True,
    type=Choice(LIKENESSES),
    help="What similar means; repeatable.  [default: look]",
)
@space_options(without=("prompt", "seed"))
@device_option
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Pictures per network pass."
)
@memory_option
@click.option(
    "--exclude",
    "--exclude-dir",
    "exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out what matches a pattern of .gitignore: private/, '*.gif', /2020/raw; !PATTERN takes one back. "
    "Remembered for these folders, see `diffsim status`; repeatable.",
)
@click.option(
    "--include-hidden/--exclude-hidden",
    default=None,
    help="Whether hidden files and folders belong to the index; remembered.  [default: no]",
)
@click.option("--retry-failed", is_flag=True, help="Retry files that failed before, even if they have not changed.")
@click.option(
    "--shard-pictures",
    type=click.IntRange(min=1),
    help="How many pictures the newest part of the index takes before the next one begins; remembered.  "
    "[default: 1000000]",
)
@click.option(
    "--catalog",
    metavar="URL",
    help="Where a new index has its catalog: a PostgreSQL database, as postgresql://USER@HOST/DATABASE, without a "
    "password; remembered.  [default: a file in the index]",
)
@click.option(
    "--cluster",
    metavar="auto|local|HOST:PORT|none",
    help="Ask the index over this Ray cluster from now on, see docs/cluster.md; remembered.  [default: none]",
)
@click.option("--dry-run", is_flag=True, help="Only report what there is to do, and estimate time and disk.")
def index(
    folders: tuple[Path, ...],
    index_path: Path,
    profiles: tuple[str, ...],
    asked: dict[str, Any],
    device: str,
    batch_size: int,
    memory: int,
    exclude: tuple[str, ...],
    include_hidden: bool | None,
    retry_failed: bool,
    shard_pictures: int | None,
    catalog: str | None,
    cluster: str | None,
    dry_run: bool,
) -> None:
    """Build the index from FOLDERS, or bring it up to date with them.

    Recursive, incremental and resumable: known pictures are not computed again, even if renamed or moved. Without
    FOLDERS, all folders of the index are scanned again. Without --model, --by, --layer, --timestep or --size, every
    feature space of the index is filled (except those whose network is missing or has changed); with one of them, only
    the space that they describe.
    """
    from diffsim.db.postgres import server_address
    from diffsim.indexer.index_folder import IndexFolder

    if not folders and not (index_path / "index.toml").exists():
        raise click.UsageError("Name at least one folder of pictures: diffsim index FOLDER.")

    from diffsim.indexer.build import IndexOptions, index_folders
    from diffsim.indexer.estimate import estimate
    from diffsim.indexer.requests import DEFAULT_MODEL, requested_spaces

    requests = requested_spaces(profiles=profiles, **asked) if profiles or asked else []
    options = IndexOptions(
        exclude=exclude,
        include_hidden=include_hidden,
        device=device,
        batch_size=batch_size,
        memory=memory,
        retry_failed=retry_failed,
        shard_pictures=shard_pictures,
    )
    if catalog is not None:
        server_address(catalog)
    if dry_run:
        with stages() as on_work:
            found = estimate(index_path, folders, requests, options, on_work)
        click.echo(f"{found.pictures} pictures on disk, {found.known} of them indexed.")
        click.echo(f"To do: {found.todo}, about {time_text(found.seconds)} and {size_text(found.disk)} of disk.")
        for skipped in found.skipped:
            click.echo(f"skipped  {skipped}")
        _print_unmatched(found.unmatched)
        return
    new = not (index_path / "index.toml").exists()
    try:
        with stages() as on_work, IndexFolder.begin(index_path, catalog) as begun:
            if cluster is not None:
                begun = begun.use_cluster(cluster)
            extracting = partial(on_work, "Extracting pictures")
            report = index_folders(begun, folders, requests, options, on_progress=extracting, on_work=on_work)
    except KeyboardInterrupt:
        raise click.ClickException("Interrupted; what was done is kept: run the same command again to go on.") from None
    _print_report(report, index_path)
    if new and report.extracted and all(space.known.network == DEFAULT_MODEL for space in report.spaces):
        click.echo(_LARGER, err=True)


def _print_report(report: "IndexReport", where: Path) -> None:
    account = report.account
    kinds = ("new", "changed", "moved", "copied", "unchanged", "failed", "excluded")
    parts = " + ".join(f"{getattr(account, kind)} {kind}" for kind in kinds if getattr(account, kind) or kind == "new")
    click.echo(f"on disk  {account.on_disk} = {parts}")
    click.echo(
        f"known    {account.known} = {account.indexed} indexed + {account.missing} missing + {account.offline} offline"
    )
    if account.waiting and report.skipped:
        click.echo(f"waiting  {account.waiting} files are not in every feature space")
    elif account.waiting:
        click.echo(f"waiting  {account.waiting} files could not be read steadily; run the same command again")
    for skipped in report.skipped:
        click.echo(f"skipped  {skipped}")
    if account.excluded:
        click.echo(
            "excluded " + ", ".join(f"{count} {reason}" for reason, count in sorted(account.excluded_by_reason.items()))
        )
    _print_unmatched(report.unmatched)
    for path, reason in account.failures[:_SHOWN_FAILURES]:
        click.echo(f"failed   {printable(os.fsdecode(path))}: {reason}")
    if len(account.failures) > _SHOWN_FAILURES:
        click.echo(
            f"failed   ... and {len(account.failures) - _SHOWN_FAILURES} more; `diffsim status` lists all of them"
        )
    for path, reason in report.offline:
        click.echo(f"offline  {printable(os.fsdecode(path))}: {reason}; its pictures are kept")
    for recall in report.recall:
        loss = f", finds {1 - recall.snapshot.loss:.1%} of the exact candidates" if recall.snapshot.loss else ""
        click.echo(f"recall   {recall.space.name}: {recall.snapshot.factory} over {recall.pictures} pictures{loss}")
    rate = f", {report.extracted / report.seconds:.1f} pictures/s" if report.extracted else ""
    click.echo(f"{report.extracted} pictures extracted in {time_text(report.seconds)}{rate}; index in {where}")


def _print_unmatched(patterns: list[str]) -> None:
    for pattern in patterns:
        click.echo(f"excluded nothing by {printable(pattern)}: no file or folder there matches this pattern")
