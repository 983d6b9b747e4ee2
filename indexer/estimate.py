"""What a run would have to do: count without writing, time a few pictures for real."""

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from db.catalog import Catalog
from retrieval.extractor import Extractor
from retrieval.kit import SpaceKit
from retrieval.tiers import record_bytes

from .build import IndexOptions
from .decode import Decoded, DecodePool, Job
from .devices import choose_device
from .index_folder import IndexFolder
from .roots import find_folders
from .spaces import (
    DEFAULT_MODEL,
    Networks,
    PassKey,
    SpaceRequest,
    find_space,
    known_spaces,
    make_kit,
    pass_key,
    requested_spaces,
)
from .walk import Entry, walk

_TIMED = 12

_Filled = tuple[str, str, SpaceKit]
"""A space with its network and adapter."""


@dataclass(frozen=True)
class Estimate:
    """pictures: files that look like pictures. known: those that the last run did and that have not changed since.

    seconds, disk (bytes): for the others, from a few that were really decoded and extracted, and from a record's size.
    """

    pictures: int
    known: int
    seconds: float
    disk: int


def estimate(where: Path, folders: Sequence[Path], requests: Sequence[SpaceRequest], options: IndexOptions) -> Estimate:
    """Count, time a dozen pictures, write nothing. `where` may hold no index yet. Raises as `index_folders` does."""
    networks = Networks(choose_device(options.device))
    with ExitStack() as opened:
        catalog = None
        if (where / "index.toml").exists():
            catalog = opened.enter_context(IndexFolder.open(where).catalog(readonly=True))
        roots = (
            find_folders(catalog, folders) if folders else [root.path for root in catalog.roots()] if catalog else []
        )
        kits, ids = _spaces(where, catalog, requests, networks)
        files = list(_files(roots, options))
        known = _known(catalog, ids, files) if catalog else set()
    todo = [path for path, _ in files if path not in known]
    seconds = 0.0
    for key, group in groupby(sorted(kits, key=_pass_key), key=_pass_key):
        network, adapter, _, dtype, *_ = key
        extractor = Extractor(networks.get(network, dtype, adapter), [kit for *_, kit in group])
        seconds += _time_per_picture(extractor, todo, options) * len(todo) if todo else 0.0
    per_picture = sum(record_bytes(kit.shapes, kit.space.tier) + 2 * kit.dimensions for *_, kit in kits)
    return Estimate(len(files), len(known), seconds, per_picture * len(todo))


def _spaces(
    where: Path, catalog: Catalog | None, requests: Sequence[SpaceRequest], networks: Networks
) -> tuple[list[_Filled], list[int] | None]:
    """The spaces that a run would fill, and their ids; None where one of them is new."""
    if not requests and catalog and catalog.spaces():
        spaces = known_spaces(IndexFolder.open(where), catalog)
        filled = [(space.known.network, space.known.adapter, space.kit) for space in spaces]
        return filled, [space.known.id for space in spaces]
    requests = requests or requested_spaces(DEFAULT_MODEL, [])
    kits = [(request.network, request.adapter, make_kit(request, networks)) for request in requests]
    found = [find_space(catalog, kit) if catalog else None for *_, kit in kits]
    return kits, None if None in found else [space.id for space in found if space]


def _pass_key(space: _Filled) -> PassKey:
    network, adapter, kit = space
    return pass_key(network, adapter, kit.space)


def _files(roots: Sequence[bytes], options: IndexOptions) -> Iterator[tuple[bytes, Entry]]:
    for root in roots:
        for item in walk(root, exclude_dirs=options.exclude_dirs, include_hidden=options.include_hidden):
            if isinstance(item, Entry):
                yield os.path.join(root, item.path), item


def _known(catalog: Catalog, space_ids: Sequence[int] | None, files: Sequence[tuple[bytes, Entry]]) -> set[bytes]:
    """Those of the files that the catalog has with this very stat, and with features in all spaces (or as failed)."""
    if space_ids is None:
        return set()
    roots = catalog.roots()
    stats, done = {}, set()
    for root in roots:
        for row in catalog.files.below(root.id, b""):
            stats[os.path.join(root.path, row.path)] = (row.size, row.mtime_ns, row.ctime_ns)
        for state in catalog.files.states(root.id, b"", space_ids):
            if state.indexed or state.failure:
                done.add(os.path.join(root.path, state.path))
    return {
        path for path, entry in files if path in done and stats[path] == (entry.size, entry.mtime_ns, entry.ctime_ns)
    }


def _time_per_picture(extractor: Extractor, todo: Sequence[bytes], options: IndexOptions) -> float:
    """Seconds per picture, from disk to features."""
    sample = random.Random(0).sample(todo, min(_TIMED, len(todo)))
    extractor.extract(np.zeros((1, extractor.size, extractor.size, 3), np.uint8))  # the first pass pays for warming up
    with DecodePool(options.workers, extractor.size, options.file_timeout_s, options.decoder_memory) as pool:
        for _ in pool.run([Job(0, sample[0], b"")]):
            pass
        started = time.monotonic()
        pictures = [
            result.pixels for result in pool.run(Job(0, path, b"") for path in sample) if isinstance(result, Decoded)
        ]
        if pictures:
            extractor.extract(np.stack(pictures))
    return (time.monotonic() - started) / len(sample)
