"""The account of a run: every file that it met, and every file that the catalog knows, each counted once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from diffsim.db.catalog import Catalog

from .classes import FileClass
from .roots import join
from .scan import ScanReport
from .survey import is_below


class AccountMismatch(Exception):
    """The sums do not hold: a bug, never the user's doing."""


@dataclass(frozen=True)
class Account:
    """on_disk = new + changed + moved + copied + unchanged + failed + excluded; known = indexed + missing + offline.

    All are numbers of files below the folders of the run (a folder that is unreadable or excluded counts as one).
    """

    on_disk: int
    new: int
    changed: int
    moved: int
    copied: int
    unchanged: int
    failed: int
    excluded: int
    known: int
    indexed: int  # on disk, and features in every space of the run
    missing: int
    offline: int  # in a folder that could not be looked at
    waiting: int  # on disk and readable, but not (yet) indexed: the run was interrupted, or only scanned
    failures: list[tuple[bytes, str]]  # absolute path and reason
    excluded_by_reason: dict[str, int]


def account(catalog: Catalog, report: ScanReport, space_ids: Sequence[int]) -> Account:
    """Draw the account after a run that scanned `report` and extracted into these spaces.

    Raises:
        AccountMismatch: what the walk met is not what the catalog holds.
    """
    kinds: Counter[FileClass] = Counter()
    where: Counter[str] = Counter()
    failures = [(path, reason) for path, reason in report.failed if path in report.unseen]
    rows = 0
    for scope in report.scopes:
        rows += sum(catalog.files.count(scope.root.id, scope.folder))
        for state in catalog.files.states(scope.root.id, scope.folder, space_ids):
            path = join(scope.root.path, state.path)
            if state.missing:
                where["missing"] += 1
            elif scope.offline or is_below(path, report.unseen):
                where["offline"] += 1
            elif state.failure:
                where["failed"] += 1
                failures.append((path, state.failure))
            else:
                where["indexed" if state.indexed else "waiting"] += 1
                kinds[report.classes.get(path, FileClass.UNCHANGED)] += 1
    result = Account(
        on_disk=report.on_disk,
        new=kinds[FileClass.NEW],
        changed=kinds[FileClass.CHANGED],
        moved=kinds[FileClass.MOVED],
        copied=kinds[FileClass.COPIED],
        unchanged=kinds[FileClass.UNCHANGED],
        failed=len(failures),
        excluded=report.excluded.total(),
        known=rows - where["failed"] - where["waiting"],
        indexed=where["indexed"],
        missing=where["missing"],
        offline=where["offline"],
        waiting=where["waiting"],
        failures=sorted(failures),
        excluded_by_reason=dict(report.excluded),
    )
    if result.on_disk != kinds.total() + result.failed + result.excluded:
        raise AccountMismatch(f"the files on disk do not add up: {result}")
    if result.known != result.indexed + result.missing + result.offline:
        raise AccountMismatch(f"the known files do not add up: {result}")
    return result
