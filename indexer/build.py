"""Build or update an index: scan, decode, extract, store, commit, in that order (DESIGN sections 4 and 5).

The feature store is committed before the catalog: the row in the catalog is what makes a picture exist. Wherever a run
is cut off, the next one goes on; nothing is lost and nothing is there twice.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from diffsim.db.catalog import Catalog
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.errors import RetrievalError

from .account import Account, account
from .exclusions import for_root
from .extract import Extraction
from .index_folder import IndexFolder
from .metadata import read_missing_metadata
from .options import IndexOptions
from .recall_files import RecallReport, refresh_recall
from .requests import DEFAULT_MODEL, SpaceRequest, requested_spaces
from .roots import find_folders, offline_roots
from .scan import ScanReport, scan
from .sketches import fill_sketches
from .skipped import UNUSABLE, SkippedSpace, reason
from .spaces import Networks, OpenSpace, PassKey, known_spaces, pass_key, resolve_spaces
from .work import OnWork, silently

__all__ = ["IndexOptions", "IndexReport", "index_folders"]


@dataclass(frozen=True)
class IndexReport:
    """What a run did. account: every file, counted once. offline: roots that could not be looked at, and why.
    skipped: those of the spaces that lack pictures because their network is gone or another one now. unmatched:
    patterns of the run's `exclude` that left nothing out."""

    account: Account
    offline: list[tuple[bytes, str]]
    spaces: list[OpenSpace]
    skipped: list[SkippedSpace]
    unmatched: list[str]
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
    on_work: OnWork = silently,
) -> IndexReport:
    """Bring the index in line with the folders; without folders, with all that it knows.

    requests: feature spaces to fill; none means every space of the index (a first run makes the default one), save
    those whose network is gone or another one now, which are skipped and reported.
    on_step: called after every commit with its name, in the order in which they happen: "root committed",
    "files committed", "missing committed" (scan), "features stored", "features committed" (extraction),
    "recall written", "recall committed". on_progress: called with (pictures done, pictures in all).
    on_work: told of what comes before and after the extraction.

    Raises IndexBusy, IndexGone, FolderNotFound, UnknownModel, BadNetwork, StoreFull, ...
    """
    options = options or IndexOptions()
    started = time.monotonic()
    with index.writing(), index.catalog(create=True) as catalog:
        networks = Networks(choose_device(options.device))
        begun = begin(index, catalog, folders, requests, options, networks, on_step=on_step, on_work=on_work)
        extracted = 0
        unusable: list[tuple[OpenSpace, RetrievalError]] = []
        for together in begun.passes():
            run = Extraction(index, catalog, begun.report, together, networks, options, on_step, on_progress)
            try:
                extracted += run.all_pending()
            except UNUSABLE as problem:
                unusable += [(space, problem) for space in together]
        index.check_there()  # a store that is opened to be read or written anew would be made anew
        read_missing_metadata(index, catalog, options, on_work)
        index.check_there()
        recall = refresh_recall(
            index, catalog, [space.known for space in begun.spaces], options.memory, on_step, on_work
        )
        if options.only is None:
            fill_sketches(index, catalog, options, on_work)
        return IndexReport(
            account(catalog, begun.report, [space.known.id for space in begun.spaces]),
            begun.report.offline,
            begun.asked,
            skipped_spaces(catalog, unusable),
            begun.report.unmatched,
            extracted,
            time.monotonic() - started,
            recall,
        )


@dataclass(frozen=True)
class Begun:
    """A run that has scanned its folders and extracts next. asked: the space behind each request, or all spaces of the
    index; spaces: each once, as a profile and its layer spelled out are one."""

    asked: list[OpenSpace]
    spaces: list[OpenSpace]
    report: ScanReport

    def passes(self) -> Iterator[list[OpenSpace]]:
        """The spaces that are filled together."""
        for _, group in groupby(sorted(self.spaces, key=_pass_key), key=_pass_key):
            yield list(group)


def begin(
    index: IndexFolder,
    catalog: Catalog,
    folders: Sequence[Path],
    requests: Sequence[SpaceRequest],
    options: IndexOptions,
    networks: Networks,
    *,
    on_step: Callable[[str], None] = lambda step: None,
    on_work: OnWork = silently,
    rehearsal: bool = False,
) -> Begun:
    """Everything up to the extraction: the spaces, the roots, the scan. rehearsal: as in `scan`."""
    find_folders(catalog, folders)  # before anything is written: a mistyped name must leave no trace
    for pattern in options.exclude:
        for_root(pattern, b"", ())  # likewise
    if not requests and not catalog.spaces():
        requests = requested_spaces(DEFAULT_MODEL, [])
    asked = resolve_spaces(index, catalog, requests, networks) if requests else known_spaces(index, catalog)
    if options.shard_pictures not in (None, catalog.shards()[-1].capacity):
        catalog.set_shard_capacity(options.shard_pictures)
    if options.retry_failed:
        catalog.clear_failures()
    report = scan(
        catalog,
        list(folders) or [Path(os.fsdecode(root.path)) for root in catalog.roots()],
        exclude=options.exclude,
        include_hidden=options.include_hidden,
        on_step=on_step,
        on_work=on_work,
        commit_every_s=options.commit_seconds,
        rehearsal=rehearsal,
    )
    return Begun(asked, list({space.known.fingerprint: space for space in asked}.values()), report)


def skipped_spaces(catalog: Catalog, unusable: Sequence[tuple[OpenSpace, RetrievalError]]) -> list[SkippedSpace]:
    """Counted at the end of the run, when other spaces have shown which of the new files are no pictures."""
    offline = offline_roots(catalog)
    waiting = [catalog.count_pending([space.known.id], offline) for space, _ in unusable]
    return [
        SkippedSpace(space.known, reason(space.known, problem), count)
        for (space, problem), count in zip(unusable, waiting, strict=True)
        if count
    ]


def _pass_key(space: OpenSpace) -> PassKey:
    return pass_key(space.known.network, space.known.adapter, space.kit.space)
