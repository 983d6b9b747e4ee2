"""`diffsim audit`: how much the first stage of a search misses, and how many candidates are enough."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import time_text
from .options import index_option
from .progress import progress

if TYPE_CHECKING:
    from ..evaluation.audit import Audit


@click.command()
@index_option
@click.option(
    "--space",
    "spaces",
    multiple=True,
    help="A feature space by name or fingerprint, as `diffsim status` lists them; repeatable.  [default: all]",
)
@click.option(
    "--queries",
    type=click.IntRange(min=10),
    default=50,
    show_default=True,
    help="How many pictures of the index are used as queries. Each is scored against every other.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Selects the query pictures.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, one feature space per line.")
def audit(index_path: Path, spaces: tuple[str, ...], queries: int, seed: int, as_json: bool) -> None:
    """Measure how much of the exhaustive top 10 the first stage finds, for several numbers of candidates.

    `diffsim query` computes full scores only for the candidates that pooled descriptors recall; this measures, on your
    own pictures, how many candidates it takes to miss next to nothing, and how long they take. The times exclude the
    256 additional pictures that every query scores to judge chance.
    """
    from ..evaluation.audit import audit as measure
    from ..search import Searcher

    with Searcher(index_path) as searcher:
        names = spaces or tuple(dict.fromkeys(space.name for space in searcher.spaces()))
        measured = 0
        for space in searcher.choose_all(names):
            with progress(f"Querying {space.name}", "queries") as on_progress:
                found = measure(searcher.collection, space, queries=queries, seed=seed, on_progress=on_progress)
            if found is None:
                click.echo(f"{space.name}: fewer than two pictures can be compared.", err=True)
                continue
            measured += 1
            click.echo(json.dumps(_row(found)) if as_json else _table(found))
            for note in found.notes:
                click.echo(f"{space.name}: {note}", err=True)
    if not measured:
        raise click.ClickException("There is nothing to measure; add pictures with `diffsim index FOLDER` first.")


def _row(found: "Audit") -> dict[str, Any]:
    row = asdict(found)
    return {**row, "space": found.space.name, "fingerprint": found.space.fingerprint}


def _table(found: "Audit") -> str:
    lines = [
        f"{found.space.name} ({found.space.fingerprint}): {found.pictures} pictures, {found.queries} of them asked",
        f"candidates  {f'of the exhaustive top {found.top}':>27}  {'time':>8}",
    ]
    for one in found.candidates:
        share = f"{one.recall.value:.1%}"
        if one.recall.low is not None:
            share += f" ({one.recall.low:.1%} to {one.recall.high:.1%})"
        lines.append(f"{one.count:10d}  {share:>27}  {_seconds(one.seconds):>8}")
    exact = _seconds(found.exact_seconds)
    lines.append(f"{'--exact':>10}  {'all':>27}  {exact:>8}  ({_seconds(found.seconds_per_candidate)} a picture)")
    if found.enough:
        lines.append(
            f"--candidates {found.enough} is enough: the fewest that find 99 % at the lower end of the interval."
        )
    elif found.candidates:
        most = found.candidates[-1].count
        lines.append(
            f"Up to {most} candidates do not reach 99 % at the lower end; --exact takes {exact} per query here."
        )
    else:
        lines.append("There are so few pictures that every query scores all of them.")
    return "\n".join(lines) + "\n"


def _seconds(seconds: float) -> str:
    return time_text(seconds) if seconds >= 10 else f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2f} s"
