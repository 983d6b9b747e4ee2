"""What a run would have to do: the run itself up to the first picture, on a copy, then a few pictures timed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from diffsim.db.pending import PendingContent
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.errors import RetrievalError
from diffsim.retrieval.extractor import Extractor
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job

from .account import account
from .build import begin, skipped_spaces
from .index_folder import IndexFolder
from .options import IndexOptions
from .requests import SpaceRequest
from .roots import offline_roots
from .skipped import UNUSABLE, SkippedSpace
from .spaces import Networks, OpenSpace
from .work import OnWork, silently

_TIMED = 12


@dataclass(frozen=True)
class Estimate:
    """pictures: files that look like pictures. known: those that have features in every space of the run, wherever they
    were before.

    todo: pictures that a run would extract, those that it finds to be broken included; one that two networks lack
    counts twice. seconds, disk (bytes): for them, from a few that were really decoded and extracted, and from one
    record. skipped: spaces that a run would leave out. unmatched: patterns that leave nothing out.
    """

    pictures: int
    known: int
    todo: int
    seconds: float
    disk: int
    skipped: list[SkippedSpace]
    unmatched: list[str]


def estimate(
    where: Path,
    folders: Sequence[Path],
    requests: Sequence[SpaceRequest],
    options: IndexOptions,
    on_work: OnWork = silently,
) -> Estimate:
    """Count, time a dozen pictures, write nothing. `where` may hold no index yet. Raises as `index_folders` does."""
    networks = Networks(choose_device(options.device))
    todo, seconds, disk = 0, 0.0, 0
    unusable: list[tuple[OpenSpace, RetrievalError]] = []
    with IndexFolder.trial(where) as index, index.catalog(create=True) as catalog:
        begun = begin(index, catalog, folders, requests, options, networks, on_work=on_work, rehearsal=True)
        offline = offline_roots(catalog)
        for spaces in begun.passes():
            ids = [space.known.id for space in spaces]
            lacking = catalog.count_pending(ids, offline)
            if not lacking:
                continue
            first = spaces[0]
            try:
                network = networks.of(first.known, first.kit.space)
                extractor = Extractor(network, [space.kit for space in spaces])
            except UNUSABLE as problem:
                unusable += [(space, problem) for space in spaces]
                continue
            some = list(islice(catalog.pending(ids, offline), 0, None, -(-lacking // _TIMED)))
            todo += lacking
            disk += _bytes_per_picture(extractor) * lacking
            seconds += _time_per_picture(extractor, some, options) * lacking
        found = account(catalog, begun.report, [space.known.id for space in begun.spaces])
        pictures = found.on_disk - found.excluded - len(begun.report.unseen)
        return Estimate(
            pictures, found.indexed, todo, seconds, disk, skipped_spaces(catalog, unusable), begun.report.unmatched
        )


def _bytes_per_picture(extractor: Extractor) -> int:
    """Bytes of a picture's records in all spaces. Extracts one, which also pays for warming up."""
    blank = np.zeros((1, extractor.size, extractor.size, 3), np.uint8)
    return sum(len(made.tokens) + made.descriptor.nbytes for (made,) in extractor.extract(blank))


def _time_per_picture(extractor: Extractor, some: Sequence[PendingContent], options: IndexOptions) -> float:
    """Seconds per picture, from disk to features."""
    limits = options.file_timeout_s, options.decoder_memory
    jobs = [Job(content.content_id, content.paths[0], b"") for content in some]
    with DecodePool(options.workers, extractor.size, *limits, extractor.fit) as pool:
        for _ in pool.run(jobs[:1]):
            pass
        started = time.monotonic()
        pictures = [result.pixels for result in pool.run(iter(jobs)) if isinstance(result, Decoded)]
        if pictures:
            extractor.extract(np.stack(pictures))
    return (time.monotonic() - started) / len(jobs)
