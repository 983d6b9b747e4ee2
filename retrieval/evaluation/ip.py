"""IP: of two pictures of a character, the one made with the higher IP-Adapter weight is closer to the original
(showlab/DiffSim, ipref_main.py)."""

from pathlib import Path

from .layout import folders_below, missing_note, not_found, pictures_in
from .triplets import Question, Triplet

PAIRS = ((1.0, 0.6), (0.8, 0.4), (0.6, 0.3), (0.4, 0.35), (0.3, 0.2))
_WEIGHTS = {weight for pair in PAIRS for weight in pair}


def ip(root: Path, seed: int) -> Question:
    """Five fixed pairs of weights per class; the unit is the class. Nothing is drawn at random.

    Layout as ipref_main.py reads it: `CLASS/WEIGHT.png` for seven weights, and the original `CLASS.JPG` in a separate
    folder, here anywhere below ROOT (or inside the class's folder). The published set (Hugging Face, yiren98/IPref,
    1,495 files in `IPref`) has five files per class and this needs eight, so pairs that lack a picture are left out
    and counted. Raises BadBenchmark.
    """
    weighted: dict[Path, dict[float, Path]] = {}
    originals: dict[str, Path] = {}
    for folder in (root, *folders_below(root)):
        pictures = pictures_in(folder)
        by_weight = {weight: path for path in pictures if (weight := _weight(path)) in _WEIGHTS}
        if len(by_weight) >= 2:
            weighted[folder] = by_weight
            pictures = [path for path in pictures if path not in by_weight.values()]
        originals |= {path.stem: path for path in pictures}
    if not weighted:
        raise not_found(root, "class folders with pictures named by their weight, such as 1.0.png and 0.6.png")
    triplets, absent = [], []
    for folder, by_weight in weighted.items():
        original = originals.get(folder.name)
        for higher, lower in PAIRS:
            if original and higher in by_weight and lower in by_weight:
                triplets.append(Triplet(original, by_weight[higher], by_weight[lower], folder.name))
            else:
                lacks = f"{lower} or {higher}" if original else f"the original {folder.name}.JPG"
                absent.append(f"class {folder.name}, pair {higher} and {lower}, lacks {lacks}")
    if not triplets:
        raise not_found(root, f"original of a class, such as {next(iter(weighted)).name}.JPG")
    note = (
        "The file names of the published IP set could not be confirmed; those that the released script reads are used."
    )
    return Question(triplets, "classes", (note, *missing_note(len(weighted) * len(PAIRS), absent, "pairs")))


def _weight(path: Path) -> float | None:
    try:
        return float(path.stem)
    except ValueError:
        return None
