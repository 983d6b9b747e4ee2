"""Leave styles and subjects out of training: what three networks must not see, and what to ask them afterwards.

    python benchmarks/holdout.py OUT --styles DIR
    python -m diffsim.retrieval.training photos styles --without OUT/0/without.txt --out OUT/0/mini   (and 1, 2)
    python benchmarks/unseen.py OUT ...

DIR holds the drawings and their `manifest.csv` (file, subject, style, lookalike_group). Each of the ROTATIONS leaves
out whole styles, and about a third of the subjects (with their lookalikes) in every style; between them they leave out
each style and each subject once. For each rotation OUT gets what not to train on and, about left-out subjects alone,
some 2,000 triplets in all for each question:

    same-style      A and B of a left-out style ("unseen") or of a trained style ("seen"), C of any other style
    same-subject    A of a left-out or a trained style, B of the same subject in any other style, C of another subject
                    that does not look alike, in any style
"""

import csv
import random
import zlib
from collections.abc import Sequence
from pathlib import Path

import click
from questions import SEED, Question, Row, by, manifest, place, write_questions

ROTATIONS = (("fluent_3d", "openmoji"), ("fluent_hc", "noto"), ("emojitwo", "fluent_flat", "twemoji"))
DRAWS = 2000


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--styles", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(out: Path, styles: Path) -> None:
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
            for question, draw in (("style", same_style), ("subject", same_subject)):
                triplets = [draw(asked, chosen, drawn) for _ in range(draws)]
                write_questions(folder / f"same-{question}-{name}.csv", styles, triplets)


def held_out(row: Row, rotation: int) -> bool:
    return zlib.crc32(row["lookalike_group"].encode()) % len(ROTATIONS) == rotation


def same_style(rows: list[Row], chosen: Sequence[str], drawn: random.Random) -> Question:
    of_style = by(rows, "style")
    style = drawn.choice(list(chosen))
    (other,) = drawn.choice([key for key in of_style if key != (style,)])
    a, b = drawn.sample(of_style[style,], 2)
    return a, b, drawn.choice(of_style[other,]), style


def same_subject(rows: list[Row], chosen: Sequence[str], drawn: random.Random) -> Question:
    cells = by(rows, "subject", "style")
    a = drawn.choice([row for row in rows if row["style"] in chosen])
    b = drawn.choice([row for row in by(rows, "subject")[a["subject"],] if row is not a])
    others = [row for row in rows if row["lookalike_group"] != a["lookalike_group"]]
    subject = drawn.choice(sorted({row["subject"] for row in others}))
    style = drawn.choice(sorted({row["style"] for row in rows}))
    return a, b, cells[subject, style][0], a["subject"]


if __name__ == "__main__":
    main()
