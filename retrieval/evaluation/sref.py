"""Sref and InstantStyle: two pictures of one style against one of another style (showlab/DiffSim, style_main.py)."""

import random
from pathlib import Path

from .layout import folders_below, not_found, pictures_in
from .triplets import Question, Triplet

DRAWS = 2000


def sref(root: Path, seed: int) -> Question:
    """2,000 draws: two styles, two pictures A and B of the first, C of the second; the unit is A's style.

    Layout: one folder per style with four pictures (508 styles), anywhere below ROOT, as style_main.py walks it; the
    published set (Hugging Face, yiren98/Sref) holds 2,032 files in a folder `Sref`, and retrieval_vis.py reads
    `STYLE/NUMBER.png`. The released draws follow the file system's order; here folders and files are sorted, so the
    triplets differ but have the same distribution. Raises BadBenchmark.
    """
    styles = [pictures for folder in folders_below(root) if len(pictures := pictures_in(folder)) >= 2]
    if len(styles) < 2:
        raise not_found(root, "two styles, folders of at least two pictures each")
    draw = random.Random(seed)
    triplets = []
    for _ in range(DRAWS):
        first, second = draw.sample(styles, 2)
        a, b = draw.sample(first, 2)
        triplets.append(Triplet(a, b, draw.choice(second), str(a.parent.relative_to(root))))
    return Question(triplets, "styles")


def instantstyle(root: Path, seed: int) -> Question:
    """As `sref`: the released script is the same, and its shell file names another folder."""
    note = "The layout of InstantStyle's published pictures could not be confirmed: one folder per style is assumed."
    question = sref(root, seed)
    return Question(question.triplets, question.unit, (note, *question.notes))
