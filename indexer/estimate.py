"""What a run would have to do: count without writing, time a few pictures for real."""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.extractor import Extractor, make_space
from retrieval.tiers import record_bytes

from .build import IndexOptions
from .decode import Decoded, DecodePool, Job
from .devices import choose_device
from .index_folder import IndexFolder
from .roots import root_of
from .spaces import Networks, SpaceRequest
from .walk import Entry, walk

_TIMED = 12


@dataclass(frozen=True)
class Estimate:
    """pictures: files that look like pictures. known: those of them whose stat is as at the last run. seconds, disk: for
    the others, from a few of them that were really decoded and extracted, and from the size of a record in bytes."""

    pictures: int
    known: int
    seconds: float
    disk: int


def estimate(where: Path, folders: Sequence[Path], requests: Sequence[SpaceRequest], options: IndexOptions) -> Estimate:
    """Count, time a dozen pictures, write nothing. Raises as `index_folders` does."""
    files = list(_files(folders, options))
    known = _unchanged(where, files)
    todo = [path for path, entry in files if path not in known]
    networks = Networks(choose_device(options.device))
    kits = [
        make_space(networks.get(request.network, request.dtype), request.taps, size=request.size, prompt=request.prompt,
                   dtype=request.dtype, tier=request.tier)
        for request in requests
    ]
    network = networks.get(requests[0].network, requests[0].dtype)
    per_picture = sum(record_bytes(kit.shapes, kit.space.tier) + _descriptor_bytes(kit.shapes) for kit in kits)
    seconds = _time_per_picture(Extractor(network, kits), todo, options) * len(todo) if todo else 0.0
    return Estimate(len(files), len(known), seconds, per_picture * len(todo))


def _files(folders: Sequence[Path], options: IndexOptions) -> list[tuple[bytes, Entry]]:
    found = []
    for folder in folders:
        root = os.path.realpath(os.fsencode(folder))
        for item in walk(root, exclude_dirs=options.exclude_dirs, include_hidden=options.include_hidden):
            if isinstance(item, Entry):
                found.append((os.path.join(root, item.path), item))
    return found


def _unchanged(where: Path, files: Sequence[tuple[bytes, Entry]]) -> set[bytes]:
    """Those of the files that an index at `where`, if there is one, has seen with this very stat."""
    if not (where / "index.toml").exists():
        return set()
    with IndexFolder.open(where).catalog(readonly=True) as catalog:
        roots = catalog.roots()
        rows = {root.id: {row.path: row for row in catalog.files.below(root.id, b"")} for root in roots}
    unchanged = set()
    for path, entry in files:
        root = root_of(roots, path)
        row = rows[root.id].get(os.path.relpath(path, root.path)) if root else None
        if row and (row.size, row.mtime_ns, row.ctime_ns) == (entry.size, entry.mtime_ns, entry.ctime_ns):
            unchanged.add(path)
    return unchanged


def _descriptor_bytes(shapes: Sequence[tuple[int, int]]) -> int:
    return sum(2 * 2 * channels for _, channels in shapes)


def _time_per_picture(extractor: Extractor, todo: Sequence[bytes], options: IndexOptions) -> float:
    """Seconds per picture, from disk to features."""
    sample = random.Random(0).sample(todo, min(_TIMED, len(todo)))
    extractor.extract(np.zeros((1, extractor.size, extractor.size, 3), np.uint8))  # the first pass pays for warming up
    with DecodePool(options.workers, extractor.size, options.file_timeout_s, options.decoder_memory) as pool:
        for _ in pool.run([Job(0, sample[0], b"")]):
            pass
        started = time.monotonic()
        pictures = [result.pixels for result in pool.run(Job(0, path, b"") for path in sample) if isinstance(result, Decoded)]
        if pictures:
            extractor.extract(np.stack(pictures))
    return (time.monotonic() - started) / len(sample)
