"""Bring the catalog in line with the folders: look at every file, read those whose stat proves nothing, commit.

Ids are given here, in byte order of the paths and before anything is extracted. Commits keep that order, so a run that
was killed leaves a prefix and the next one goes on to the same ids.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffsim.db.catalog import Catalog
from diffsim.db.files import Finding, display_text

from .classes import FileClass, GoneFiles, KnownContents
from .errors import IndexerError
from .exclusions import Exclusions, for_root, together
from .hashing import Digest, Unread, read_digest, trusted_times, without_reading
from .roots import Scope, resolve_roots, root_of, unavailable_reason
from .survey import Survey, ToRead, compare_with_disk
from .walk import Entry, Skipped, Unreadable, walk
from .work import OnWork, counted, silently


class FolderWentAway(IndexerError):
    """A folder went offline while it was scanned."""


@dataclass(frozen=True)
class ScanReport:
    """What a scan saw. All paths are absolute. Decoding may add to it: `account` draws the final sum."""

    scopes: list[Scope]
    on_disk: int  # everything that the walk met
    classes: dict[bytes, FileClass]  # readable files; those left out are unchanged
    unchanged: int
    failed: list[tuple[bytes, str]]  # files and folders that could not be read, with the reason
    excluded: Counter[str]  # by reason
    missing: int  # files that went missing since the last scan
    unmatched: list[str]  # patterns of this run that left nothing out, as they were given
    unseen: frozenset[bytes]  # files and folders that could not be looked at: nothing is known about them now

    @property
    def offline(self) -> list[tuple[bytes, str]]:
        return [(scope.path, scope.offline) for scope in self.scopes if scope.offline]

    def count(self, kind: FileClass) -> int:
        if kind is FileClass.UNCHANGED:
            return self.unchanged
        return sum(found is kind for found in self.classes.values())


def scan(
    catalog: Catalog,
    folders: Sequence[Path],
    *,
    exclude: Sequence[str] = (),
    include_hidden: bool | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    on_work: OnWork = silently,
    commit_every_s: float = 2.0,
    rehearsal: bool = False,
) -> ScanReport:
    """Scan folders (recursively) into the catalog.

    exclude, include_hidden: see IndexOptions. `on_step` is called after every commit: "root committed", "files
    committed", "missing committed".
    rehearsal: the catalog is a copy that nobody keeps, so that files of which the size alone says that they are new
    need not be read.

    Raises:
        FolderNotFound: a folder does not exist (or is none, or is closed to us) and was never known; nothing changed.
        FolderWentAway: a folder went offline under the scan; what was committed is right, and nothing became missing.
    """
    scopes = resolve_roots(catalog, folders, on_step)
    scopes, given = _remember(catalog, scopes, folders, exclude, include_hidden)
    exclusions = {scope.root.id: Exclusions(scope.root.left_out) for scope in scopes}

    def walker(scope: Scope) -> Iterator[Entry | Skipped | Unreadable]:
        root = scope.root
        hidden = root.include_hidden
        found = walk(scope.path, exclusions=exclusions[root.id], include_hidden=hidden, within=scope.folder)
        return counted(found, f"Looking through {root.display}", None, on_work)

    survey = compare_with_disk(catalog, scopes, walker)
    contents = KnownContents(catalog, GoneFiles(catalog, scopes, survey.gone))
    classes: dict[bytes, FileClass] = {}
    batch: list[tuple[ToRead, Digest | Unread]] = []
    committed = time.monotonic()
    alike = _perhaps_alike(catalog, survey.to_read) if rehearsal else None
    reading = counted(survey.to_read, "Reading files", len(survey.to_read), on_work) if survey.to_read else []
    for number, item in enumerate(reading, start=1):
        read = read_digest if alike is None or item.entry.size in alike else without_reading
        batch.append((item, read(item.absolute)))
        if number == len(survey.to_read) or time.monotonic() - committed >= commit_every_s:
            _commit(catalog, batch, survey, contents, classes)
            on_step("files committed")
            batch.clear()
            committed = time.monotonic()
    missing = [row_id for row_id, was_missing in survey.gone.items() if not was_missing]
    if missing or survey.back:
        _check_still_there(catalog, scopes)
        catalog.files.set_missing(missing, survey.back)
        on_step("missing committed")
    return ScanReport(
        scopes=scopes,
        on_disk=survey.on_disk,
        classes=classes,
        unchanged=survey.unchanged,
        failed=survey.failed,
        excluded=survey.excluded,
        missing=len(missing),
        unseen=frozenset(survey.unseen),
        unmatched=[
            pattern
            for pattern in exclude
            if not pattern.startswith("!")
            and not any(inner in exclusions[root].matched for root, inner in given.get(pattern, []))
        ],
    )


def _remember(
    catalog: Catalog,
    scopes: list[Scope],
    folders: Sequence[Path],
    exclude: Sequence[str],
    include_hidden: bool | None,
) -> tuple[list[Scope], dict[str, list[tuple[int, str]]]]:
    """The scopes with what their roots leave out from now on, and each pattern that was given as (root, its own)."""
    given: dict[str, list[tuple[int, str]]] = {}
    roots = {root.id: root for root in catalog.roots()}
    for scope in scopes:
        if scope.offline or (not exclude and include_hidden is None):
            continue
        called = [os.fsdecode(scope.path)]
        called += [str(folder.absolute()) for folder in folders if os.path.realpath(os.fsencode(folder)) == scope.path]
        own = [for_root(pattern, scope.folder, called) for pattern in exclude]
        for pattern, inner in zip(exclude, own, strict=True):
            given.setdefault(pattern, []).append((scope.root.id, inner))
        before = roots[scope.root.id]
        hidden = before.include_hidden if include_hidden is None else include_hidden
        root = replace(before, left_out=together(before.left_out, own), include_hidden=hidden)
        if root != before:
            catalog.files.set_left_out(root.id, root.left_out, root.include_hidden)
            roots[root.id] = root
    return [replace(scope, root=roots[scope.root.id]) for scope in scopes], given


def _perhaps_alike(catalog: Catalog, to_read: Sequence[ToRead]) -> set[int]:
    """The sizes of files that may have the bytes of another, known or met now."""
    sizes = Counter(item.entry.size for item in to_read)
    return {size for size, files in sizes.items() if files > 1} | catalog.files.known_sizes(sizes)


@dataclass(frozen=True)
class Rescanned:
    """What a file holds now; both None with a `failure` when it cannot be read."""

    content_id: int | None
    sha256: bytes | None
    failure: str | None


def rescan_file(catalog: Catalog, report: ScanReport, path: bytes) -> Rescanned:
    """Read one known file (absolute path) again, because its bytes changed after the scan; commits what is found."""
    root = root_of(catalog.roots(), path)
    row = catalog.files.at(root.id, os.path.relpath(path, root.path)) if root else None
    if row is None:
        raise ValueError(f"'{display_text(path)}' is not in the catalog")
    found = read_digest(path)
    if isinstance(found, Unread):
        catalog.files.write([Finding(row.id, row.root_id, row.path, row.size, None, None, None, found.reason)], [])
        return Rescanned(None, None, found.reason)
    catalog.files.write([_finding(row.id, row.root_id, row.path, found)], [])
    content_id = catalog.content_by_sha256(found.sha256)
    if content_id != row.content_id:
        report.classes.setdefault(path, FileClass.CHANGED)
    return Rescanned(content_id, found.sha256, None)


def _commit(
    catalog: Catalog,
    batch: list[tuple[ToRead, Digest | Unread]],
    survey: Survey,
    contents: KnownContents,
    classes: dict[bytes, FileClass],
) -> None:
    contents.look_up(found.sha256 for _, found in batch if isinstance(found, Digest))
    forget: list[int] = []
    findings = []
    for item, found in batch:
        row_id = item.row.id if item.row else None
        if isinstance(found, Unread):
            survey.failed.append((item.absolute, found.reason))
            mtime_ns, ctime_ns = None, None
            if found.lasting:
                mtime_ns, ctime_ns = trusted_times(item.entry.mtime_ns, item.entry.ctime_ns, time.time_ns())
            findings.append(
                Finding(row_id, item.root_id, item.path, item.entry.size, mtime_ns, ctime_ns, None, found.reason)
            )
            continue
        findings.append(_finding(row_id, item.root_id, item.path, found))
        if item.row and item.row.content_id is not None:
            kind = FileClass.CHANGED
            if contents.id_of(found.sha256) == item.row.content_id:
                kind = FileClass.UNCHANGED
            else:
                contents.leaves(item.row.id)
        else:
            kind, old = contents.class_of_new_path(found.sha256)
            if old is not None:
                contents.leaves(old)
                forget.append(old)
        contents.add(found.sha256)
        if kind is FileClass.UNCHANGED:
            survey.unchanged += 1
        else:
            classes[item.absolute] = kind
    catalog.files.write(findings, forget)
    for old in forget:
        survey.gone.pop(old, None)


def _finding(row_id: int | None, root_id: int, path: bytes, found: Digest) -> Finding:
    return Finding(row_id, root_id, path, found.size, found.mtime_ns, found.ctime_ns, found.sha256, None)


def _check_still_there(catalog: Catalog, scopes: list[Scope]) -> None:
    for scope in scopes:
        had_files = catalog.files.has_files(scope.root.id, scope.folder)
        reason = unavailable_reason(scope.path, had_files)
        if reason and not scope.offline:
            raise FolderWentAway(
                f"The folder {display_text(scope.path)} went away while it was scanned ({reason}); run the same command"
                " again when it is back."
            )
