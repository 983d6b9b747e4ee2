"""DreamBench++: of two generated pictures, people found one truer to the concept (showlab/DiffSim,
dreambench_main.py)."""

import json
import random
from itertools import combinations
from pathlib import Path

from .layout import folders_in, missing_note, not_found
from .triplets import BadBenchmark, Question, Triplet

MOST_PAIRS = 5
LEAST_GAP = 2
MOST_DISAGREEMENT = 2

# Rating file of each system and how its folder may begin: as the data set's code names it, or as the script expects.
_SYSTEMS = {
    "blip_diffusion": ("blip_diffusion",),
    "dreambooth_sd": ("dreambooth_sd",),
    "ip_adapter_plus_vit_h_sdxl": ("ip_adapter_plus_vit_h_sdxl", "ip_adapter_plus_sdxl"),
    "ip_adapter_vit_g_sdxl": ("ip_adapter_vit_g_sdxl", "ip_adapter_sdxl"),
    "textual_inversion_sd": ("textual_inversion_sd",),
}


def dreambench(root: Path, seed: int) -> Question:
    """Concept preservation of five systems: at most five pairs per reference whose mean ratings differ by 2 or more; a
    picture that the two groups of raters rate more than 2 apart is left out. The unit is the reference, across systems.

    Layout: `SYSTEM.../src_image/REFERENCE/0_0.jpg` and `SYSTEM.../tgt_image/REFERENCE/PROMPT_0.jpg`, in ROOT or in
    ROOT/samples, and `data_human_rating/merged_data/group1|group2/SYSTEM-cp.json` with keys `REFERENCE-PROMPT`
    (yuangpeng/dreambench_plus: README.md, constants.py, merge_data.py, pearson.py). The released draws follow the file
    system's order; here systems and references are sorted. Its prefix match of references, which could mix ids, is an
    exact one here. Raises BadBenchmark.
    """
    samples = root / "samples" if (root / "samples").is_dir() else root
    ratings = root / "data_human_rating" if (root / "data_human_rating").is_dir() else samples / "data_human_rating"
    draw = random.Random(seed)
    triplets: list[Triplet] = []
    absent: list[str] = []
    for folder in folders_in(samples):
        system = next((name for name, starts in _SYSTEMS.items() if folder.name.startswith(starts)), None)
        if system is None:
            continue
        means = _mean_ratings(ratings / "merged_data", system)
        for reference in folders_in(folder / "src_image"):
            rated = {prompt: mean for (name, prompt), mean in means.items() if name == reference.name}
            pairs = [pair for pair in combinations(rated, 2) if abs(rated[pair[0]] - rated[pair[1]]) >= LEAST_GAP]
            for pair in draw.sample(pairs, MOST_PAIRS) if len(pairs) > MOST_PAIRS else pairs:
                closer, farther = sorted(pair, key=rated.__getitem__, reverse=True)
                made = [folder / "tgt_image" / reference.name / f"{prompt}_0.jpg" for prompt in (closer, farther)]
                triplet = Triplet(reference / "0_0.jpg", made[0], made[1], reference.name)
                if all(path.is_file() for path in (triplet.reference, *made)):
                    triplets.append(triplet)
                else:
                    absent.append(f"{folder.name}, {reference.name}, prompts {closer} and {farther}")
    if not triplets:
        raise not_found(root, "rated pairs of DreamBench++ (folders of systems and data_human_rating)")
    note = "The layout follows DreamBench++'s code; its downloads themselves could not be inspected."
    return Question(triplets, "references", (note, *missing_note(len(triplets) + len(absent), absent, "pairs")))


def _mean_ratings(folder: Path, system: str) -> dict[tuple[str, str], float]:
    """Mean of both groups by (reference, prompt), in the order of the sorted keys."""
    first, second = (_read(folder / group / f"{system}-cp.json") for group in ("group1", "group2"))
    return {
        (key.rpartition("-")[0], key.rpartition("-")[2]): (first[key] + second[key]) / 2
        for key in sorted(first.keys() & second.keys())
        if abs(first[key] - second[key]) <= MOST_DISAGREEMENT
    }


def _read(path: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise BadBenchmark(
            f"The ratings {path} cannot be read ({type(problem).__name__}); unpack DreamBench++'s human ratings there."
        ) from problem
