"""The account of a run: every file that it met, and every file that the catalog knows, each counted once."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffsim.db.catalog import Catalog
from diffsim.db.files import FileCounts

from .classes import FileClass
from .roots import join, outermost, within
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
    counts, offline = FileCounts(), 0
    failures = [(path, reason) for path, reason in report.failed if path in report.unseen]
    for scope in report.scopes:
        root = scope.root
        found = catalog.files.counts(root.id, scope.folder, space_ids)
        unseen = (
            [scope.path] if scope.offline else outermost(path for path in report.unseen if within(path, scope.path))
        )
        for path in unseen:
            place = b"" if path == root.path else os.path.relpath(path, root.path)
            hidden = replace(catalog.files.counts(root.id, place, space_ids, or_file=True), missing=0)
            found -= hidden
            offline += hidden.rows
        counts += found
        if found.failed:
            below = catalog.files.failures(root.id, scope.folder)
            absolute = ((join(root.path, path), reason) for path, reason in below)
            failures += [failure for failure in absolute if not is_below(failure[0], report.unseen)]
    # What was read is counted by its class, save those that turned out to be no pictures; the rest is as it was.
    kinds = Counter(report.classes.values())
    kinds.subtract(report.classes[path] for path, _ in failures if path in report.classes)
    kinds[FileClass.UNCHANGED] = counts.indexed + counts.waiting - kinds.total()
    result = Account(
        on_disk=report.on_disk,
        new=kinds[FileClass.NEW],
        changed=kinds[FileClass.CHANGED],
        moved=kinds[FileClass.MOVED],
        copied=kinds[FileClass.COPIED],
        unchanged=kinds[FileClass.UNCHANGED],
        failed=len(failures),
        excluded=report.excluded.total(),
        known=counts.indexed + counts.missing + offline,
        indexed=counts.indexed,
        missing=counts.missing,
        offline=offline,
        waiting=counts.waiting,
        failures=sorted(failures),
        excluded_by_reason=dict(report.excluded),
    )
    if result.on_disk != kinds.total() + result.failed + result.excluded:
        raise AccountMismatch(f"the files on disk do not add up: {result}")
    if min(kinds.values()) < 0:
        raise AccountMismatch(f"more files were read than are known: {result}")
    return result
