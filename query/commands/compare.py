"""`diffsim compare`: what each feature space finds similar."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from .files import GivenPicture, Picture, output_option
from .options import device_option, index_option
from .query import json_row, report_boxes, table

if TYPE_CHECKING:
    from diffsim.indexer.index_folder import IndexFolder

    from ..compare import Comparison


@click.command()
@click.argument("image", type=Picture())
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
@output_option("--sheet", "Also draw the query and a row for each space into this .png or .jpg.")
@device_option
def compare(
    image: GivenPicture,
    index_path: Path,
    top: int,
    spaces: tuple[str, ...],
    include_self: bool,
    as_json: bool,
    sheet: Path | None,
    force: bool,
    device: str,
) -> None:
    """Rank the pictures of the index by similarity to IMAGE, once for each feature space.

    IMAGE is a path, or - for standard input. A space that cannot be queried, because its network is not on this
    machine, is named on stderr and left out.
    """
    from ..compare import compare as ask_all
    from ..outputs import check_output
    from ..query import Query
    from ..search import Searcher

    with Searcher(index_path, device) as searcher:
        if sheet:
            check_output(sheet, force=force, catalog=searcher.catalog)
        found = ask_all(searcher, Query(image.subject, k=top, include_self=include_self), spaces)
    stdout = sys.stdout.buffer
    stdout.write(_json(found) if as_json else _tables(found))
    stdout.flush()
    for problem in found.problems:
        click.echo(f"left out {problem}", err=True)
    for answer in found.answers:
        for note in answer.notes:
            click.echo(f"{answer.name}: {note}", err=True)
    if sheet:
        _draw(image, found, sheet, searcher.index)


def _tables(found: "Comparison") -> bytes:
    return b"\n".join(f"{answer.name}\n".encode() + table(answer.hits) for answer in found.answers)


def _json(found: "Comparison") -> bytes:
    rows = [{"space": answer.name, **json_row(hit)} for answer in found.answers for hit in answer.hits]
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def _draw(image: GivenPicture, found: "Comparison", sheet: Path, index: "IndexFolder") -> None:
    from ..figures.sheet import SheetExample, draw_comparison, sheet_hits
    from ..figures.thumbnails import thumbnail
    from ..outputs import save_picture
    from ..picture_cache import shown_pictures

    with shown_pictures(index) as pictures:
        rows = [(answer.name, sheet_hits(answer.hits, pictures)) for answer in found.answers]
    title = printable(image.name)
    save_picture(draw_comparison([SheetExample(thumbnail(image.subject))], rows, title), sheet)
    report_boxes([title, *(text for _, hits in rows for hit in hits for text in (hit.name, hit.folder))])
