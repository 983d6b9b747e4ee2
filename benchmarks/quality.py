"""How well does a network answer the questions of questions.py, beside an encoder alone and plain descriptors?

    python benchmarks/quality.py OUT --space mini/{by} --space lite/{by}

OUT is the folder of questions.py. `{by}` becomes `style` or `instance`, by the question's folder. Prints one table as
Markdown: precision among the first, among the first five, and mean average precision of the lists, asked by at most
--queries of their pictures; accuracy of the triplets; all in per cent, with 95 % intervals by bootstrap over the units
of a question. Then the means over the main figure of every question, and how far each space is above and below the
best of the others.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import numpy as np
from questions import SEED

from diffsim import IndexOptions
from diffsim.query.evaluation.contenders import open_scorers, parse_spec
from diffsim.retrieval.evaluation.baselines import BASELINES
from diffsim.retrieval.evaluation.bootstrap import Figure
from diffsim.retrieval.evaluation.ranking import read_labelled, retrieval, sampled_queries
from diffsim.retrieval.evaluation.scorers import Scorer
from diffsim.retrieval.evaluation.triplets import accuracy, limited, read_triplets, verdicts

MAIN = {
    "instance/photographs": "precision@1",
    "instance/renders": "precision@1",
    "instance/food": "precision@1",
    "instance/demo": "mAP",
    "instance/emoji": "mAP",
    "instance/icons": "mAP",
}
"""The main figure of a list, where it is not precision@5."""

FIGURES = ("precision@1", "precision@5", "mAP")


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--space", "spaces", multiple=True, default=("mini/{by}", "lite/{by}"), show_default=True)
@click.option(
    "--queries", type=click.IntRange(min=1), default=150, show_default=True, help="Asking pictures of a list."
)
@click.option("--triplets", type=click.IntRange(min=1), default=1000, show_default=True, help="Triplets of a question.")
@click.option("--only", default="", help="Questions whose names contain this text.")
def main(out: Path, spaces: tuple[str, ...], queries: int, triplets: int, only: str) -> None:
    """Ask every question of OUT and print the answers as Markdown."""
    names = [*spaces, *BASELINES]
    click.echo(f"| | | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    found = []
    for path in sorted(out.glob("*/*.csv")):
        question = f"{path.parent.name}/{path.stem}"
        if only not in question:
            continue
        ask = _ask_triplets if path.stem.startswith("triplets-") else _ask_list
        figures = ask(path, names, queries if ask is _ask_list else triplets, out / "cache")
        for figure, row in figures.items():
            click.echo(f"| {question} | {figure} | {' | '.join(_text(each) for each in row)} |")
        found.append(
            [each.value for each in figures.get(MAIN.get(question, "precision@5")) or next(iter(figures.values()))]
        )
    _print_means(names, 100 * np.array(found))


def _print_means(names: Sequence[str], found: np.ndarray) -> None:
    """found: [questions, spaces], the main figures in per cent."""
    means, cells = found.mean(0), []
    for column in range(len(names)):
        others = np.delete(found, column, 1)
        cells.append(
            f"{means[column] - others.mean(0).max():+.1f}; worst {(found[:, column] - others.max(1)).min():+.1f}"
        )
    click.echo(f"| **mean of {len(found)} questions** | | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    click.echo(f"| beside the best other | | {' | '.join(cells)} |")


def _ask_list(path: Path, names: Sequence[str], limit: int, cache: Path) -> dict[str, list[Figure]]:
    labelled = read_labelled(path)
    files = [_plain(file) for file in labelled.pictures]
    asking = sampled_queries(len(files), limit, SEED)
    with _opened(names, path, files, cache) as scorers:
        found = [retrieval(scorer.matrix(asking, lambda *_: None), asking, labelled).figures for scorer in scorers]
    return {figure: [each[figure] for each in found] for figure in FIGURES}


def _ask_triplets(path: Path, names: Sequence[str], limit: int, cache: Path) -> dict[str, list[Figure]]:
    asked = limited(read_triplets(path).triplets, limit, SEED)
    files = sorted({_plain(file) for each in asked for file in (each.reference, each.closer, each.farther)})
    row_of = {file: row for row, file in enumerate(files)}
    rows = np.array([[row_of[_plain(file)] for file in (each.reference, each.closer, each.farther)] for each in asked])
    units = [each.unit for each in asked]
    with _opened(names, path, files, cache) as scorers:
        found = []
        for scorer in scorers:
            near, far = (scorer.pairs(rows[:, 0], rows[:, other], lambda *_: None) for other in (1, 2))
            found.append(accuracy(verdicts(near, far), units, SEED))
    return {"accuracy": found}


@contextmanager
def _opened(names: Sequence[str], path: Path, files: Sequence[Path], cache: Path) -> Iterator[list[Scorer]]:
    contenders = [parse_spec(name.format(by=path.parent.name)) for name in names]
    with ExitStack() as stack:
        options = IndexOptions(workers=1)
        yield open_scorers(contenders, path, files, cache, options, stack, on_progress=lambda *_: None)


def _plain(path: Path) -> Path:
    """Without `..`: the lists are in other folders than their pictures."""
    return Path(os.path.normpath(path.absolute()))


def _text(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{100 * figure.value:.1f}"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f}-{100 * figure.high:.1f})"


if __name__ == "__main__":
    main()
