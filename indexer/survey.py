"""What the walk and the stats of the files tell, before any file is read."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from diffsim.db.catalog import Catalog
from diffsim.db.files import FileRow, KnownRoot

from .roots import Scope, join, within
from .walk import Entry, Skipped, Unreadable

Walker = Callable[[Scope], Iterator[Entry | Skipped | Unreadable]]
"""Gives what lies in a scope, in byte order."""


@dataclass(frozen=True, slots=True)
class ToRead:
    absolute: bytes
    root_id: int
    path: bytes
    entry: Entry
    row: FileRow | None


@dataclass
class Survey:
    """What the walk and the stats tell, before any file is read: what differs from the catalog, the rest as numbers."""

    to_read: list[ToRead] = field(default_factory=list)
    gone: dict[int, bool] = field(default_factory=dict)  # rows whose file is not on the disk -> whether it was missing
    back: list[int] = field(default_factory=list)  # rows that were missing and are as they were
    on_disk: int = 0
    unchanged: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    unseen: set[bytes] = field(default_factory=set)


def compare_with_disk(catalog: Catalog, scopes: list[Scope], walker: Walker) -> Survey:
    """Walk the scopes that are online beside their rows; both come in byte order, so neither is held as a whole."""
    survey = Survey()
    offline = [scope.path for scope in scopes if scope.offline]
    for scope in scopes:
        if not scope.offline:
            rows = catalog.files.below(scope.root.id, scope.folder)
            _compare_scope(survey, scope, walker(scope), rows, offline)
    return survey


def _compare_scope(
    survey: Survey,
    scope: Scope,
    walked: Iterator[Entry | Skipped | Unreadable],
    rows: Iterator[FileRow],
    offline: Sequence[bytes],
) -> None:
    root = scope.root
    row = next(rows, None)
    for item in walked:
        path = b"/".join((scope.folder, item.path)) if scope.folder and item.path else scope.folder or item.path
        if offline and any(within(join(root.path, path), folder) for folder in offline):
            continue  # files that appeared in the place of an offline root; the next scan absorbs it
        while row and row.path < path:
            _not_met(survey, root, row)
            row = next(rows, None)
        survey.on_disk += 1
        if isinstance(item, Entry):
            known = None
            if row and row.path == path:
                known, row = row, next(rows, None)
            _compare(survey, root, path, item, known)
        elif isinstance(item, Skipped):
            survey.excluded[item.reason] += 1
        else:
            survey.failed.append((join(root.path, path), item.reason))
            survey.unseen.add(join(root.path, path))
    while row:
        _not_met(survey, root, row)
        row = next(rows, None)


def _not_met(survey: Survey, root: KnownRoot, row: FileRow) -> None:
    # A folder that could not be looked at has come before all that is in it.
    if not (survey.unseen and is_below(join(root.path, row.path), survey.unseen)):
        survey.gone[row.id] = row.missing


def _compare(survey: Survey, root: KnownRoot, path: bytes, entry: Entry, row: FileRow | None) -> None:
    if not row or (row.size, row.mtime_ns, row.ctime_ns) != (entry.size, entry.mtime_ns, entry.ctime_ns):
        survey.to_read.append(ToRead(join(root.path, path), root.id, path, entry, row))
        return
    if row.failure:
        survey.failed.append((join(root.path, path), row.failure))
    else:
        survey.unchanged += 1
    if row.missing:
        survey.back.append(row.id)


def is_below(path: bytes, folders: set[bytes] | frozenset[bytes]) -> bool:
    """Whether a path is one of these or below one."""
    while folders and path:
        if path in folders:
            return True
        path = path.rpartition(b"/")[0]
    return False
