"""`diffsim duplicates`: groups of copies in the index. Nothing is moved or deleted."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsim.retrieval.names import COPY_KINDS

from ..text import printable, size_text
from .files import output_option
from .options import Choice, index_option
from .progress import progress

if TYPE_CHECKING:
    from ..duplicates import Duplicate

Group = list["Duplicate"]

_SUFFIXES = (".txt", ".list")


@click.command()
@index_option
@click.option("--kind", "kinds", multiple=True, type=Choice(COPY_KINDS), help="Only copies of this kind; repeatable.")
@click.option("--space", help="The feature space whose nearest neighbours are compared.  [default: the first]")
@click.option(
    "--neighbours",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many of the nearest of each picture are compared with it.",
)
@click.option(
    "--format",
    "form",
    type=Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="json is JSON Lines, one group per line.",
)
@output_option("--list", "Also write the paths of all but the first of each group into this .txt, one per line.")
@click.option("--null", "null", is_flag=True, help="End the paths of --list with a null byte, as xargs -0 reads them.")
def duplicates(
    index_path: Path,
    kinds: tuple[str, ...],
    space: str | None,
    neighbours: int,
    form: str,
    list: Path | None,
    force: bool,
    null: bool,
) -> None:
    """Find copies in the index: exact, resized, recoloured, cropped, captioned, mirrored, and bursts.

    Each group begins with its largest picture without a caption. Nothing is moved or deleted; --list FILE is for other
    tools.
    """
    from ..duplicates import find_duplicates
    from ..outputs import check_output
    from ..search import Searcher

    if null and list is None:
        raise click.UsageError("--null says how --list ends its paths; give --list FILE too.")
    with Searcher(index_path, "cpu") as searcher, progress("Looking for copies", "pictures") as on_progress:
        if list is not None:
            check_output(list, _SUFFIXES, force=force, catalog=searcher.catalog)
        found = find_duplicates(searcher, space, kinds, neighbours, on_progress)
    sys.stdout.buffer.write(_FORMATS[form](found.groups))
    sys.stdout.buffer.flush()
    files = sum(map(len, found.groups))
    for note in found.notes:
        click.echo(note, err=True)
    click.echo(f"{files} files in {len(found.groups)} groups; {found.pictures} pictures looked at.", err=True)
    if list is not None:
        _write_list(list, found.groups, b"\0" if null else b"\n")


def _write_list(path: Path, groups: list[Group], end: bytes) -> None:
    from ..outputs import write_output

    paths = [os.fsencode(copy.path) for group in groups for copy in group[1:]]

    def write(part: Path) -> None:
        part.write_bytes(b"".join(each + end for each in paths))

    write_output(path, write)
    if end == b"\n" and any(b"\n" in each for each in paths):
        click.echo("A path contains a line break and so spans several lines; --null keeps it whole.", err=True)


def _table(groups: list[Group]) -> bytes:
    lines = []
    for number, group in enumerate(groups, start=1):
        lines.append(f"group {number}: {len(group)} files")
        for copy in group:
            marks = " largest" * copy.largest + " oldest" * copy.oldest
            date = "" if copy.date is None else f"{copy.date:%Y-%m-%d %H:%M}"
            size = f"{copy.width} x {copy.height}"
            lines.append(
                f"  {copy.kind or 'first':10}  {size:>13}  {size_text(copy.bytes):>10}  {date:16} {marks:15}  "
                f"{printable(copy.path)}"
            )
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def _row(copy: "Duplicate") -> dict[str, Any]:
    return {
        "path": copy.path,
        "kind": copy.kind,
        "agreement": round(copy.agreement, 3),
        "width": copy.width,
        "height": copy.height,
        "bytes": copy.bytes,
        "date": None if copy.date is None else copy.date.isoformat(),
        "largest": copy.largest,
        "oldest": copy.oldest,
        "content_id": copy.content_id,
    }


def _json(groups: list[Group]) -> bytes:
    """ASCII only, as in `query`."""
    rows = ({"group": number, "files": [_row(copy) for copy in group]} for number, group in enumerate(groups, start=1))
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def _csv(groups: list[Group]) -> bytes:
    text = io.StringIO(newline="")
    names = ["kind", "agreement", "width", "height", "bytes", "date", "largest", "oldest", "content_id", "path"]
    table = csv.DictWriter(text, ["group", *names], lineterminator="\n")
    table.writeheader()
    for number, group in enumerate(groups, start=1):
        table.writerows({"group": number, **_row(copy)} for copy in group)
    return text.getvalue().encode("utf-8", "surrogateescape")


_FORMATS = {"table": _table, "json": _json, "csv": _csv}
