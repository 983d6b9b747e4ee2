"""`diffsim evaluate`: the paper's benchmarks, and one's own, for any feature space and for plain baselines."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import platformdirs

from retrieval.names import BENCHMARKS

from .options import device_option, printable
from .progress import progress

if TYPE_CHECKING:
    from indexer.build import IndexOptions
    from indexer.evaluation import Contender

_SHOWN_FIGURES = ("mAP", "precision@1", "precision@5", "precision@10", "recall@10")
_SEED = 2334


@click.command()
@click.argument("bench", type=click.Choice(BENCHMARKS), metavar="BENCH")
@click.argument("root", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--space",
    "specs",
    multiple=True,
    default=("mini/style",),
    show_default=True,
    metavar="SPEC",
    help="What is measured, repeatable: MODEL/PROFILE, MODEL/LAYER@tTIMESTEP, colour-histogram, thumbnail, "
    "gradient-histogram.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="At most so many triplets or queries, a seeded sample.  [default: all]"
)
@click.option("--seed", type=int, default=_SEED, show_default=True, help="For draws, samples and intervals.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Index that keeps the features.  [default: in the platform's user cache folder]",
)
@click.option("--save-triplets", type=click.Path(path_type=Path, dir_okay=False), help="Write the triplets as a CSV.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and space.")
@device_option
def evaluate(
    bench: str,
    root: Path,
    specs: tuple[str, ...],
    limit: int | None,
    seed: int,
    cache: Path | None,
    save_triplets: Path | None,
    as_json: bool,
    device: str,
) -> None:
    """Measure how well feature spaces tell what BENCH asks, on the pictures in ROOT.

    BENCH is a benchmark of the paper, whose data set lies in the folder ROOT: sref, ip, nights, cute, tid2013,
    instantstyle or dreambench; or one's own, with a CSV for ROOT: triplets (columns reference, closer, farther and
    perhaps unit) or retrieval (columns file, group and perhaps lookalike).

    A SPEC may end in @SIZEpx (another picture size) and in :pooled (pooled descriptors alone, without the token stage).
    """
    if bench == "retrieval" and save_triplets:
        raise click.UsageError("A retrieval benchmark has no triplets to save; drop --save-triplets.")
    from indexer.build import IndexOptions
    from indexer.evaluation import parse_spec

    contenders = [parse_spec(spec) for spec in specs]
    options = IndexOptions(device=device)
    cache = cache or platformdirs.user_cache_path("diffsim") / "evaluation"
    try:
        if bench == "retrieval":
            rows = _retrieval(root, contenders, limit, seed, cache, options)
        else:
            rows = _triplets(bench, root, contenders, limit, seed, cache, options, save_triplets)
    except KeyboardInterrupt:
        raise click.ClickException(
            "Interrupted; the features so far are kept: run the same command again to go on."
        ) from None
    for row in rows if as_json else []:
        click.echo(json.dumps({"benchmark": bench, "seed": seed, **row}))
    if not as_json:
        click.echo("\n".join(_retrieval_table(rows) if bench == "retrieval" else _accuracy_table(rows)))


def _triplets(
    bench: str,
    root: Path,
    contenders: "Sequence[Contender]",
    limit: int | None,
    seed: int,
    cache: Path,
    options: "IndexOptions",
    save: Path | None,
) -> list[dict[str, Any]]:
    """A row of figures for each contender, all on the same triplets: those that every one of them can score."""
    import numpy as np

    from indexer.evaluation import open_scorers
    from retrieval.evaluation.benchmarks import read_benchmark
    from retrieval.evaluation.triplets import accuracy, gain, limited, verdicts, write_triplets

    question = read_benchmark(bench, root, seed)
    for note in question.notes:
        click.echo(f"Note: {note}", err=True)
    triplets = limited(question.triplets, limit, seed)
    if save:
        write_triplets(save, triplets)
    pictures = sorted({path for t in triplets for path in (t.reference, t.closer, t.farther)})
    _check_pictures(pictures)
    row_of = {picture: row for row, picture in enumerate(pictures)}
    reference, closer, farther = (
        np.array([row_of[path] for path in column], np.int64)
        for column in zip(*((t.reference, t.closer, t.farther) for t in triplets), strict=True)
    )
    scores = []
    with ExitStack() as opened:
        with progress() as on_progress:
            scorers = open_scorers(contenders, root, pictures, cache, options, opened, on_progress=on_progress)
        for contender, scorer in zip(contenders, scorers, strict=True):
            with progress(f"Scoring {contender.spec}", "pairs") as on_progress:
                both = scorer.pairs(np.tile(reference, 2), np.concatenate([closer, farther]), on_progress)
            scores.append(both.reshape(2, -1))
    scored = ~np.isnan(np.stack(scores)).any(axis=(0, 1))
    left_out = len(triplets) - int(scored.sum())
    if left_out == len(triplets):
        raise click.ClickException(f"No triplet could be scored: none of the pictures in {root} could be read.")
    if left_out:
        click.echo(f"Note: {left_out} triplets were left out: a picture of theirs could not be read.", err=True)
    units = [triplet.unit for triplet, good in zip(triplets, scored, strict=True) if good]
    _warn_of_few_units(len(set(units)), question.unit)
    found = [verdicts(near[scored], far[scored]) for near, far in scores]
    return [
        {
            "space": contender.spec,
            "accuracy": asdict(accuracy(one, units, seed)),
            "gain": asdict(gain(one, found[0], units, seed)),
            "triplets": len(one),
            "ties": int((one == 0).sum()),
            "left_out": left_out,
            "units": len(set(units)),
            "unit": question.unit,
        }
        for contender, one in zip(contenders, found, strict=True)
    ]


def _retrieval(
    root: Path,
    contenders: "Sequence[Contender]",
    limit: int | None,
    seed: int,
    cache: Path,
    options: "IndexOptions",
) -> list[dict[str, Any]]:
    """A row of figures for each contender, all over the pictures that every one of them can score."""
    import numpy as np

    from indexer.evaluation import open_scorers
    from retrieval.evaluation.ranking import read_labelled, retrieval, sampled_queries

    labelled = read_labelled(root)
    _check_pictures(labelled.pictures)
    queries = sampled_queries(len(labelled.pictures), limit, seed)
    matrices = []
    with ExitStack() as opened:
        with progress() as on_progress:
            scorers = open_scorers(contenders, root, labelled.pictures, cache, options, opened, on_progress=on_progress)
        for contender, scorer in zip(contenders, scorers, strict=True):
            with progress(f"Scoring {contender.spec}", "queries") as on_progress:
                matrices.append(scorer.matrix(queries, on_progress))
    unread = np.isnan(np.stack(matrices)).any(axis=0)
    rows = []
    for contender, scores in zip(contenders, matrices, strict=True):
        scores[unread] = np.nan
        found = retrieval(scores, queries, labelled, seed)
        if not found.figures:
            raise click.ClickException(f"No picture of {root} can be found by another one; give groups of two or more.")
        figures = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in found.figures.items()}
        rows.append(
            {
                "space": contender.spec,
                **figures,
                "queries": found.queries,
                "left_out": found.alone,
                "pictures": len(labelled.pictures),
                "groups": found.groups,
            }
        )
    if found.alone:
        click.echo(f"Note: {found.alone} queries were left out: no picture to be found, or unreadable.", err=True)
    _warn_of_few_units(found.groups, "groups")
    return rows


def _check_pictures(pictures: Sequence[Path]) -> None:
    absent = [picture for picture in pictures if not picture.is_file()]
    if len(absent) == len(pictures):
        raise click.ClickException(
            f"None of the pictures is there (the first: {printable(str(absent[0]))}); check the folder."
        )
    if absent:
        click.echo(f"Note: {len(absent)} pictures are not there (the first: {printable(str(absent[0]))}).", err=True)


def _warn_of_few_units(units: int, kind: str) -> None:
    from retrieval.evaluation.bootstrap import FEW_UNITS

    if units < FEW_UNITS:
        click.echo(f"Note: with {units} {kind}, the intervals are rough, and rather too narrow.", err=True)


def _percent(figure: dict[str, Any], sign: str = "") -> str:
    """A figure and its interval in per cent."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    interval = "" if low is None else f" ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"
    return f"{100 * value:{sign}.1f}{interval}"


def _accuracy_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["space", "accuracy % (95 %)", "more than the first", "triplets", "ties", "left out", rows[0]["unit"]]
    counts = ("triplets", "ties", "left_out", "units")
    lines = [
        [
            row["space"],
            _percent(row["accuracy"]),
            _percent(row["gain"], "+") if number else "",
            *(str(row[name]) for name in counts),
        ]
        for number, row in enumerate(rows)
    ]
    return _aligned(head, lines)


def _retrieval_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["space", *(f"{name} % (95 %)" for name in _SHOWN_FIGURES), "queries", "left out", "pictures", "groups"]
    counts = ("queries", "left_out", "pictures", "groups")
    lines = [
        [row["space"], *(_percent(row[name]) for name in _SHOWN_FIGURES), *(str(row[name]) for name in counts)]
        for row in rows
    ]
    return _aligned(head, lines)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under their heads: the first to the left, figures to the right."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (head, *rows)
    ]
