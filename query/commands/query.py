"""`diffsim query`: ranked neighbours of a picture, of a text, or of several of both."""

import csv
import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsim.retrieval.names import LIKENESSES

from ..metadata import told
from ..text import certainty, chance_text, likeness_ended, printable, standing_text
from .files import WEIGHED_PICTURE, WEIGHED_TEXT, GivenPicture, Picture, output_option
from .options import NEAR, REGION, Choice, Date, FilePath, WeighedChoice, device_option, index_option

if TYPE_CHECKING:
    from datetime import datetime

    from diffsim.indexer.index_folder import IndexFolder

    from ..query import Answer, Example, Hit


@click.command()
@click.argument("image", type=Picture(), required=False)
@click.option("--text", metavar="TEXT", help="Words that say what a picture shows, in place of IMAGE.")
@index_option
@click.option("-k", "--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many neighbours.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="How many candidates the first stage passes to the second.",
)
@click.option(
    "--by",
    "profiles",
    multiple=True,
    metavar=f"[{'|'.join(LIKENESSES)}][:WEIGHT]",
    type=WeighedChoice(LIKENESSES),
    help="What similar means; several are combined, with their weights: style:0.7.  [default: the first space of the "
    "index]",
)
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="SPACE[:WEIGHT]",
    help="A feature space by name or fingerprint, as `diffsim status` lists them; several are combined.",
)
@click.option(
    "--region", type=REGION, metavar="X,Y,W,H", help="Count only similarity to this box of IMAGE; fractions, 0 to 1."
)
@click.option(
    "--add",
    type=WEIGHED_PICTURE,
    multiple=True,
    metavar="[WEIGHT:]PICTURE",
    help="An additional example; IMAGE has weight 1.",
)
@click.option(
    "--subtract",
    type=WEIGHED_PICTURE,
    multiple=True,
    metavar="[WEIGHT:]PICTURE",
    help="Push away what is similar.",
)
@click.option("--add-text", type=WEIGHED_TEXT, multiple=True, metavar="[WEIGHT:]TEXT", help="The same with words.")
@click.option("--subtract-text", type=WEIGHED_TEXT, multiple=True, metavar="[WEIGHT:]TEXT", help="Push away in words.")
@click.option("--folder", "folders", type=FilePath(), multiple=True, help="Only pictures below this folder.")
@click.option("--after", type=Date(), help="Only pictures of this day or later: by EXIF, else by the file.")
@click.option("--before", type=Date(), help="Only pictures from before this day.")
@click.option("--min-side", type=click.IntRange(min=1), help="Only pictures with both sides at least this many pixels.")
@click.option("--type", "types", multiple=True, metavar="FORMAT", help="Only pictures of this format: jpeg, png, ...")
@click.option(
    "--colour",
    "colours",
    multiple=True,
    metavar="COLOUR[:SHARE%]",
    help="Only pictures of which a share has this colour, #c0392b or a name; 10 % unless another is given.",
)
@click.option("--camera", metavar="TEXT", help="Only pictures taken with a camera whose name holds this.")
@click.option("--keyword", "keywords", multiple=True, metavar="WORD", help="Only pictures that have this keyword.")
@click.option("--rating", type=click.IntRange(1, 5), help="Only pictures with at least this many stars.")
@click.option("--near", type=NEAR, metavar="LAT,LON,KM", help="Only pictures taken within KM kilometres of a place.")
@click.option("--name", default="", help="Only pictures with this in their path below the indexed folder.")
@click.option("--fold", is_flag=True, help="Group near-duplicates under their best-ranked hit.")
@click.option("--no-rerank", is_flag=True, help="Stop after the first stage: order by pooled descriptors.")
@click.option("--exact", is_flag=True, help="Score every picture instead of recalled candidates.")
@click.option(
    "--max-by-chance",
    type=click.FloatRange(min=0),
    help="Drop hits with more than this many matches expected by chance.",
)
@click.option("--include-self", is_flag=True, help="List the query picture itself too; else its other copies only.")
@click.option(
    "--format",
    "form",
    type=Choice(["table", "json", "csv", "paths"]),
    default="table",
    show_default=True,
    help="json is JSON Lines, one hit per line.",
)
@click.option("--include-private", is_flag=True, help="Tell in JSON also where a picture was taken, and its caption.")
@click.option(
    "--shard-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Of an index on a cluster: how long a shard is waited for, before the answer is given without it.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if a shard had no part in the answer.")
@output_option("--sheet", "Also draw the query and its neighbours into this .png or .jpg.")
@device_option
def query(
    image: GivenPicture | None,
    text: str | None,
    index_path: Path,
    top: int,
    candidates: int,
    profiles: tuple[str, ...],
    spaces: tuple[str, ...],
    region: tuple[float, ...] | None,
    add: tuple[tuple[float, GivenPicture], ...],
    subtract: tuple[tuple[float, GivenPicture], ...],
    add_text: tuple[tuple[float, str], ...],
    subtract_text: tuple[tuple[float, str], ...],
    folders: tuple[Path, ...],
    after: "datetime | None",
    before: "datetime | None",
    min_side: int | None,
    types: tuple[str, ...],
    colours: tuple[str, ...],
    camera: str | None,
    keywords: tuple[str, ...],
    rating: int | None,
    near: tuple[float, float, float] | None,
    name: str,
    fold: bool,
    no_rerank: bool,
    exact: bool,
    max_by_chance: float | None,
    include_self: bool,
    form: str,
    include_private: bool,
    shard_timeout: float,
    strict: bool,
    sheet: Path | None,
    force: bool,
    device: str,
) -> None:
    """Rank the pictures of the index by similarity to IMAGE: its path, or - for standard input; or by what --text
    says."""
    if (image is None) == (text is None):
        raise click.UsageError(
            "Missing argument 'IMAGE': give a picture, or words with --text."
            if image is None
            else "IMAGE and --text are both given; give further words with --add-text."
        )
    from diffsim.db.filters import Filters

    from ..outputs import check_output
    from ..query import Example, Query, Text
    from ..search import Searcher

    asked_with = Text(text or "") if image is None else image.subject
    title = f"“{asked_with.text}”" if isinstance(asked_with, Text) else image.name  # type: ignore[union-attr]
    examples = [
        Example(asked_with, region=region),  # type: ignore[arg-type]  # Example checks the box
        *(Example(picture.subject, weight) for weight, picture in add),
        *(Example(picture.subject, -weight) for weight, picture in subtract),
        *(Example(Text(words), weight) for weight, words in add_text),
        *(Example(Text(words), -weight) for weight, words in subtract_text),
    ]
    asked = Query(
        examples,
        spaces=profiles + spaces,
        k=top,
        candidates=candidates,
        rerank=not no_rerank,
        exact=exact,
        include_self=include_self,
        max_by_chance=max_by_chance,
        filters=Filters(
            folders,
            after,
            before,
            min_side,
            formats=types,
            name=name,
            camera=camera,
            keywords=keywords,
            rating=rating,
            near=near,
        ),
        fold=fold,
        colours=colours,
    )
    with Searcher(index_path, device, shard_timeout=shard_timeout) as searcher:
        if sheet:
            check_output(sheet, force=force, catalog=searcher.catalog)
        answer = searcher.answer(asked)
    stdout = sys.stdout.buffer
    stdout.write(_json(answer, include_private) if form == "json" else _FORMATS[form](answer.hits))
    stdout.flush()
    for note in _notes(answer, form):
        click.echo(note, err=True)
    if sheet:
        _draw(examples, answer, f"{printable(title)} by {answer.name}", sheet, searcher.index)
    if strict and answer.unanswered:
        raise click.ClickException(
            f"The answer lacks {len(answer.unanswered)} of the shards, and --strict wants all of them; ask again in a "
            "minute, or see what is wrong with the cluster with `ray status`."
        )


def _notes(answer: "Answer", form: str) -> list[str]:
    notes = list(answer.notes)
    if form == "paths" and any("\n" in hit.path for hit in answer.hits):
        notes.append("A path contains a line break and so spans several lines; --format json keeps it whole.")
    stages = f"{answer.pictures} pictures, {answer.recalled} recalled, {answer.scored} scored by full attention"
    return [*notes, f"{answer.name}: {stages}."]


def table(hits: list["Hit"]) -> bytes:
    figure = "likeness" if any(hit.likeness is not None for hit in hits) else "score"
    lines = [f"rank  {figure:>8}  by chance          picture"]
    ended = False
    for hit in hits:
        if likeness_ended(hit.by_chance) and not ended:
            lines.append("-- likeness ends here: by chance alone, more than one picture would score as high --")
            ended = True
        chance = "" if hit.by_chance is None else chance_text(hit.by_chance)
        known = f"{standing_text(hit.score, hit.likeness):>8}  {chance:>9}  {certainty(hit.by_chance):6}"
        more = f"  (and {len(hit.paths) - 1} more files)" if len(hit.paths) > 1 else ""
        more += f"  (and {len(hit.duplicates)} near copies)" if hit.duplicates else ""
        offline = "  (offline)" if hit.offline else ""
        lines.append(f"{hit.rank:4d}  {known}   {printable(hit.path)}{more}{offline}")
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def json_row(hit: "Hit", private: bool = False) -> dict[str, Any]:
    """private: with what its file says that is nobody else's business, see query/metadata.py."""
    return {
        "rank": hit.rank,
        "path": hit.path,
        "score": round(hit.score, 6),
        "likeness": None if hit.likeness is None else round(hit.likeness, 3),
        "recall_rank": hit.recall_rank,
        "by_chance": hit.by_chance,
        "paths": hit.paths,
        "offline": hit.offline,
        "date": None if hit.date is None else hit.date.isoformat(),
        "date_of": hit.date_of,
        "metadata": told(hit.metadata, private),
        "content_id": hit.content_id,
        "duplicates": [json_row(copy, private) for copy in hit.duplicates],
    }


def _json(answer: "Answer", private: bool) -> bytes:
    """Rows of an answer that lacks shards name these.

    ASCII only: a byte of a path that is not UTF-8 is written as \\udcXX, which Python's os.fsencode turns back."""
    lacking = {"unanswered": [asdict(shard) for shard in answer.unanswered]} if answer.unanswered else {}
    return "".join(json.dumps(json_row(hit, private) | lacking) + "\n" for hit in answer.hits).encode("ascii")


def _csv(hits: list["Hit"]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["rank", "score", "likeness", "by_chance", "recall_rank", "path"])
    for hit in hits:
        likeness = "" if hit.likeness is None else f"{hit.likeness:.3f}"
        by_chance = "" if hit.by_chance is None else hit.by_chance
        table.writerow([hit.rank, f"{hit.score:.6f}", likeness, by_chance, hit.recall_rank, hit.path])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _paths(hits: list["Hit"]) -> bytes:
    return b"".join(os.fsencode(hit.path) + b"\n" for hit in hits)


_FORMATS = {"table": table, "csv": _csv, "paths": _paths}


def _draw(examples: list["Example"], answer: "Answer", title: str, sheet: Path, index: "IndexFolder") -> None:
    from ..figures.sheet import SheetExample, draw_sheet, sheet_hits
    from ..figures.thumbnails import thumbnails
    from ..outputs import save_picture
    from ..picture_cache import shown_pictures

    shown = [
        SheetExample(picture, example.weight, example.region)
        for picture, example in zip(thumbnails([example.subject for example in examples]), examples, strict=True)
    ]
    with shown_pictures(index) as pictures:
        hits = sheet_hits(answer.hits, pictures)
    save_picture(draw_sheet(shown, hits, title), sheet)
    report_boxes([title, *(text for hit in hits for text in (hit.name, hit.folder))])


def report_boxes(texts: list[str]) -> None:
    """Say so where a sheet shows boxes in place of letters."""
    from ..figures.lettering import boxes

    if any(map(boxes, texts)):
        click.echo(
            "Some letters on the sheet are boxes, because no font with them was found; install for example DejaVu Sans "
            "(Cyrillic, Greek, Arabic) or Noto Sans CJK (Chinese, Japanese, Korean).",
            err=True,
        )
