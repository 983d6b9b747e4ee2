"""TID2013: the weaker of two distortions is closer to the reference (showlab/DiffSim, tid_main.py)."""

import re
from pathlib import Path

from .layout import folders_below, missing_note, not_found, pictures_in
from .triplets import Question, Triplet

REFERENCES, DISTORTIONS = range(1, 26), range(1, 25)
WEAKER, STRONGER = 2, 3
_NAME = re.compile(r"i(\d\d)(?:_(\d\d)_(\d))?", re.IGNORECASE)


def tid2013(root: Path, seed: int) -> Question:
    """25 references x 24 distortions, level 2 against level 3; the unit is the reference. Nothing is drawn at random.

    Layout: `i01.bmp` and `i01_01_1.bmp` in any case (the set itself mixes them), anywhere below ROOT: readers of the
    published set (ponomarenko.info/tid2013.htm) name `reference_images/` and `distorted_images/`, tid_main.py reads one
    flat folder. Raises BadBenchmark.
    """
    found: dict[tuple[int, int, int], Path] = {}
    for folder in (root, *folders_below(root)):
        for path in pictures_in(folder):
            if name := _NAME.fullmatch(path.stem):
                found.setdefault((int(name[1]), int(name[2] or 0), int(name[3] or 0)), path)
    triplets, absent = [], []
    for reference in REFERENCES:
        for distortion in DISTORTIONS:
            keys = ((reference, 0, 0), (reference, distortion, WEAKER), (reference, distortion, STRONGER))
            if all(key in found for key in keys):
                triplets.append(Triplet(found[keys[0]], found[keys[1]], found[keys[2]], f"i{reference:02d}"))
            else:
                absent.append(f"i{reference:02d}, distortion {distortion:02d}")
    if not triplets:
        raise not_found(root, "pictures named i01.bmp and i01_01_2.bmp")
    return Question(triplets, "references", missing_note(len(triplets) + len(absent), absent, "pairs"))
