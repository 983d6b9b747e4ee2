"""Keep the snapshot of each shard in line with the catalog: only the writer rebuilds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.retrieval.shard.snapshot import (
    BuiltSnapshot,
    Rows,
    build_snapshot,
    remove_other_snapshots,
    snapshot_is_sound,
)

from .index_folder import IndexFolder
from .work import OnWork, silently

STALE_SHARE = 0.1
"""Rebuild when more than this share of a shard's pictures are new, gone, or seen or hidden since: every reader that
opens the file must learn that from the catalog."""


@dataclass(frozen=True)
class RecallReport:
    """A snapshot that was built for a shard of a space, over so many pictures."""

    space: KnownSpace
    shard: int
    pictures: int
    snapshot: BuiltSnapshot


def refresh_recall(
    index: IndexFolder,
    catalog: Catalog,
    spaces: Sequence[KnownSpace],
    memory: int,
    on_step: Callable[[str], None] = lambda step: None,
    on_work: OnWork = silently,
) -> list[RecallReport]:
    """Rebuild the snapshots of these spaces that are missing, damaged or stale. Raises OverBudget.

    memory: bytes for the FAISS files of all shards of a space; each gets the share that it has of the pictures.
    """
    built = [report for space in spaces for report in _refresh_space(index, catalog, space, memory, on_step, on_work)]
    catalog.forget_changes()
    return built


def _refresh_space(
    index: IndexFolder,
    catalog: Catalog,
    space: KnownSpace,
    memory: int,
    on_step: Callable[[str], None],
    on_work: OnWork,
) -> list[RecallReport]:
    # What an index had before it had shards. No catalog names it any more.
    (index.space(space.fingerprint) / "recall.faiss").unlink(missing_ok=True)
    now, last_change = catalog.generation(), catalog.last_change(space.id)
    recorded = catalog.recall_files(space.id)
    built, unchanged = [], []
    for shard in catalog.shards():
        known = recorded.get(shard.number)
        folder = index.shard(space.fingerprint, shard.number)
        if known and snapshot_is_sound(folder, known.digest):
            changed = catalog.count_changes(space.id, known.generation, shard.number)
            if not changed and known.generation < last_change:
                unchanged.append(shard.number)
            if not changed or changed <= STALE_SHARE * catalog.count_indexed(space.id, shard.number):
                continue
        report = _build(index, catalog, space, shard.number, memory, on_step, on_work)
        built += [report] if report else []
    if unchanged:
        # Readers look for changes after the file's generation; here there are none among all those of other shards.
        catalog.set_recall_generation(space.id, unchanged, now)
    return built


def _build(
    index: IndexFolder,
    catalog: Catalog,
    space: KnownSpace,
    shard: int,
    memory: int,
    on_step: Callable[[str], None],
    on_work: OnWork,
) -> RecallReport | None:
    contents = catalog.indexed(space.id, shard)
    folder = index.shard(space.fingerprint, shard)
    if not len(contents.ids):
        catalog.forget_recall_file(space.id, shard)
        remove_other_snapshots(folder, None)
        return None
    with index.store(space.fingerprint, shard, readonly=False) as store:
        ids, descriptors = store.descriptors(contents.hashes())
    if not len(ids):
        return None
    sound = np.isin(contents.ids, ids, assume_unique=True)
    rows = Rows(ids, contents.sha256[sound], contents.visible[sound])
    share = len(contents.ids) / catalog.count_indexed(space.id)
    doing = f"Building the FAISS file of {space.name}"
    on_work(doing, 0, len(ids))
    built = build_snapshot(folder, rows, descriptors, int(memory * share))
    on_work(doing, len(ids), len(ids))
    on_step("recall written")
    catalog.set_recall_file(space.id, shard, contents.generation, built.digest)
    remove_other_snapshots(folder, built.digest)
    on_step("recall committed")
    return RecallReport(space, shard, len(ids), built)
