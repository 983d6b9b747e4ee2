"""Write the table that the bundled network is trained on, and the questions that it is asked (docs/evaluation.md).

    python benchmarks/questions.py DATA OUT --gallery demo/gallery

DATA is described in open_pictures.py. Into OUT go train.csv with authors.csv, and by the profile that answers them
OUT/style and OUT/instance, lists for `diffsim evaluate`. All are about pictures that are held out of the training;
`domains` and the demo's gallery are held out as a whole.

Lists for retrieval (`*.csv` with file, group, lookalike), at most 400 pictures each:

    style     emoji, icons: unseen subjects, the asking ones in unseen styles too (icons); demo: the demo's drawings;
              mixed: 40 of each of 15 sources, photographs and drawings in one folder
    instance  emoji, icons (unseen subjects); demo; groceries (unseen classes), clothes, photographs (PACS), renders
              and food (unseen objects); copies: photographs with five altered copies of each

Triplets (`triplets-*.csv`), 2,000 each, seeded, units in brackets:

    style     emoji, icons: A and B of one style, C of another [style]; domains: of one domain, of another [domain]
    instance  emoji, icons: A and B of one subject in two styles, C of another that does not look alike [subject];
              domains: A and B of one class in two domains, C of another class and of B's domain [class]
"""

import csv
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from open_pictures import Row, read_collections, unseen_styles, unseen_subjects
from PIL import Image, ImageEnhance, ImageOps

from diffsim.retrieval.evaluation.triplets import Triplet, write_triplets
from diffsim.retrieval.training.pictures import COLUMNS

DRAWS = 2000
SEED = 2334
MOST = 400

Question = tuple[Row, Row, Row, str]
"""A, B, C and the unit."""

Draw = Callable[[random.Random], Question]
Key = Callable[[Row], str]


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--gallery", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(data: Path, out: Path, gallery: Path | None) -> None:
    """Write the lists into OUT."""
    for folder in ("style", "instance", "copies"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows = read_collections(data)
    trained = [row for row in rows if not row.held and row.trainable]
    write_training(out / "train.csv", trained)
    write_authors(out / "authors.csv", trained)
    subjects, styles = unseen_subjects(rows), unseen_styles(rows)
    unseen = {source: [r for r in rows if r.source == source and r.lookalike in subjects[source]] for source in styles}
    unseen["emoji"] = [row for row in unseen["emoji"] if row.style != "gameicons"]  # black grounds give it away
    new_icons = [row for row in unseen["icons"] if row.style in styles["icons"]]
    of = {source: [row for row in rows if row.source == source and row.held] for source in {r.source for r in rows}}
    by_style, by_subject = out / "style", out / "instance"
    for source, drawings in (("emoji", unseen["emoji"]), ("icons", new_icons)):
        write_list(by_style / f"{source}.csv", drawings, lambda row: row.style)
        write_drawn(by_style / f"triplets-{source}.csv", same(drawings, lambda row: row.style))
    write_list(by_style / "mixed.csv", mixed(of, styles), lambda row: row.style if row.lookalike else row.source)
    write_drawn(by_style / "triplets-domains.csv", same(of["domains"], lambda row: row.style))
    for source, drawings in unseen.items():
        write_list(by_subject / f"{source}.csv", drawings, lambda row: row.subject)
        write_drawn(by_subject / f"triplets-{source}.csv", same_subject(drawings))
    write_drawn(by_subject / "triplets-domains.csv", same_class(of["domains"]))
    for name, source in (("groceries", "grocery"), ("clothes", "clothing")):
        write_list(by_subject / f"{name}.csv", of[source], lambda row: row.label)
    for name, source in (("renders", "sweethome3d_renders"), ("food", "ffml_food")):
        write_list(by_subject / f"{name}.csv", of[source], lambda row: row.thing)
    photographs = [row for row in of["domains"] if row.style == "photo"]
    write_list(by_subject / "photographs.csv", photographs, lambda row: row.label)
    write_list(by_subject / "copies.csv", copies(of["nips2017"][:60], out / "copies"), lambda row: row.subject)
    if gallery:
        names = [(*path.stem.partition("-"), path) for path in sorted(gallery.glob("*.png"))]
        demo = [Row(path, "demo", style, subject) for subject, _, style, path in names]
        write_list(by_style / "demo.csv", demo, lambda row: row.style)
        write_list(by_subject / "demo.csv", demo, lambda row: row.subject)


def mixed(of: dict[str, list[Row]], styles: dict[str, set[str]]) -> list[Row]:
    """40 pictures of each of several sources and styles."""
    sources = (
        "nips2017", "grocery", "clothing", "usda_pomological", "openclipart", "sweethome3d_renders", "ffml_food",
        "freeorion", "tarot_rws",
    )  # fmt: skip
    groups = [of[source] for source in sources]
    for source in ("emoji", "icons"):
        chosen = sorted(styles[source])[:4]
        groups += [[row for row in of[source] if row.style == style] for style in chosen]
    return [row for rows in groups for row in random.Random(SEED).sample(rows, min(40, len(rows)))]


def copies(rows: list[Row], folder: Path) -> list[Row]:
    """Photographs with altered copies of each: cut to 80 %, half the size, strongly compressed, mirrored, and with
    other colours."""
    found = []
    for row in rows:
        with Image.open(row.file) as image:
            picture = image.convert("RGB")
        width, height = picture.size
        altered = {
            "plain": picture,
            "cut": picture.crop((width // 10, height // 10, width - width // 10, height - height // 10)),
            "half": picture.resize((width // 2, height // 2)),
            "compressed": picture,
            "mirrored": ImageOps.mirror(picture),
            "colours": ImageEnhance.Color(ImageEnhance.Brightness(picture).enhance(1.2)).enhance(0.6),
        }
        for name, version in altered.items():
            path = folder / f"{row.file.stem}-{name}.jpg"
            version.save(path, quality=25 if name == "compressed" else 92)
            found.append(Row(path, "copies", name, row.file.stem))
    return found


def by(rows: Sequence[Row], key: Callable[[Row], object]) -> dict[object, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def same(rows: Sequence[Row], key: Key) -> Draw:
    """Sets of icons of one family share drawings: none is asked to be told from another."""
    groups = {name: found for name, found in by(rows, key).items() if len(found) > 1}

    def draw(random: random.Random) -> Question:
        first = random.choice(list(groups))
        a, b = random.sample(groups[first], 2)
        others = [name for name in groups if name != first and not (a.family and groups[name][0].family == a.family)]
        return a, b, random.choice(groups[random.choice(others)]), str(first)

    return draw


def same_subject(rows: Sequence[Row]) -> Draw:
    """C is of any style, drawn evenly from those that have its subject."""
    subjects = {name: found for name, found in by(rows, lambda row: row.subject).items() if len(found) > 1}

    def draw(random: random.Random) -> Question:
        subject = random.choice(list(subjects))
        a, b = random.sample(subjects[subject], 2)
        others = [name for name, found in subjects.items() if found[0].lookalike != a.lookalike]
        return a, b, random.choice(subjects[random.choice(others)]), str(subject)

    return draw


def same_class(rows: Sequence[Row]) -> Draw:
    classes, domains = sorted({row.label for row in rows}), sorted({row.style for row in rows})
    cells = by(rows, lambda row: (row.label, row.style))

    def draw(random: random.Random) -> Question:
        right, wrong = random.sample(classes, 2)
        of_a, of_b = random.sample(domains, 2)
        a, b, c = (random.choice(cells[cell]) for cell in ((right, of_a), (right, of_b), (wrong, of_b)))
        return a, b, c, right

    return draw


def write_training(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow([os.path.relpath(row.file, path.parent), row.collection, row.style, row.subject])


def write_authors(path: Path, rows: Sequence[Row]) -> None:
    """Whom the licences of the trained pictures ask to name, and for how many pictures."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["source", "author", "licence", "pictures"])
        free = ("CC0", "public domain", "Public domain", "Unlicense")
        asked = [row for row in rows if not row.licence.startswith(free)]
        for named, found in sorted(by(asked, lambda row: (row.source, row.author, row.licence)).items(), key=str):
            table.writerow([*named, len(found)])


def write_drawn(path: Path, draw: Draw) -> None:
    generator = random.Random(SEED)
    asked = [draw(generator) for _ in range(DRAWS)]
    write_triplets(path, [Triplet(*(row.file for row in rows), unit) for *rows, unit in asked])


def write_list(path: Path, rows: Sequence[Row], group: Key) -> None:
    """At most MOST of them, of groups with at least two among these."""
    rows = rows if len(rows) <= MOST else sorted(random.Random(SEED).sample(list(rows), MOST), key=lambda row: row.file)
    sizes = {name: len(found) for name, found in by(rows, group).items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "group", "lookalike"])
        for row in rows:
            if sizes[group(row)] > 1:
                table.writerow([os.path.relpath(row.file, path.parent), group(row), row.lookalike])


if __name__ == "__main__":
    main()
