"""Check and repair an index; forget what is gone."""

from dataclasses import dataclass

import numpy as np

from db.catalog import Catalog, KnownSpace
from retrieval.kit import SpaceKit

from .index_folder import IndexFolder
from .recall_files import refresh_recall


@dataclass(frozen=True)
class SpaceCheck:
    """What `verify` found in one space. damaged: ids whose record is missing, foreign or broken; they are queued again.
    orphans: records without a row, left by an interrupted run; they are never read. rebuilt: the FAISS file was."""

    name: str
    pictures: int
    damaged: list[int]
    orphans: int
    rebuilt: bool


@dataclass(frozen=True)
class Verified:
    spaces: list[SpaceCheck]


@dataclass(frozen=True)
class Pruned:
    """How many missing files were forgotten, and how many pictures that no file held any more."""

    files: int
    pictures: int


def verify_index(index: IndexFolder, memory: int) -> Verified:
    """Read every record of every space; queue damaged ones again, rebuild a bad FAISS file.

    Raises IndexBusy, CatalogDamaged, DamagedKit.
    """
    with index.writing(), index.catalog() as catalog:
        catalog.check()
        return Verified([_check_space(index, catalog, space, memory) for space in catalog.spaces()])


def _check_space(index: IndexFolder, catalog: Catalog, space: KnownSpace, memory: int) -> SpaceCheck:
    SpaceKit.load(index.space(space.fingerprint))
    contents = catalog.indexed(space.id)
    wanted = dict(zip(contents.ids.tolist(), contents.sha256, strict=True))
    with index.store(space.fingerprint, readonly=False) as store:
        damaged = store.check(wanted)
        orphans = len(np.setdiff1d(store.ids(), contents.ids))
    if damaged:
        catalog.unindex(space.id, damaged)
    rebuilt = refresh_recall(index, catalog, space, memory) is not None
    return SpaceCheck(space.name, len(wanted) - len(damaged), damaged, orphans, rebuilt)


def prune_index(index: IndexFolder, memory: int) -> Pruned:
    """Forget missing files, then the features of contents without any file, and orphans. Raises IndexBusy.

    The catalog forgets first: what is left in a store after an interruption is an orphan, gone with the next prune.
    """
    with index.writing(), index.catalog() as catalog:
        missing = catalog.status().missing
        gone = catalog.prune()
        for space in catalog.spaces():
            known = catalog.indexed(space.id).ids
            with index.store(space.fingerprint, readonly=False) as store:
                store.delete(np.setdiff1d(store.ids(), known).tolist())
                store.compact()
            refresh_recall(index, catalog, space, memory)
        return Pruned(missing, len(gone))
