"""`diffsim evaluate`: the paper's benchmarks, and your own, for any feature space and for plain baselines."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from diffsim.retrieval.names import BENCHMARKS, PROTOCOLS
from diffsim.retrieval.user_folders import user_cache

from ..text import printable
from .files import output_option
from .options import Choice, FilePath, device_option
from .progress import progress

_SHOWN_FIGURES = ("mAP", "precision@1", "precision@5", "precision@10", "recall@10")
SEED = 2334


def on_a_benchmark(command: Callable[..., None]) -> Callable[..., None]:
    """Options that the benchmark commands share."""
    for option in (
        device_option,
        click.option("--json", "as_json", is_flag=True, help="One JSON object per line."),
        click.option(
            "--cache",
            type=FilePath(file_okay=False),
            help="Index that keeps the features.  [default: in the platform's user cache folder]",
        ),
        click.option("--seed", type=int, default=SEED, show_default=True, help="For draws, samples and intervals."),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            help="Maximum number of triplets or queries, a seeded sample.  [default: all]",
        ),
        click.argument("root", type=FilePath(exists=True)),
        click.argument("bench", type=Choice(BENCHMARKS), metavar="BENCH"),
    ):
        command = option(command)
    return command


@click.command()
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
@click.option("--prompt", help="Prompt for the networks.  [default: each network's]")
@click.option(
    "--protocol",
    type=Choice(PROTOCOLS),
    default="engine",
    show_default=True,
    help="engine: as an index scores. paper: triplets as DiffSim's released code scores them, reference first.",
)
@output_option("--save-triplets", "Write the triplets as a .csv.")
@on_a_benchmark
def evaluate(
    bench: str,
    root: Path,
    specs: tuple[str, ...],
    prompt: str | None,
    protocol: str,
    limit: int | None,
    seed: int,
    cache: Path | None,
    save_triplets: Path | None,
    force: bool,
    as_json: bool,
    device: str,
) -> None:
    """Measure how well feature spaces do on BENCH, with the pictures in ROOT.

    BENCH is a benchmark of the paper, whose data set is in the folder ROOT: sref, ip, nights, cute, tid2013,
    instantstyle or dreambench; or your own, with a CSV as ROOT: triplets (columns reference, closer, farther and
    optionally unit) or retrieval (columns file, group and optionally lookalike).

    A SPEC may end in @SIZEpx (another picture size) and in :pooled (pooled descriptors only, without the token stage).
    """
    if bench == "retrieval" and save_triplets:
        raise click.UsageError("A retrieval benchmark has no triplets to save; drop --save-triplets.")
    if bench == "retrieval" and protocol == "paper":
        raise click.UsageError("The paper protocol scores triplets, not retrieval; drop --protocol paper.")
    from diffsim.indexer.build import IndexOptions

    from ..evaluation.benchmark import Triplets, measure, measure_as_paper, read
    from ..evaluation.contenders import parse_spec
    from ..outputs import check_output, write_output

    if save_triplets:
        check_output(save_triplets, (".csv",), force=force)

    contenders = [parse_spec(spec, prompt) for spec in specs]
    options = IndexOptions(device=device)
    benchmark = read(bench, root, limit, seed, note)
    if isinstance(benchmark, Triplets) and save_triplets:
        write_output(save_triplets, benchmark.save)
    if isinstance(benchmark, Triplets) and protocol == "paper":
        rows = measure_as_paper(benchmark, contenders, options, progress)
    else:
        with kept_when_interrupted():
            rows = measure(benchmark, contenders, root, cache or evaluation_cache(), options, progress)
    for row in rows if as_json else []:
        click.echo(json.dumps({"benchmark": bench, "seed": seed, "protocol": protocol, **row}))
    if not as_json:
        click.echo("\n".join(_retrieval_table(rows) if bench == "retrieval" else _accuracy_table(rows)))


def note(sentence: str) -> None:
    click.echo(f"Note: {printable(sentence)}", err=True)


def evaluation_cache() -> Path:
    """Where features are kept by default."""
    return user_cache() / "evaluation"


@contextmanager
def kept_when_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise click.ClickException(
            "Interrupted; the features so far are kept: run the same command again to go on."
        ) from None


def percent(figure: dict[str, Any], sign: str = "") -> str:
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
            percent(row["accuracy"]),
            percent(row["gain"], "+") if number else "",
            *(str(row[name]) for name in counts),
        ]
        for number, row in enumerate(rows)
    ]
    return aligned(head, lines)


def _retrieval_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["space", *(f"{name} % (95 %)" for name in _SHOWN_FIGURES), "queries", "left out", "pictures", "groups"]
    counts = ("queries", "left_out", "pictures", "groups")
    lines = [
        [row["space"], *(percent(row[name]) for name in _SHOWN_FIGURES), *(str(row[name]) for name in counts)]
        for row in rows
    ]
    return aligned(head, lines)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with headings: the first column left-aligned, figures right-aligned."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (head, *rows)
    ]
