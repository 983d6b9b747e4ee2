"""How well does a trained network tell styles and subjects that it has never seen? Asked of holdout.py's three.

    python benchmarks/unseen.py OUT --question questions/same-domain.csv --question questions/same-class.csv

OUT is the folder of `holdout.py`, with a trained network for each of the ROTATIONS. Each is asked its own questions,
and the answers are put together; plain descriptors, and what else is named by --beside, are asked the same ones. The
triplets of each --question are asked of all three networks; with those of `questions.py` about domains and classes, the
means over the four questions about unseen pictures follow. Then retrieval among all drawings of the left-out subjects,
asked by those of unseen styles. Intervals: 95 %, by bootstrap over the units of a question: styles, subjects, domains,
classes.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from holdout import ROTATIONS
from questions import SEED, Row

from diffsim import IndexOptions
from diffsim.query.evaluation.contenders import Contender, open_scorers, parse_spec
from diffsim.retrieval.evaluation.baselines import BASELINES
from diffsim.retrieval.evaluation.bootstrap import Figure, mean_figure
from diffsim.retrieval.evaluation.ranking import Labelled, metrics_by_query
from diffsim.retrieval.evaluation.scorers import Scorer
from diffsim.retrieval.evaluation.triplets import Triplet, accuracy, read_table, read_triplets, verdicts
from diffsim.retrieval.names import PROFILES

READ = {
    "same-style-unseen": "style",
    "same-subject-unseen": "instance",
    "same-domain": "style",
    "same-class": "instance",
}
"""The four questions, and the profile that answers each."""

ByContender = dict[str, dict[str, list[np.ndarray]]]


def _nested() -> ByContender:
    return defaultdict(lambda: defaultdict(list))


@dataclass
class Answers:
    """verdicts: question -> contender -> one array for each rotation; units: question -> one for each verdict.

    found: what is the same -> contender -> metrics of the asking pictures; asking: what is the same -> their groups.
    """

    verdicts: ByContender = field(default_factory=_nested)
    units: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    found: ByContender = field(default_factory=_nested)
    asking: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--network", default="mini", show_default=True, help="The model folder in each rotation's folder.")
@click.option("--space", "spaces", multiple=True, default=PROFILES, show_default=True, help="What follows MODEL/.")
@click.option("--beside", multiple=True, help="Another space, the same for all rotations.")
@click.option("--question", "questions", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(
    out: Path, network: str, spaces: tuple[str, ...], beside: tuple[str, ...], questions: tuple[Path, ...]
) -> None:
    """Ask every rotation's network about what it has not seen, and print the answers as Markdown."""
    answers = Answers()
    others = [*BASELINES, *beside]
    for number, held in enumerate(ROTATIONS):
        folder = out / str(number)
        contenders = {name: parse_spec(name) for name in others}
        contenders |= {name: parse_spec(f"{folder / network}/{name}") for name in spaces}
        rows = read_table(folder / "pictures.csv", ("file", "subject", "style", "lookalike"))
        files = [plain(folder / row["file"]) for row in rows]
        with opened(contenders, folder, files, out / "cache") as scorers:
            for question in sorted(folder.glob("same-*.csv")):
                ask_triplets(question.stem, read_triplets(question).triplets, files, scorers, answers)
            ask_retrieval([n for n, row in enumerate(rows) if row["style"] in held], files, rows, scorers, answers)
        for question in questions:
            asked = read_triplets(question).triplets
            files = sorted({plain(picture) for triplet in asked for picture in pictures_of(triplet)})
            with opened(contenders, question.parent, files, out / "cache") as scorers:
                ask_triplets(question.stem, asked, files, scorers, answers)
    names = [*others, *spaces]
    print_triplets(names, answers)
    if answers.verdicts.keys() >= READ.keys() and set(spaces) >= set(READ.values()):
        print_means(others, answers)
    print_retrieval(names, answers)


def plain(path: Path) -> Path:
    """Without `..`: the lists are in other folders than their pictures."""
    return Path(os.path.normpath(path))


def pictures_of(triplet: Triplet) -> tuple[Path, Path, Path]:
    return triplet.reference, triplet.closer, triplet.farther


@contextmanager
def opened(
    contenders: Mapping[str, Contender], root: Path, files: Sequence[Path], cache: Path
) -> Iterator[dict[str, Scorer]]:
    """Scorers over the files."""
    with ExitStack() as stack:
        options = IndexOptions(workers=1)
        found = open_scorers(list(contenders.values()), root, files, cache, options, stack, on_progress=lambda *_: None)
        yield dict(zip(contenders, found, strict=True))


def ask_triplets(
    question: str, asked: Sequence[Triplet], files: Sequence[Path], scorers: Mapping[str, Scorer], answers: Answers
) -> None:
    row_of = {file: row for row, file in enumerate(files)}
    rows = np.array([[row_of[plain(picture)] for picture in pictures_of(triplet)] for triplet in asked])
    for name, scorer in scorers.items():
        near, far = (scorer.pairs(rows[:, 0], rows[:, other], lambda *_: None) for other in (1, 2))
        answers.verdicts[question][name].append(verdicts(near, far))
    answers.units[question] += [triplet.unit for triplet in asked]


def ask_retrieval(
    queries: list[int], files: list[Path], rows: list[Row], scorers: Mapping[str, Scorer], answers: Answers
) -> None:
    for name, scorer in scorers.items():
        scores = scorer.matrix(np.array(queries), lambda *_: None)
        for group in ("style", "subject"):
            lookalikes = [row["lookalike"] if group == "subject" else "" for row in rows]
            labelled = Labelled(files, [row[group] for row in rows], lookalikes)
            found = metrics_by_query(scores, np.array(queries), labelled)
            answers.found[group][name].append(np.array([(row or [np.nan] * 4)[:4] for row in found]))
    for group in ("style", "subject"):
        answers.asking[group] += [rows[query][group] for query in queries]


def print_triplets(names: Sequence[str], answers: Answers) -> None:
    click.echo(f"| | {' | '.join(question.replace('-', ' ') for question in answers.verdicts)} |")
    click.echo("|---|" + "---|" * len(answers.verdicts))
    for name in names:
        cells = [text(share_right(answers, question, name)) for question in answers.verdicts]
        click.echo(f"| {name} | {' | '.join(cells)} |")
    counts = [f"{len(units)} triplets, {len(set(units))} units" for units in answers.units.values()]
    click.echo(f"| | {' | '.join(counts)} |\n")


def print_means(others: Sequence[str], answers: Answers) -> None:
    """Over the four questions about unseen pictures."""
    rows = {name: [share_right(answers, question, name).value for question in READ] for name in others}
    ours = [share_right(answers, question, space).value for question, space in READ.items()]
    best = max(float(np.mean(row)) for row in rows.values())
    click.echo(f"| | {' | '.join(question.replace('-', ' ') for question in READ)} | mean | less the best other |")
    click.echo("|---|" + "---|" * (len(READ) + 2))
    for name, row in {**rows, f"by {', '.join(READ.values())}": ours}.items():
        cells = [*row, float(np.mean(row)), float(np.mean(row)) - best]
        click.echo(f"| {name} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |")
    click.echo()


def share_right(answers: Answers, question: str, name: str) -> Figure:
    return accuracy(np.concatenate(answers.verdicts[question][name]), answers.units[question], SEED)


def print_retrieval(names: Sequence[str], answers: Answers) -> None:
    click.echo("| asked for | | mAP | precision@1 | precision@5 | precision@10 |\n|---|---|---|---|---|---|")
    for group, rows in answers.found.items():
        for name in names:
            values = np.concatenate(rows[name])
            cells = [text(mean_figure(column, answers.asking[group], SEED)) for column in values.T]
            click.echo(f"| same {group}, {len(values)} asking | {name} | {' | '.join(cells)} |")


def text(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{100 * figure.value:.1f}"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f}-{100 * figure.high:.1f})"


if __name__ == "__main__":
    main()
