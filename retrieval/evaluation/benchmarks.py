"""The triplet benchmarks by name (`retrieval` in `names.BENCHMARKS` is the only one without triplets)."""

from collections.abc import Callable
from pathlib import Path

from .cute import cute
from .dreambench import dreambench
from .ip import ip
from .nights import nights
from .sref import instantstyle, sref
from .tid2013 import tid2013
from .triplets import BadBenchmark, Question, read_triplets

Reader = Callable[[Path, int], Question]
"""(folder, seed) -> triplets; raises BadBenchmark."""

READERS: dict[str, Reader] = {
    "sref": sref,
    "ip": ip,
    "nights": nights,
    "cute": cute,
    "tid2013": tid2013,
    "instantstyle": instantstyle,
    "dreambench": dreambench,
    "triplets": lambda path, seed: read_triplets(path),
}


def read_benchmark(name: str, root: Path, seed: int) -> Question:
    """The triplets of a benchmark; raises BadBenchmark."""
    if name != "triplets" and not root.is_dir():
        raise BadBenchmark(f"{root} is not a folder; give the folder of the data set {name}.")
    return READERS[name](root, seed)
