"""Keep each space's FAISS file in line with the catalog: only the writer rebuilds it."""

from collections.abc import Callable
from dataclasses import dataclass

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.retrieval.shard.recall import RecallFile, build_recall_file, open_recall_file

from .index_folder import IndexFolder

STALE_SHARE = 0.1
"""Rebuild when what the file lacks, and what it has too much, passes this share of the collection."""


@dataclass(frozen=True)
class RecallReport:
    """A FAISS file that was built for a space, over so many pictures."""

    space: KnownSpace
    pictures: int
    file: RecallFile


def refresh_recall(
    index: IndexFolder,
    catalog: Catalog,
    space: KnownSpace,
    memory: int,
    on_step: Callable[[str], None] = lambda step: None,
) -> RecallReport | None:
    """Rebuild a space's FAISS file where it is missing, damaged or stale; None where it is good. Raises OverBudget."""
    contents = catalog.indexed(space.id)
    if not len(contents.ids):
        return None
    recorded = catalog.recall_file(space.id)
    path = index.recall_file(space.fingerprint)
    if recorded is not None:
        file = open_recall_file(path, recorded.digest)
        covered = int((contents.generations <= recorded.generation).sum())
        tail = len(contents.ids) - covered
        if file is not None and tail + abs(file.ntotal - covered) <= STALE_SHARE * len(contents.ids):
            return None
    with index.store(space.fingerprint, readonly=False) as store:
        wanted = dict(zip(contents.ids.tolist(), contents.sha256, strict=True))
        ids, descriptors = store.descriptors(wanted)
    if not len(ids):
        return None
    built = build_recall_file(path, ids, descriptors, memory)
    on_step("recall written")
    catalog.set_recall_file(space.id, contents.generation, built.digest)
    on_step("recall committed")
    return RecallReport(space, len(ids), built)
