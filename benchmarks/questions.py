"""Write the questions that the collections of drawings and of PACS pictures are asked in docs/evaluation.md, as CSVs.

    python benchmarks/questions.py OUT --styles DIR --domains DIR --gallery demo/gallery

DIR holds the unpacked pictures and their `manifest.csv` (file, subject, style, lookalike_group, ...; file, class,
domain). Triplets, 2,000 each, seeded, units in brackets:

    same-style      A and B of one style, C of another                                                  [style]
    same-subject    A and B of one subject in two styles, C of another subject that does not look alike;
                    C's style is any of the seven, drawn evenly                                         [subject]
    same-domain     A and B of one domain, C of another; classes as they come                           [domain]
    same-class      A and B of one class in two domains, C of another class and of B's domain           [class]

and for retrieval style.csv and subject.csv, all drawings with their style or subject. Without game-icons, whose black
ground gives them away. Of the project's own drawings, which nothing was trained on, gallery-style.csv and
gallery-subject.csv.
"""

import csv
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from diffsim.retrieval.evaluation.triplets import Triplet, write_triplets

DRAWS = 2000
SEED = 2334

Row = dict[str, str]
Question = tuple[Row, Row, Row, str]
"""A, B, C and the unit."""

Draw = Callable[[random.Random], Question]


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--styles", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--domains", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--gallery", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(out: Path, styles: Path | None, domains: Path | None, gallery: Path | None) -> None:
    """Write the CSVs into OUT."""
    out.mkdir(parents=True, exist_ok=True)
    if styles:
        drawings = [row for row in manifest(styles) if row["style"] != "gameicons"]
        write_questions(out / "same-style.csv", styles, drawn(same(drawings, "style")))
        write_questions(out / "same-subject.csv", styles, drawn(same_subject(drawings)))
        for group in ("style", "subject"):
            write_labelled(out / f"{group}.csv", styles, drawings, group)
    if domains:
        pictures = manifest(domains)
        write_questions(out / "same-domain.csv", domains, drawn(same(pictures, "domain")))
        write_questions(out / "same-class.csv", domains, drawn(same_class(pictures)))
    if gallery:
        names = [(*path.stem.partition("-"), f"{gallery.name}/{path.name}") for path in sorted(gallery.glob("*.png"))]
        ours = [
            {"subject": subject, "style": style, "lookalike_group": "", "file": file}
            for subject, _, style, file in names
        ]
        for group in ("style", "subject"):
            write_labelled(out / f"gallery-{group}.csv", gallery, ours, group)


def manifest(folder: Path) -> list[Row]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["file"])


def by(rows: list[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return dict(groups)


def same(rows: list[Row], column: str) -> Draw:
    groups = by(rows, column)

    def draw(random: random.Random) -> Question:
        first, second = random.sample(list(groups), 2)
        a, b = random.sample(groups[first], 2)
        return a, b, random.choice(groups[second]), first[0]

    return draw


def same_subject(rows: list[Row]) -> Draw:
    subjects, styles = by(rows, "subject"), sorted({row["style"] for row in rows})
    cells = by(rows, "subject", "style")

    def draw(random: random.Random) -> Question:
        (subject,) = random.choice(list(subjects))
        a, b = random.sample(subjects[(subject,)], 2)
        others = [key for key, found in subjects.items() if found[0]["lookalike_group"] != a["lookalike_group"]]
        (other,) = random.choice(others)
        return a, b, cells[other, random.choice(styles)][0], subject

    return draw


def same_class(rows: list[Row]) -> Draw:
    classes, domains = sorted({row["class"] for row in rows}), sorted({row["domain"] for row in rows})
    cells = by(rows, "class", "domain")

    def draw(random: random.Random) -> Question:
        right, wrong = random.sample(classes, 2)
        of_a, of_b = random.sample(domains, 2)
        a, b, c = (random.choice(cells[cell]) for cell in ((right, of_a), (right, of_b), (wrong, of_b)))
        return a, b, c, right

    return draw


def drawn(draw: Draw) -> list[Question]:
    generator = random.Random(SEED)
    return [draw(generator) for _ in range(DRAWS)]


def write_questions(path: Path, root: Path, asked: Sequence[Question]) -> None:
    write_triplets(path, [Triplet(*(root.parent / row["file"] for row in rows), unit) for *rows, unit in asked])


def write_labelled(path: Path, root: Path, rows: list[Row], group: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "group", "lookalike"])
        for row in rows:
            lookalike = row["lookalike_group"] if group == "subject" else ""
            table.writerow([place(root, row, path.parent), row[group], lookalike])


def place(root: Path, row: Row, folder: Path) -> str:
    """A picture, as seen from a folder; the manifest's paths begin with the collection's own folder."""
    return os.path.relpath(root.parent / row["file"], folder)


if __name__ == "__main__":
    main()
