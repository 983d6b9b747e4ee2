"""NIGHTS: which of two pictures did people find closer to the reference? (showlab/DiffSim, night_main.py)"""

from pathlib import Path

from .triplets import BadBenchmark, Question, Triplet, read_table

SPLIT = "val"
_COLUMNS = ("split", "left_vote", "ref_path", "left_path", "right_path", "prompt")


def nights(root: Path, seed: int) -> Question:
    """Every triplet of the split `val`, in the order of the list; left_vote 1 means that left is closer.

    Layout: `data.csv` beside `ref/` and `distort/`, as in ssundaram21/dreamsim (dataset/README.md, dataset/dataset.py)
    and night_main.py. The unit is the category: pictures of one category are similar. Nothing is drawn at random.
    Raises BadBenchmark.
    """
    triplets = []
    for row in read_table(root / "data.csv", _COLUMNS):
        if row["split"] != SPLIT:
            continue
        closer, farther = root / row["left_path"], root / row["right_path"]
        if float(row["left_vote"]) != 1:
            closer, farther = farther, closer
        triplets.append(Triplet(root / row["ref_path"], closer, farther, row["prompt"].lower()))
    if not triplets:
        raise BadBenchmark(f"The list {root / 'data.csv'} has no row of the split {SPLIT}; give NIGHTS as published.")
    note = (
        "One prompt is used for all pictures; the released script gives the network each triplet's category "
        "('An image of a CATEGORY'), which is left out here."
    )
    return Question(triplets, "categories", (note,))
