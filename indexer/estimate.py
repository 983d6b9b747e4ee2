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

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.extractor import Extractor
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job

from .build import IndexOptions
from .index_folder import IndexFolder
from .requests import DEFAULT_MODEL, SpaceRequest, requested_spaces
from .roots import find_folders
from .skipped import UNUSABLE, SkippedSpace, reason
from .spaces import Networks, PassKey, find_space, known_spaces, make_kit, pass_key
from .walk import Entry, walk

_TIMED = 12


@dataclass(frozen=True)
class Estimate:
    """pictures: files that look like pictures. known: those that the last run did and that have not changed since.

    todo: those that a run would extract. seconds, disk (bytes): for them, from a few that were really decoded and
    extracted, and from one record. skipped: spaces that a run would leave out.
    """

    pictures: int
    known: int
    todo: int
    seconds: float
    disk: int
    skipped: list[SkippedSpace]


@dataclass(frozen=True)
class _Wanted:
    """A space that a run would fill; known is None for a new one."""

    network: str
    adapter: str
    kit: SpaceKit
    known: KnownSpace | None


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
        spaces = _spaces(where, catalog, requests, networks)
        files = list(_files(roots, options))
        known = _known(catalog, spaces, files)
        seconds, disk = 0.0, 0
        todo: set[bytes] = set()
        skipped: list[SkippedSpace] = []
        for (network, adapter, _, dtype, *_), group in groupby(sorted(spaces, key=_pass_key), key=_pass_key):
            together = list(group)
            done = _known(catalog, together, files)
            lacking = [path for path, _ in files if path not in done]
            if not lacking:
                continue
            try:
                made_by = together[0].kit.space.family
                extractor = Extractor(networks.get(network, dtype, adapter, made_by), [space.kit for space in together])
            except UNUSABLE as problem:
                for space in together:
                    waiting = len(files) - len(_known(catalog, [space], files))
                    if space.known and waiting:
                        skipped.append(SkippedSpace(space.known, reason(space.known, problem), waiting))
                continue
            todo.update(lacking)
            disk += _bytes_per_picture(extractor) * len(lacking)
            seconds += _time_per_picture(extractor, lacking, options) * len(lacking)
    return Estimate(len(files), len(known), len(todo), seconds, disk, skipped)


def _spaces(
    where: Path, catalog: Catalog | None, requests: Sequence[SpaceRequest], networks: Networks
) -> list[_Wanted]:
    if not requests and catalog and catalog.spaces():
        spaces = known_spaces(IndexFolder.open(where), catalog)
        return [_Wanted(space.known.network, space.known.adapter, space.kit, space.known) for space in spaces]
    requests = requests or requested_spaces(DEFAULT_MODEL, [])
    made = [(request, make_kit(request, networks)) for request in requests]
    return [
        _Wanted(request.network, request.adapter, kit, find_space(catalog, kit) if catalog else None)
        for request, kit in made
    ]


def _pass_key(space: _Wanted) -> PassKey:
    return pass_key(space.network, space.adapter, space.kit.space)


def _files(roots: Sequence[bytes], options: IndexOptions) -> Iterator[tuple[bytes, Entry]]:
    for root in roots:
        for item in walk(root, exclude_dirs=options.exclude_dirs, include_hidden=options.include_hidden):
            if isinstance(item, Entry):
                yield os.path.join(root, item.path), item


def _known(catalog: Catalog | None, spaces: Sequence[_Wanted], files: Sequence[tuple[bytes, Entry]]) -> set[bytes]:
    """Those of the files that the catalog has with this very stat, and with features in all spaces (or as failed)."""
    space_ids = [space.known.id for space in spaces if space.known]
    if catalog is None or len(space_ids) < len(spaces):
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


def _bytes_per_picture(extractor: Extractor) -> int:
    """Bytes of a picture's records in all spaces. Extracts one, which also pays for warming up."""
    blank = np.zeros((1, extractor.size, extractor.size, 3), np.uint8)
    return sum(len(made.tokens) + made.descriptor.nbytes for (made,) in extractor.extract(blank))


def _time_per_picture(extractor: Extractor, todo: Sequence[bytes], options: IndexOptions) -> float:
    """Seconds per picture, from disk to features."""
    sample = random.Random(0).sample(todo, min(_TIMED, len(todo)))
    limits = options.file_timeout_s, options.decoder_memory
    with DecodePool(options.workers, extractor.size, *limits, extractor.fit) as pool:
        for _ in pool.run([Job(0, sample[0], b"")]):
            pass
        started = time.monotonic()
        pictures = [
            result.pixels for result in pool.run(Job(0, path, b"") for path in sample) if isinstance(result, Decoded)
        ]
        if pictures:
            extractor.extract(np.stack(pictures))
    return (time.monotonic() - started) / len(sample)
