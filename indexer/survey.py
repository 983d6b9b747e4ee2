"""What the walk and the stats of the files tell, before any file is read."""

from collections import Counter
from dataclasses import dataclass, field

from diffsim.db.catalog import Catalog
from diffsim.db.files import FileRow

from .roots import Scope, Walker, join, within
from .walk import Entry, Skipped


@dataclass(frozen=True, slots=True)
class ToRead:
    absolute: bytes
    root_id: int
    path: bytes
    entry: Entry
    row: FileRow | None


@dataclass
class Survey:
    """What the walk and the stats tell, before any file is read."""

    to_read: list[ToRead] = field(default_factory=list)
    scanned: set[int] = field(default_factory=set)  # rows of the scopes that are online
    gone: dict[int, FileRow] = field(default_factory=dict)  # those of them that are not on the disk
    back: list[int] = field(default_factory=list)  # rows that were missing and are as they were
    on_disk: int = 0
    unchanged: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    unseen: set[bytes] = field(default_factory=set)


def look(catalog: Catalog, scopes: list[Scope], walker: Walker) -> Survey:
    survey = Survey()
    offline = [scope.path for scope in scopes if scope.offline]
    for scope in scopes:
        if scope.offline:
            continue
        rows = {row.path: row for row in catalog.files.below(scope.root.id, scope.folder)}
        survey.scanned.update(row.id for row in rows.values())
        unseen: set[bytes] = set()
        for item in walker(scope.path):
            path = join(scope.folder, item.path) if scope.folder else item.path
            absolute = join(scope.root.path, path)
            if any(within(absolute, folder) for folder in offline):
                continue  # files that appeared in the place of an offline root; the next scan absorbs it
            survey.on_disk += 1
            if isinstance(item, Entry):
                _compare(survey, ToRead(absolute, scope.root.id, path, item, rows.pop(path, None)))
            elif isinstance(item, Skipped):
                survey.excluded[item.reason] += 1
            else:
                survey.failed.append((absolute, item.reason))
                unseen.add(absolute)
        for row in rows.values():
            if not is_below(join(scope.root.path, row.path), unseen):
                survey.gone[row.id] = row
        survey.unseen |= unseen
    return survey


def is_below(path: bytes, folders: set[bytes] | frozenset[bytes]) -> bool:
    """Whether a path is one of these or below one."""
    while folders and path:
        if path in folders:
            return True
        path = path.rpartition(b"/")[0]
    return False


def _compare(survey: Survey, item: ToRead) -> None:
    row, entry = item.row, item.entry
    if not row or (row.size, row.mtime_ns, row.ctime_ns) != (entry.size, entry.mtime_ns, entry.ctime_ns):
        survey.to_read.append(item)
        return
    if row.failure:
        survey.failed.append((item.absolute, row.failure))
    else:
        survey.unchanged += 1
    if row.missing:
        survey.back.append(row.id)
