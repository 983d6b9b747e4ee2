"""Check and repair an index; forget what is gone, or what nobody wants any more."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.changes import SpaceChanges
from diffsim.db.chunks import chunks
from diffsim.db.files import KnownRoot
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.shard.salvage import mend_store

from .choose import ambiguous, find_spaces
from .errors import IndexerError
from .index_folder import IndexFolder
from .recall_files import forget_false, refresh_recall
from .sketches import check_sketches, clean_sketches
from .work import OnWork, counted, silently

_CHECKED_AT_ONCE = 1000


class UnknownFolder(IndexerError):
    """A folder that is to be forgotten is none of those that were indexed."""


@dataclass(frozen=True)
class SpaceCheck:
    """What `verify` found in one space. damaged: ids whose record is missing, foreign or broken; they are queued again.
    orphans: records without a row, left by an interrupted run; they are never read. rebuilt: a FAISS file was."""

    name: str
    pictures: int
    damaged: list[int]
    orphans: int
    rebuilt: bool


@dataclass(frozen=True)
class Verified:
    """strays: folders of spaces and shards that the catalog does not know, left by an interrupted `prune` or when an
    older catalog was put back; they are never read. sketches: damaged ones, which the next run makes again. fault: what
    was wrong with the catalog, which was rebuilt from what could be read; None if it was sound."""

    spaces: list[SpaceCheck]
    strays: list[Path]
    sketches: int
    fault: str | None


@dataclass(frozen=True)
class ForgottenSpace:
    """pictures: how many existed in it."""

    space: KnownSpace
    pictures: int


@dataclass(frozen=True)
class ForgottenFolder:
    """files: how many were known there. pictures: those of them that no other folder held."""

    root: KnownRoot
    files: int
    pictures: int


@dataclass(frozen=True)
class Pruned:
    """What was forgotten. files: missing ones. pictures: those that no file held any more."""

    files: int
    pictures: int
    spaces: list[ForgottenSpace]
    folders: list[ForgottenFolder]


def verify_index(index: IndexFolder, memory: int, on_work: OnWork = silently) -> Verified:
    """Read the catalog and every record of every space; rebuild what is damaged from what is not, queue damaged records
    again.

    Raises IndexBusy, CatalogDamaged, DamagedKit.
    """
    with index.writing(), index.catalog() as catalog:
        on_work("Checking the catalog", 0, None)
        fault = catalog.mend()
        checked = [_check_space(index, catalog, space, memory, on_work) for space in catalog.spaces()]
        on_work("Checking the sketches", 0, None)
        return Verified(checked, _strays(index, catalog), check_sketches(index, catalog), fault)


def _check_space(index: IndexFolder, catalog: Catalog, space: KnownSpace, memory: int, on_work: OnWork) -> SpaceCheck:
    SpaceKit.load(index.space(space.fingerprint))
    pictures, orphans = 0, 0
    damaged: list[int] = []
    total = catalog.count_indexed(space.id)
    on_work(f"Checking {space.name}", 0, total)
    for shard, contents in _shards(index, catalog, space):
        mend_store(index.shard(space.fingerprint, shard))
        with index.store(space.fingerprint, shard, readonly=False) as store:
            for some in chunks(contents.hashes().items(), _CHECKED_AT_ONCE):
                damaged += store.check(dict(some))
                pictures += len(some)
                on_work(f"Checking {space.name}", pictures, total)
            orphans += len(np.setdiff1d(store.ids(), contents.ids))
    if damaged:
        catalog.unindex(space.id, damaged)
    forget_false(index, catalog, space)
    rebuilt = bool(refresh_recall(index, catalog, [space], memory, on_work=on_work))
    return SpaceCheck(space.name, pictures - len(damaged), damaged, orphans, rebuilt)


def _shards(index: IndexFolder, catalog: Catalog, space: KnownSpace) -> Iterator[tuple[int, SpaceChanges]]:
    """The shards that have pictures or a folder in this space, and what the catalog knows of each, one at a time."""
    for shard in catalog.shards():
        contents = catalog.indexed(space.id, shard.number)
        if len(contents.ids) or index.shard(space.fingerprint, shard.number).exists():
            yield shard.number, contents


def prune_index(
    index: IndexFolder,
    memory: int,
    spaces: Sequence[str] = (),
    folders: Sequence[Path] = (),
    *,
    on_step: Callable[[str], None] = lambda step: None,
    on_work: OnWork = silently,
) -> Pruned:
    """Forget the spaces (by name or fingerprint) and indexed folders that are named; where none is, missing files.

    Also the features and thumbnails of contents that no file holds then, and orphans. The catalog forgets first: what
    is left on the disk after an interruption is never read, and gone with the next prune. on_step: called after every
    commit with its name, "catalog committed", "store cleaned" or "folder removed".

    Raises UnknownSpace or UnknownFolder before anything is forgotten; IndexBusy.
    """
    with index.writing(), index.catalog() as catalog:
        unwanted = [_one_space(catalog, wanted) for wanted in dict.fromkeys(spaces)]
        unwanted_roots = [_one_root(catalog, wanted) for wanted in dict.fromkeys(folders)]
        files, pictures = 0, 0
        if not unwanted and not unwanted_roots:
            files = catalog.status().missing
            pictures = len(catalog.prune())
            on_step("catalog committed")
        forgotten_spaces = []
        for space in _unique(unwanted):
            forgotten_spaces.append(ForgottenSpace(space, catalog.forget_space(space.id)))
            on_step("catalog committed")
        forgotten_folders = []
        for root in _unique(unwanted_roots):
            count, gone = catalog.forget_root(root.id)
            forgotten_folders.append(ForgottenFolder(root, count, len(gone)))
            on_step("catalog committed")
        _clean(index, catalog, memory, on_step, on_work)
        return Pruned(files, pictures, forgotten_spaces, forgotten_folders)


def _clean(index: IndexFolder, catalog: Catalog, memory: int, on_step: Callable[[str], None], on_work: OnWork) -> None:
    """Take from the disk what the catalog does not know."""
    for stray in _strays(index, catalog):
        shutil.rmtree(stray)
        on_step("folder removed")
    spaces = catalog.spaces()
    for space in spaces:
        for shard, contents in counted(
            _shards(index, catalog, space), f"Cleaning {space.name} (shards)", None, on_work
        ):
            with index.store(space.fingerprint, shard, readonly=False) as store:
                store.delete(np.setdiff1d(store.ids(), contents.ids).tolist())
                store.compact()
            on_step("store cleaned")
    refresh_recall(index, catalog, spaces, memory, on_work=on_work)
    clean_sketches(index, catalog)
    _clean_thumbnails(index, catalog)


def _clean_thumbnails(index: IndexFolder, catalog: Catalog) -> None:
    """Small copies of pictures that were forgotten go too."""
    kept = {path.stem: path for path in index.thumbnails.glob("[0-9a-f][0-9a-f]/*.webp") if len(path.stem) == 64}
    known = catalog.files.holders([bytes.fromhex(name) for name in kept])
    for name, path in kept.items():
        if bytes.fromhex(name) not in known:
            path.unlink(missing_ok=True)


def _strays(index: IndexFolder, catalog: Catalog) -> list[Path]:
    """Folders named like a space or a shard that the catalog does not know; somebody's own copy of one stays."""
    spaces = {index.space(space.fingerprint) for space in catalog.spaces()}
    shards = {index.shard(space.name, shard.number) for space in spaces for shard in catalog.shards()}
    found = set(index.spaces.glob("[0-9a-f]" * 12)) - spaces
    for space in spaces:
        found |= set(index.shards(space.name).glob("[0-9]" * 4 + "*")) - shards
    return sorted(path for path in found if path.is_dir())


def _one_space(catalog: Catalog, wanted: str) -> KnownSpace:
    found = find_spaces(catalog.spaces(), wanted)
    if len(found) > 1:
        raise ambiguous(wanted, found)  # also where all bear one name: which of them goes must be said
    return found[0]


def _one_root(catalog: Catalog, wanted: Path) -> KnownRoot:
    """An indexed folder by its path, or as `status` writes it; it need not be there."""
    roots = catalog.roots()
    paths = {os.fsencode(wanted.absolute()), os.path.realpath(os.fsencode(wanted))}
    for root in roots:
        if root.path in paths or root.display == str(wanted):
            return root
    names = ", ".join(root.display for root in roots) or "none, it is empty"
    raise UnknownFolder(f"{wanted} is no folder of this index; choose one of: {names}.")


T = TypeVar("T", KnownSpace, KnownRoot)


def _unique(items: Iterable[T]) -> list[T]:
    """Each once: a space may have been named in two ways."""
    return list({item.id: item for item in items}.values())
