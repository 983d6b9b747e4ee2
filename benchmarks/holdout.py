"""How well does a trained network tell styles and subjects that it has never seen? Three networks, each without some.

    python benchmarks/holdout.py lists OUT --styles DIR
    python -m retrieval.training photos styles --without OUT/0/without.txt --out OUT/0/mini       (and for 1 and 2)
    python benchmarks/holdout.py table OUT [--space style ...]

DIR holds the drawings and their `manifest.csv` (file, subject, style, lookalike_group). Each of the ROTATIONS leaves
out whole styles, and about a third of the subjects (with their lookalikes) in every style; between them they leave out
each style and each subject once. `lists` writes for each rotation what not to train on and, about left-out subjects
alone, some 2,000 triplets in all for each question:

    same-style      A and B of a left-out style ("unseen") or of a trained style ("seen"), C of any other style
    same-subject    A of a left-out or a trained style, B of the same subject in any other style, C of another subject
                    that does not look alike, in any style

`table` asks each rotation's network its own questions and puts the answers together; plain descriptors are asked the
same ones. Then retrieval among all drawings of the left-out subjects, asked by those of unseen styles. Intervals: 95 %,
by bootstrap over styles, or over subjects.
"""

import csv
import os
import random
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
from questions import SEED, Row, by, manifest

from indexer.build import IndexOptions
from indexer.evaluation import Contender, open_scorers, parse_spec
from retrieval.evaluation.bootstrap import Figure, mean_figure
from retrieval.evaluation.ranking import Labelled, query_metrics
from retrieval.evaluation.triplets import Triplet, read_table, verdicts, write_triplets

ROTATIONS = (("fluent_3d", "openmoji"), ("fluent_hc", "noto"), ("emojitwo", "fluent_flat", "twemoji"))
DRAWS = 2000
BASELINES = ("colour-histogram", "thumbnail", "gradient-histogram")


@click.group()
def main() -> None:
    """Hold out styles and subjects, and ask about them."""


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--styles", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def lists(out: Path, styles: Path) -> None:
    """Write what each rotation must not train on, and its questions."""
    rows = manifest(styles)
    for number, held in enumerate(ROTATIONS):
        folder = out / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        left_out = [row for row in rows if row["style"] in held or held_out(row, number)]
        (folder / "without.txt").write_text("".join(f"{place(styles, row, folder)}\n" for row in left_out))
        asked = [row for row in rows if row["style"] != "gameicons" and held_out(row, number)]
        with (folder / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", "subject", "style", "lookalike"])
            for row in asked:
                table.writerow([place(styles, row, folder), row["subject"], row["style"], row["lookalike_group"]])
        drawn = random.Random(SEED + number)
        trained = sorted({row["style"] for row in asked} - set(held))
        for name, chosen in (("unseen", held), ("seen", trained)):
            # each style asks as often as any other, in all rotations together
            draws = round(DRAWS * len(chosen) / (7 if name == "unseen" else 14))
            write(folder / f"same-style-{name}.csv", styles, [same_style(asked, chosen, drawn) for _ in range(draws)])
            subjects = [same_subject(asked, chosen, drawn) for _ in range(draws)]
            write(folder / f"same-subject-{name}.csv", styles, subjects)


def held_out(row: Row, rotation: int) -> bool:
    return zlib.crc32(row["lookalike_group"].encode()) % len(ROTATIONS) == rotation


def same_style(rows: list[Row], chosen: Sequence[str], drawn: random.Random) -> tuple[Row, Row, Row, str]:
    of_style = by(rows, "style")
    style = drawn.choice(list(chosen))
    (other,) = drawn.choice([key for key in of_style if key != (style,)])
    a, b = drawn.sample(of_style[style,], 2)
    return a, b, drawn.choice(of_style[other,]), style


def same_subject(rows: list[Row], chosen: Sequence[str], drawn: random.Random) -> tuple[Row, Row, Row, str]:
    cells = by(rows, "subject", "style")
    a = drawn.choice([row for row in rows if row["style"] in chosen])
    b = drawn.choice([row for row in by(rows, "subject")[a["subject"],] if row is not a])
    others = [row for row in rows if row["lookalike_group"] != a["lookalike_group"]]
    subject = drawn.choice(sorted({row["subject"] for row in others}))
    style = drawn.choice(sorted({row["style"] for row in rows}))
    return a, b, cells[subject, style][0], a["subject"]


def place(root: Path, row: Row, folder: Path) -> str:
    return os.path.relpath(root.parent / row["file"], folder)


def write(path: Path, root: Path, rows: list[tuple[Row, Row, Row, str]]) -> None:
    triplets = [Triplet(*(root.parent / row["file"] for row in (a, b, c)), unit) for a, b, c, unit in rows]
    write_triplets(path, triplets)


@main.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--network", default="mini", show_default=True, help="The model folder in each rotation's folder.")
@click.option("--space", "spaces", multiple=True, default=("style", "instance", "look"), help="What follows MODEL/.")
def table(out: Path, network: str, spaces: tuple[str, ...]) -> None:
    """Ask every rotation's network about what it has not seen, and print the answers as Markdown."""
    names = [*BASELINES, *spaces]
    triplets: dict[str, dict[str, list[np.ndarray]]] = {}
    units: dict[str, list[str]] = {}
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    asking: dict[str, list[str]] = {"style": [], "subject": []}
    for number, held in enumerate(ROTATIONS):
        folder = out / str(number)
        contenders = [Contender(name) for name in BASELINES]
        contenders += [parse_spec(f"{folder / network}/{name}") for name in spaces]
        rows = read_table(folder / "pictures.csv", ("file", "subject", "style", "lookalike"))
        files = [folder / row["file"] for row in rows]
        row_of = {os.path.normpath(file): n for n, file in enumerate(files)}
        queries = np.array([n for n, row in enumerate(rows) if row["style"] in held])
        with ExitStack() as opened:
            scorers = open_scorers(
                contenders, folder, files, out / "cache", IndexOptions(workers=1), opened, on_progress=lambda *_: None
            )
            for name, scorer in zip(names, scorers, strict=True):
                for question in sorted(folder.glob("same-*.csv")):
                    asked = read_table(question, ("reference", "closer", "farther", "unit"))
                    a, b, c = (
                        np.array([row_of[os.path.normpath(folder / row[column])] for row in asked])
                        for column in ("reference", "closer", "farther")
                    )
                    near, far = (scorer.pairs(a, other, lambda *_: None) for other in (b, c))
                    triplets.setdefault(question.stem, {}).setdefault(name, []).append(verdicts(near, far) > 0)
                    if name == names[0]:
                        units.setdefault(question.stem, []).extend(row["unit"] for row in asked)
                scores = scorer.matrix(queries, lambda *_: None)
                for group in asking:
                    labelled = Labelled(
                        files,
                        [row[group] for row in rows],
                        [row["lookalike"] if group == "subject" else "" for row in rows],
                    )
                    found.setdefault(group, {}).setdefault(name, []).append(metrics(scores, queries, labelled))
        for group, asked_by in asking.items():
            asked_by += [rows[query][group] for query in queries]
    print_triplets(names, triplets, units)
    print_retrieval(names, found, asking)


def metrics(scores: np.ndarray, queries: np.ndarray, labelled: Labelled) -> np.ndarray:
    """mAP and precision@1, 5, 10 of every query, float [queries, 4]."""
    groups, lookalikes = np.array(labelled.groups, object), np.array(labelled.lookalikes, object)
    rows = []
    for query, row in zip(queries.tolist(), scores, strict=True):
        right = groups == groups[query]
        kept = ~((lookalikes == lookalikes[query]) & (lookalikes != "") & ~right)
        kept[query] = False
        rows.append((query_metrics(row[kept], right[kept]) or [np.nan] * 4)[:4])
    return np.array(rows)


def print_triplets(
    names: Sequence[str], triplets: dict[str, dict[str, list[np.ndarray]]], units: dict[str, list[str]]
) -> None:
    questions = [f"same-{what}-{who}" for what in ("style", "subject") for who in ("unseen", "seen")]
    click.echo(f"| | {' | '.join(question.replace('-', ' ') for question in questions)} |")
    click.echo("|---|" + "---|" * len(questions))
    for name in names:
        right = {question: np.concatenate(triplets[question][name]).astype(float) for question in questions}
        cells = [text(mean_figure(right[question], units[question], SEED)) for question in questions]
        click.echo(f"| {name} | {' | '.join(cells)} |")
    counts = [f"{len(units[question])} triplets, {len(set(units[question]))} units" for question in questions]
    click.echo(f"| | {' | '.join(counts)} |\n")


def print_retrieval(
    names: Sequence[str], found: dict[str, dict[str, list[np.ndarray]]], asking: dict[str, list[str]]
) -> None:
    click.echo("| asked for | | mAP | precision@1 | precision@5 | precision@10 |\n|---|---|---|---|---|---|")
    for group, rows in found.items():
        for name in names:
            values = np.concatenate(rows[name])
            cells = [text(mean_figure(column, asking[group], SEED)) for column in values.T]
            click.echo(f"| same {group}, {len(values)} asking | {name} | {' | '.join(cells)} |")


def text(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{100 * figure.value:.1f}"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f}-{100 * figure.high:.1f})"


if __name__ == "__main__":
    main()
