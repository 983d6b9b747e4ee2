"""Build or update an index: scan, decode, extract, store, commit, in that order (DESIGN sections 4 and 5).

The feature store is committed before the catalog: the row in the catalog is what makes a picture exist. Wherever a run
is cut off, the next one goes on; nothing is lost and nothing is there twice.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from diffsim.db.catalog import Catalog, PendingContent
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.errors import RetrievalError
from diffsim.retrieval.extractor import Extractor, PictureFeatures
from diffsim.retrieval.pictures.decode_pool import Changed, Decoded, DecodePool, Failed, Job
from diffsim.retrieval.shard.store import FeatureStore, Record

from .account import Account, account
from .index_folder import IndexFolder
from .recall_files import RecallReport, refresh_recall
from .requests import DEFAULT_MODEL, SpaceRequest, requested_spaces
from .roots import find_folders, offline_roots
from .scan import ScanReport, rescan_file, scan
from .skipped import UNUSABLE, SkippedSpace, reason
from .spaces import Networks, OpenSpace, PassKey, known_spaces, pass_key, settle_spaces
from .walk import DEFAULT_EXCLUDE_DIRS

_PASSES = 3


@dataclass(frozen=True)
class IndexOptions:
    """How to run. batch_size: pictures per network pass. workers: decoding processes. memory: bytes that candidate
    recall may take when it is asked. retry_failed: try files that failed before although they have not changed.
    commit_seconds: how much work a killed run may lose. only: absolute paths of the files to extract, where not all of
    them are wanted."""

    exclude_dirs: frozenset[bytes] = DEFAULT_EXCLUDE_DIRS
    include_hidden: bool = False
    device: str = "auto"
    batch_size: int = 16
    workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    memory: int = 2**30
    retry_failed: bool = False
    file_timeout_s: float = 60.0
    decoder_memory: int = 2 * 10**9
    commit_seconds: float = 4.0
    only: frozenset[bytes] | None = None


@dataclass(frozen=True)
class IndexReport:
    """What a run did. account: every file, counted once. offline: roots that could not be looked at, and why.
    skipped: those of the spaces that lack pictures because their network is gone or another one now."""

    account: Account
    offline: list[tuple[bytes, str]]
    spaces: list[OpenSpace]
    skipped: list[SkippedSpace]
    extracted: int
    seconds: float
    recall: list[RecallReport]


def index_folders(
    index: IndexFolder,
    folders: Sequence[Path],
    requests: Sequence[SpaceRequest] = (),
    options: IndexOptions | None = None,
    *,
    on_step: Callable[[str], None] = lambda step: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> IndexReport:
    """Bring the index in line with the folders; without folders, with all that it knows.

    requests: feature spaces to fill; none means every space of the index (a first run makes the default one), save
    those whose network is gone or another one now, which are skipped and reported.
    on_step: called after every commit with its name, in the order in which they happen: "root committed",
    "files committed", "missing committed" (scan), "features stored", "features committed" (extraction),
    "recall written", "recall committed". on_progress: called with (pictures done, pictures in all).

    Raises IndexBusy, FolderNotFound, UnknownModel, BadNetwork, StoreFull, ...
    """
    options = options or IndexOptions()
    started = time.monotonic()
    with index.writing(), index.catalog(create=True) as catalog:
        networks = Networks(choose_device(options.device))
        find_folders(catalog, folders)  # before anything is written: a mistyped name must leave no trace
        if not requests and not catalog.spaces():
            requests = requested_spaces(DEFAULT_MODEL, [])
        asked = settle_spaces(index, catalog, requests, networks) if requests else known_spaces(index, catalog)
        # A profile and its layer spelled out are one space.
        spaces = list({space.known.fingerprint: space for space in asked}.values())
        if options.retry_failed:
            catalog.clear_failures()
        roots = list(folders) or [Path(os.fsdecode(root.path)) for root in catalog.roots()]
        report = scan(
            catalog,
            roots,
            exclude_dirs=options.exclude_dirs,
            include_hidden=options.include_hidden,
            on_step=on_step,
            commit_every_s=options.commit_seconds,
        )
        extracted = 0
        unusable: list[tuple[OpenSpace, RetrievalError]] = []
        for _, group in groupby(sorted(spaces, key=_pass_key), key=_pass_key):
            together = list(group)
            run = _Extraction(index, catalog, report, together, networks, options, on_step, on_progress)
            try:
                extracted += run.all_pending()
            except UNUSABLE as problem:
                unusable += [(space, problem) for space in together]
        recall = [refresh_recall(index, catalog, space.known, options.memory, on_step) for space in spaces]
        return IndexReport(
            account(catalog, report, [space.known.id for space in spaces]),
            report.offline,
            asked,
            _skipped(catalog, unusable),
            extracted,
            time.monotonic() - started,
            [done for done in recall if done is not None],
        )


def _skipped(catalog: Catalog, unusable: Sequence[tuple[OpenSpace, RetrievalError]]) -> list[SkippedSpace]:
    """Counted at the end of the run, when other spaces have shown which of the new files are no pictures."""
    offline = offline_roots(catalog)
    waiting = [len(catalog.pending([space.known.id], offline)) for space, _ in unusable]
    return [
        SkippedSpace(space.known, reason(space.known, problem), count)
        for (space, problem), count in zip(unusable, waiting, strict=True)
        if count
    ]


def _pass_key(space: OpenSpace) -> PassKey:
    return pass_key(space.known.network, space.known.adapter, space.kit.space)


class _Extraction:
    """Fills some spaces of one network: each picture is decoded and encoded once for all of them."""

    def __init__(
        self,
        index: IndexFolder,
        catalog: Catalog,
        report: ScanReport,
        spaces: list[OpenSpace],
        networks: Networks,
        options: IndexOptions,
        on_step: Callable[[str], None],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._index = index
        self._catalog = catalog
        self._report = report
        self._spaces = spaces
        self._networks = networks
        self._options = options
        self._on_step = on_step
        self._on_progress = on_progress
        self._ids = [space.known.id for space in spaces]
        self._done = 0

    def all_pending(self) -> int:
        """Extract whatever lacks features; returns how many pictures that were.

        A file that changed or vanished meanwhile is looked at again, so a few passes may be needed.
        """
        extracted = 0
        for _ in range(_PASSES):
            pending = self._catalog.pending(self._ids, offline_roots(self._catalog))
            if self._options.only is not None:
                pending = [content for content in pending if not self._options.only.isdisjoint(content.paths)]
            if not pending:
                break
            extracted += self._extract(pending)
        return extracted

    def _extract(self, pending: list[PendingContent]) -> int:
        space = self._spaces[0]
        network = self._networks.of(space.known, space.kit.space)
        extractor = Extractor(network, [each.kit for each in self._spaces])
        options = self._options
        extracted, self._done = 0, 0
        waiting: list[tuple[Decoded, list[PictureFeatures]]] = []
        committed = time.monotonic()
        with ExitStack() as opened:
            stores = [
                opened.enter_context(self._index.store(each.known.fingerprint, readonly=False)) for each in self._spaces
            ]
            try:
                limits = options.file_timeout_s, options.decoder_memory
                pool = opened.enter_context(DecodePool(options.workers, extractor.size, *limits, extractor.fit))
                jobs = (Job(content.content_id, content.paths[0], content.sha256) for content in pending)
                for batch in _batches(self._decoded(pool, jobs, len(pending)), options.batch_size):
                    waiting += zip(
                        batch, _by_picture(extractor, np.stack([item.pixels for item in batch])), strict=True
                    )
                    if time.monotonic() - committed >= options.commit_seconds:
                        extracted += self._commit(stores, waiting)
                        committed = time.monotonic()
                    self._done += len(batch)
                    self._on_progress(self._done, len(pending))
            finally:
                # Also when the run is interrupted: what has been computed is kept.
                extracted += self._commit(stores, waiting)
        return extracted

    def _decoded(self, pool: DecodePool, jobs: Iterator[Job], total: int) -> Iterator[Decoded]:
        """The pictures that could be decoded; the others are put down in the catalog with their reason."""
        for result in pool.run(jobs):
            if isinstance(result, Decoded):
                yield result
                continue
            self._done += 1
            self._on_progress(self._done, total)
            self._set_aside(result)

    def _set_aside(self, result: Failed | Changed) -> None:
        """Tell a file that changed or cannot be read any more from a content that is no picture."""
        now = rescan_file(self._catalog, self._report, result.job.path)
        if isinstance(result, Failed) and now.content_id == result.job.content_id:
            self._catalog.mark_failed(result.job.content_id, result.reason)

    def _commit(self, stores: Sequence[FeatureStore], waiting: list[tuple[Decoded, list[PictureFeatures]]]) -> int:
        """First the features, then the rows that make them count."""
        if not waiting:
            return 0
        for number, store in enumerate(stores):
            store.put(
                Record(item.job.content_id, item.job.sha256, features[number].descriptor, features[number].tokens)
                for item, features in waiting
            )
            self._on_step("features stored")
        pictures = [(item.job.content_id, item.format, item.width, item.height) for item, _ in waiting]
        self._catalog.mark_indexed(self._ids, pictures)
        waiting.clear()
        self._on_step("features committed")
        return len(pictures)


def _batches(items: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _by_picture(extractor: Extractor, pixels: np.ndarray) -> list[list[PictureFeatures]]:
    """For each picture its features in every space; a batch that does not fit the GPU is halved."""
    try:
        return [list(features) for features in zip(*extractor.extract(pixels), strict=True)]
    except torch.cuda.OutOfMemoryError:
        if len(pixels) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(pixels) // 2
    return _by_picture(extractor, pixels[:half]) + _by_picture(extractor, pixels[half:])
