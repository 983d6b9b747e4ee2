"""First stage: recall candidates by their pooled descriptors.

A FAISS index is built once over the descriptors of some pictures and never edited in place (editing a FAISS index
shifts or duplicates ids). It identifies pictures by their position, 0, 1, 2, ..., in the order given.
"""

import faiss
import numpy as np

from ..errors import RetrievalError

EXACT_LIMIT = 256_000_000
"""Up to this many numbers, pictures x dimensions, every descriptor is compared; docs/speed.md has the cost."""

LEAST_RECALL = 0.99
"""Share of the exact candidates that an approximate index must find; it probes as many lists as needed."""

_TRAINING_PER_LIST = 39
"""The fewest training pictures per list that FAISS requires."""

_PROBES = (8, 16, 32, 64, 128, 256, 512)

_NO_GAIN = 0.001
"""Stop doubling the number of probed lists when the loss falls by less than this."""

Found = tuple[np.ndarray, np.ndarray]
"""Candidates, best first: ids (or positions) int64, similarities float32."""


class OverBudget(RetrievalError):
    """No index type fits the memory budget."""


def choose_factory(pictures: int, dimensions: int, memory: int) -> str:
    """FAISS factory string for a collection size and a memory budget in bytes; raises OverBudget.

    Half precision holds the descriptors as stored (2 bytes per dimension); then one byte; then product quantisation.
    """
    count = 2 ** round(np.log2(4 * np.sqrt(max(pictures, 1))))
    lists = f"IVF{count},"
    prefix = "" if pictures * dimensions <= EXACT_LIMIT else lists
    codes = [(f"{prefix}SQfp16", 2 * dimensions), (f"{prefix}SQ8", dimensions)]
    if pictures >= _TRAINING_PER_LIST * count:
        # Without lists, FAISS's product quantiser cannot leave out pictures. `np`: no slow polysemous training.
        parts = [part for part in (2, 4, 8) if dimensions % part == 0]
        codes += [(f"{lists}PQ{dimensions // part}np", dimensions // part) for part in parts]
    for code, size in codes:
        if pictures * (size + 8) <= memory:
            return code
    least = pictures * (codes[-1][1] + 8)
    raise OverBudget(
        f"{pictures} pictures need at least {least / 2**20:.0f} MB of memory for candidate recall, more than the "
        f"budget of {memory / 2**20:.0f} MB; give a larger one with --memory."
    )


def build_index(descriptors: np.ndarray, memory: int) -> tuple[faiss.Index, str, float]:
    """Build an index over descriptors float16 [n, dimensions] (unit norm) -> (index, its factory string, loss).

    loss: share of the exact candidates that it misses, measured on descriptors of the collection; 0 if every descriptor
    is compared. Training sample, clustering and probing are seeded: the same descriptors give the same index. Raises
    OverBudget.
    """
    pictures, dimensions = descriptors.shape
    factory = choose_factory(pictures, dimensions, memory)
    index = faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        chosen = np.random.default_rng(0).permutation(pictures)[:100_000]
        index.train(descriptors[np.sort(chosen)].astype(np.float32))
    for start in range(0, pictures, 65_536):
        index.add(descriptors[start : start + 65_536].astype(np.float32))
    return index, factory, 0.0 if factory == "SQfp16" else _tune(index, descriptors)


def _tune(index: faiss.Index, descriptors: np.ndarray) -> float:
    """Set how many lists are probed: as few as find LEAST_RECALL of the exact top 200, or until more do not help (the
    codes are too coarse). Returns the remaining loss."""
    positions = np.arange(len(descriptors))
    asking = np.random.default_rng(1).permutation(len(descriptors))[:64]
    exact = [set(search_exact(positions, descriptors, descriptors[row], 200)[0].tolist()) for row in asking]
    queries = descriptors[asking].astype(np.float32)
    loss = np.inf
    for probes in _PROBES if isinstance(index, faiss.IndexIVF) else (0,):
        if probes:
            index.nprobe = probes
        found = index.search(queries, 200)[1]
        hits = sum(len(wanted & set(row.tolist())) for wanted, row in zip(exact, found, strict=True))
        before, loss = loss, 1 - hits / sum(map(len, exact))
        if loss <= 1 - LEAST_RECALL or before - loss < _NO_GAIN:
            break
    return loss


def search_index(index: faiss.Index, descriptor: np.ndarray, count: int, allowed: np.ndarray) -> Found:
    """The `count` nearest among the positions marked in `allowed`, bool [n]."""
    left = int(np.count_nonzero(allowed))
    if not left:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    selector = None if left == len(allowed) else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        # The rarer the allowed pictures, the more lists must be probed to find the nearest of them.
        probes = min(index.nlist, index.nprobe * index.ntotal // left)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=max(probes, index.nprobe))
    else:
        parameters = faiss.SearchParameters(sel=selector)
    similarities, positions = index.search(descriptor.astype(np.float32)[None], min(count, left), params=parameters)
    found = positions[0] >= 0
    return positions[0][found], similarities[0][found]


def search_exact(ids: np.ndarray, descriptors: np.ndarray, descriptor: np.ndarray, count: int) -> Found:
    """The `count` nearest of descriptors float16 [n, dimensions] by inner product; ties in the order of their ids."""
    asked = descriptor.astype(np.float32)
    blocks = [descriptors[start : start + 16_384].astype(np.float32) @ asked for start in range(0, len(ids), 16_384)]
    similarities = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    return best((ids, similarities), count)


def best(found: Found, count: int | None) -> Found:
    """The `count` (None: all) with the highest similarity, best first; ties in the order of their ids."""
    ids, similarities = found
    order = np.lexsort((ids, -similarities))[:count]
    return ids[order], similarities[order]


def merge(parts: list[Found], count: int | None) -> Found:
    """Merge several lists that have no id in common."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    return best((np.concatenate([ids for ids, _ in parts]), np.concatenate([each for _, each in parts])), count)
