"""`diffsim compare`: what each feature space finds similar."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from .options import FilePath, device_option, index_option
from .query import json_row, sheet_hits, table

if TYPE_CHECKING:
    from ..compare import Comparison


@click.command()
@click.argument("image", type=FilePath())
@index_option
@click.option(
    "-k", "--top", type=click.IntRange(1, 100), default=4, show_default=True, help="How many neighbours in each space."
)
@click.option(
    "--space",
    "spaces",
    multiple=True,
    help="A feature space by name or fingerprint, as `diffsim status` lists them; repeatable.  [default: all]",
)
@click.option("--include-self", is_flag=True, help="List the query picture itself too; else its other copies only.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, one hit per line, as from `query`, with its space.")
@click.option(
    "--sheet",
    type=FilePath(dir_okay=False),
    help="Also draw the query and a row for each space into this PNG.",
)
@device_option
def compare(
    image: Path,
    index_path: Path,
    top: int,
    spaces: tuple[str, ...],
    include_self: bool,
    as_json: bool,
    sheet: Path | None,
    device: str,
) -> None:
    """Rank the pictures of the index by similarity to IMAGE, once for each feature space.

    A space that cannot be queried, because its network is not on this machine, is named on stderr and left out.
    """
    from ..compare import compare as ask_all
    from ..query import Query
    from ..search import Searcher

    with Searcher(index_path, device) as searcher:
        found = ask_all(searcher, Query(image, k=top, include_self=include_self), spaces)
    if sheet:
        _draw(image, found, sheet)
    stdout = sys.stdout.buffer
    stdout.write(_json(found) if as_json else _tables(found))
    stdout.flush()
    for problem in found.problems:
        click.echo(f"left out {problem}", err=True)
    for answer in found.answers:
        for note in answer.notes:
            click.echo(f"{answer.name}: {note}", err=True)


def _tables(found: "Comparison") -> bytes:
    return b"\n".join(f"{answer.name}\n".encode() + table(answer.hits) for answer in found.answers)


def _json(found: "Comparison") -> bytes:
    rows = [{"space": answer.name, **json_row(hit)} for answer in found.answers for hit in answer.hits]
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def _draw(image: Path, found: "Comparison", sheet: Path) -> None:
    from ..figures.sheet import draw_comparison, save_png
    from ..figures.thumbnails import thumbnail

    rows = [(answer.name, sheet_hits(answer.hits)) for answer in found.answers]
    save_png(draw_comparison(thumbnail(image), rows, printable(image.name)), sheet)
