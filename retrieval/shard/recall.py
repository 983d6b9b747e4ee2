"""First stage: recall candidates by their pooled descriptors.

A FAISS file is an immutable cache of descriptors: built elsewhere, synced, renamed, known by the hash of its bytes. It
is never edited in place (ids shift or double when FAISS indices are). Whatever it does not cover is searched exactly.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from ..durable import put_in_place
from ..errors import RetrievalError

EXACT_LIMIT = 256_000_000
"""Up to this many numbers, pictures x dimensions, every descriptor is compared: docs/speed.md has what that costs."""

LEAST_RECALL = 0.99
"""Share of the exact candidates that an approximate index must find; it probes as many lists as that takes."""

_TRAINING_PER_LIST = 39
"""How many pictures a list FAISS asks for at least."""

_PROBES = (8, 16, 32, 64, 128, 256, 512)

_NO_GAIN = 0.001
"""A doubling of the lists that lessens the loss by less than this was the last."""

Found = tuple[np.ndarray, np.ndarray]
"""Candidates, best first: ids int64, similarities float32."""


class OverBudget(RetrievalError):
    """No index type fits the memory budget."""


@dataclass(frozen=True)
class RecallFile:
    """What was built. factory: in FAISS's own notation. loss: share of exact candidates that it misses, measured on
    descriptors of the collection; 0 where every descriptor is compared."""

    digest: str
    factory: str
    loss: float


def choose_factory(pictures: int, dimensions: int, memory: int) -> str:
    """FAISS factory string for a collection size and a memory budget in bytes; raises OverBudget.

    Half precision holds the descriptors as stored (2 bytes a dimension); then one byte; then product quantisation.
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


def build_recall_file(path: Path, ids: np.ndarray, descriptors: np.ndarray, memory: int) -> RecallFile:
    """Build a FAISS file over ids int64 [n] and descriptors float16 [n, dimensions] (unit norm), and put it at `path`.

    Training sample, clustering and probing are seeded: the same descriptors give the same file.
    """
    dimensions = descriptors.shape[1]
    factory = choose_factory(len(ids), dimensions, memory)
    index = faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        chosen = np.random.default_rng(0).permutation(len(ids))[:100_000]
        index.train(descriptors[np.sort(chosen)].astype(np.float32))
    index = index if factory.startswith("IVF") else faiss.IndexIDMap(index)
    for start in range(0, len(ids), 65_536):
        part = slice(start, start + 65_536)
        index.add_with_ids(descriptors[part].astype(np.float32), ids[part])
    loss = 0.0 if factory == "SQfp16" else _tune(index, ids, descriptors)
    part_path = path.with_name(path.name + ".part")
    faiss.write_index(index, str(part_path))
    with open(part_path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    put_in_place(part_path, path)
    return RecallFile(digest, factory, loss)


def _tune(index: faiss.Index, ids: np.ndarray, descriptors: np.ndarray) -> float:
    """Set how many lists are probed: as few as find LEAST_RECALL of the exact top 200, or until more bring nothing
    more (the codes are too coarse). Returns the loss that is left."""
    asking = np.random.default_rng(1).permutation(len(ids))[:64]
    exact = [set(search_exact(ids, descriptors, descriptors[row], 200)[0].tolist()) for row in asking]
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


def open_recall_file(path: Path, digest: str) -> faiss.Index | None:
    """The FAISS index at `path`, or None where the file is not byte for byte the one that was built."""
    try:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return None
            file.seek(0)  # the file that was hashed is read, not one that has just taken its name
            return faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except (OSError, RuntimeError):
        return None


def search_file(index: faiss.Index, descriptor: np.ndarray, count: int, allowed: np.ndarray) -> Found:
    """The `count` nearest of `allowed` (int64 ids, a set) in a FAISS file."""
    if not len(allowed):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    bitmap = np.zeros(int(allowed.max()) // 8 + 1, np.uint8)
    np.bitwise_or.at(bitmap, allowed >> 3, np.left_shift(1, allowed & 7).astype(np.uint8))
    selector = faiss.IDSelectorBitmap(bitmap)
    if isinstance(index, faiss.IndexIVF):
        # The rarer the allowed pictures, the more lists hold the nearest of them.
        probes = min(index.nlist, index.nprobe * index.ntotal // len(allowed))
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=max(probes, index.nprobe))
    else:
        parameters = faiss.SearchParameters(sel=selector)
    similarities, ids = index.search(descriptor.astype(np.float32)[None], min(count, len(allowed)), params=parameters)
    found = ids[0] >= 0
    return ids[0][found], similarities[0][found]


def search_exact(ids: np.ndarray, descriptors: np.ndarray, descriptor: np.ndarray, count: int) -> Found:
    """The `count` nearest of descriptors float16 [n, dimensions] by inner product; equals in the order of their ids."""
    asked = descriptor.astype(np.float32)
    blocks = [descriptors[start : start + 16_384].astype(np.float32) @ asked for start in range(0, len(ids), 16_384)]
    similarities = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    order = np.lexsort((ids, -similarities))[:count]
    return ids[order], similarities[order]


def merge(first: Found, second: Found, count: int) -> Found:
    """One list of two; an id that stands in both counts once."""
    ids, similarities = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    order = np.lexsort((ids, -similarities))
    ids, similarities = ids[order], similarities[order]
    _, seen_first = np.unique(ids, return_index=True)
    keep = np.sort(seen_first)[:count]
    return ids[keep], similarities[keep]
