"""CUTE: two pictures of one object against another object of its category, all under one condition
(showlab/DiffSim, cute_main.py)."""

import random
from pathlib import Path

from .layout import folders_in, missing_note, not_found, pictures_in
from .triplets import Question, Triplet

ROUNDS = 10


def cute(root: Path, seed: int) -> Question:
    """Ten rounds over all objects: a condition, two pictures A and B of the object in it, C of another object of the
    category in it; the unit is the category.

    Layout as cute_main.py walks it, `CATEGORY/OBJECT/CONDITION/*.jpg`; the data set's own datasheet (s-tian/CUTE) says
    only that the folders show what belongs together. The released draws follow the file system's order; here
    everything is sorted. Raises BadBenchmark.
    """
    draw = random.Random(seed)
    triplets: list[Triplet] = []
    absent: list[str] = []
    for category in folders_in(root):
        objects = folders_in(category)
        for _ in range(ROUNDS):
            for thing in objects:
                triplet = _draw(draw, thing, [other for other in objects if other != thing])
                if triplet is None:
                    absent.append(str(thing.relative_to(root)))
                else:
                    triplets.append(triplet)
    if not triplets:
        raise not_found(root, "pictures as CATEGORY/OBJECT/CONDITION/*.jpg with two objects a category")
    notes = (
        "The layout of the published CUTE could not be confirmed; the one that the released script walks is used.",
        "One prompt is used for all pictures; the released script gives the network each category "
        "('The photo of a CATEGORY'), which is left out here.",
        *missing_note(len(triplets) + len(absent), absent, "draws"),
    )
    return Question(triplets, "categories", notes)


def _draw(draw: random.Random, thing: Path, others: list[Path]) -> Triplet | None:
    conditions = folders_in(thing)
    if not conditions:
        return None
    condition = draw.choice(conditions)
    own = pictures_in(condition)
    if len(own) < 2:
        return None
    a, b = draw.sample(own, 2)
    if not others:
        return None
    elsewhere = draw.choice(others) / condition.name
    foreign = pictures_in(elsewhere) if elsewhere.is_dir() else []
    return Triplet(a, b, draw.choice(foreign), thing.parent.name) if foreign else None
