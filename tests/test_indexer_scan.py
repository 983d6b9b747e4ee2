import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffsim.db import files
from diffsim.db.catalog import Catalog
from diffsim.db.files import Finding
from diffsim.db.filters import Filters
from diffsim.indexer import hashing
from diffsim.indexer.account import Account, AccountMismatch, account
from diffsim.indexer.classes import FileClass
from diffsim.indexer.hashing import Digest, Unread, read_digest
from diffsim.indexer.roots import FolderNotFound, Scope, offline_roots
from diffsim.indexer.scan import ScanReport, rescan_file, scan
from diffsim.indexer.survey import compare_with_disk
from diffsim.indexer.walk import Entry, Skipped, Unreadable


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog.sqlite", create=True) as catalog:
        yield catalog


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files were old: their stat is trusted."""
    monkeypatch.setattr(hashing, "RACY_NS", 0)


def put(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def held(catalog: Catalog) -> dict[bytes, int]:
    """The content of every file that is there, by absolute path."""
    found = {}
    for root in catalog.roots():
        for row in catalog.files.below(root.id, b""):
            if not row.missing and not row.failure and row.content_id:
                found[os.path.join(root.path, row.path)] = row.content_id
    return found


def names(catalog: Catalog, folder: Path) -> dict[str, int]:
    return {os.fsdecode(os.path.relpath(path, os.fsencode(folder))): row for path, row in held(catalog).items()}


def classes(report: ScanReport, folder: Path) -> dict[str, str]:
    return {os.fsdecode(os.path.relpath(path, os.fsencode(folder))): str(kind) for path, kind in report.classes.items()}


def on_disk(result: Account) -> dict[str, int]:
    kinds = ("new", "changed", "moved", "copied", "unchanged", "failed", "excluded")
    return {kind: getattr(result, kind) for kind in kinds if getattr(result, kind)}


def known(result: Account) -> dict[str, int]:
    return {kind: getattr(result, kind) for kind in ("indexed", "missing", "offline") if getattr(result, kind)}


def index_all(catalog: Catalog) -> int:
    """As if everything pending had been extracted into one space."""
    space = catalog.add_space("f", "style", "mini", "{}")
    catalog.mark_indexed([space], [(item.content_id, "JPEG", 4, 4) for item in catalog.pending([space])])
    return space


def test_ids_follow_the_bytes_of_the_paths(catalog: Catalog, pictures: Path) -> None:
    order = [b"A.jpg", b"a b/x.jpg", b"a-b.jpg", b"a.jpg", b"a/a.jpg", b"b.jpg", b"caf\xe9.jpg", "ü.jpg".encode()]
    for path in reversed(order):
        file = Path(os.fsdecode(os.path.join(os.fsencode(pictures), path)))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(path)
    scan(catalog, [pictures])
    assert held(catalog) == {os.path.join(os.fsencode(pictures), path): n for n, path in enumerate(order, start=1)}


def test_roots_come_in_byte_order_too(catalog: Catalog, tmp_path: Path) -> None:
    for name in ("b", "a b", "a"):
        put(tmp_path / name, {"1.jpg": name})
    report = scan(catalog, [tmp_path / "b", tmp_path / "a", tmp_path / "a b", tmp_path / "a"])
    assert names(catalog, tmp_path) == {"a b/1.jpg": 1, "a/1.jpg": 2, "b/1.jpg": 3}
    assert report.count(FileClass.NEW) == 3


def test_what_became_of_every_file(catalog: Catalog, pictures: Path) -> None:
    put(
        pictures,
        {"same.jpg": "1", "edit.jpg": "2", "move.jpg": "3", "copy.jpg": "4", "touch.jpg": "5", "gone.jpg": "6"},
    )
    scan(catalog, [pictures])
    space = index_all(catalog)
    before = names(catalog, pictures)
    put(pictures, {"edit.jpg": "2 edited", "fresh.jpg": "7", "fresh again.jpg": "7", "notes.txt": "no picture"})
    (pictures / "sub").mkdir()
    (pictures / "move.jpg").rename(pictures / "sub/moved.jpg")
    shutil.copy(pictures / "copy.jpg", pictures / "sub/copied.jpg")
    os.utime(pictures / "touch.jpg", (1, 1))
    (pictures / "gone.jpg").unlink()
    report = scan(catalog, [pictures])
    assert classes(report, pictures) == {
        "edit.jpg": "changed",
        "fresh again.jpg": "new",
        "fresh.jpg": "copied",
        "sub/copied.jpg": "copied",
        "sub/moved.jpg": "moved",
    }
    after = names(catalog, pictures)
    assert after["sub/moved.jpg"] == before["move.jpg"]
    assert after["sub/copied.jpg"] == after["copy.jpg"] == before["copy.jpg"]
    assert after["touch.jpg"] == before["touch.jpg"]
    assert after["edit.jpg"] == 7
    assert "move.jpg" not in after
    assert report.missing == 1
    result = account(catalog, report, [space])
    assert on_disk(result) == {"new": 1, "changed": 1, "moved": 1, "copied": 2, "unchanged": 3, "excluded": 1}
    assert (result.on_disk, result.known, result.waiting) == (9, 6, 3)
    assert known(result) == {"indexed": 5, "missing": 1}
    index_all(catalog)
    assert known(account(catalog, report, [space])) == {"indexed": 8, "missing": 1}


def test_a_picture_written_over_another(catalog: Catalog, pictures: Path) -> None:
    put(pictures, {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3"})
    scan(catalog, [pictures])
    (pictures / "c.jpg").rename(pictures / "d.jpg")
    (pictures / "b.jpg").rename(pictures / "c.jpg")
    (pictures / "a.jpg").rename(pictures / "b.jpg")
    report = scan(catalog, [pictures])
    assert classes(report, pictures) == {"b.jpg": "changed", "c.jpg": "changed", "d.jpg": "moved"}
    assert names(catalog, pictures) == {"b.jpg": 1, "c.jpg": 2, "d.jpg": 3}
    assert on_disk(account(catalog, report, [])) == {"changed": 2, "moved": 1}


def test_an_old_stat_is_trusted_and_a_young_one_is_not(
    catalog: Catalog, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(pictures, {"a.jpg": "1", "b.jpg": "2"})
    (root,) = scan(catalog, [pictures]).scopes

    def swap() -> None:
        """Only a scan that reads the files puts this right."""
        rows = list(catalog.files.below(root.root.id, b""))
        wrong = {row.path: other.content_id for row, other in zip(rows, reversed(rows), strict=True)}
        with catalog._database.writing() as connection:
            for path, content_id in wrong.items():
                connection.exec_driver_sql("UPDATE files SET content_id = ? WHERE path = ?", (content_id, path))

    swap()
    scan(catalog, [pictures])
    assert names(catalog, pictures) == {"a.jpg": 1, "b.jpg": 2}
    monkeypatch.setattr(hashing, "RACY_NS", 0)
    scan(catalog, [pictures])
    swap()
    report = scan(catalog, [pictures])
    assert names(catalog, pictures) == {"a.jpg": 2, "b.jpg": 1}
    assert report.count(FileClass.UNCHANGED) == 2


@pytest.mark.usefixtures("trusting")
def test_a_missing_file_comes_back(catalog: Catalog, pictures: Path, tmp_path: Path) -> None:
    put(pictures, {"a/1.jpg": "1", "b.jpg": "2"})
    scan(catalog, [pictures])
    space = index_all(catalog)
    (pictures / "a").rename(tmp_path / "away")
    assert scan(catalog, [pictures]).missing == 1
    assert scan(catalog, [pictures]).missing == 0
    assert catalog.indexed(space).visible.tolist() == [False, True]
    (tmp_path / "away").rename(pictures / "a")  # its files keep their stat: none is read
    report = scan(catalog, [pictures])
    assert catalog.indexed(space).visible.tolist() == [True, True]
    assert on_disk(account(catalog, report, [space])) == {"unchanged": 2}


@pytest.mark.parametrize("how", ["absent", "empty", "a file"])
def test_an_offline_root_keeps_everything(catalog: Catalog, pictures: Path, tmp_path: Path, how: str) -> None:
    put(pictures, {"a.jpg": "1", "sub/b.jpg": "2"})
    put(tmp_path / "other", {"c.jpg": "3"})
    scan(catalog, [pictures, tmp_path / "other"])
    space = index_all(catalog)
    before = held(catalog)
    pictures.rename(tmp_path / "unmounted")
    if how == "empty":
        pictures.mkdir()
    if how == "a file":
        pictures.write_text("")
    shutil.copy(tmp_path / "unmounted/a.jpg", tmp_path / "other/copy.jpg")
    report = scan(catalog, [pictures, tmp_path / "other"])
    assert [path for path, _ in report.offline] == [os.fsencode(pictures)]
    copied = before[os.fsencode(pictures / "a.jpg")]
    assert held(catalog) == before | {os.fsencode(tmp_path / "other/copy.jpg"): copied}
    assert classes(report, tmp_path) == {"other/copy.jpg": "copied"}
    assert known(account(catalog, report, [space])) == {"indexed": 2, "offline": 2}
    root = next(root for root in catalog.roots() if root.path == os.fsencode(pictures))
    assert list(offline_roots(catalog)) == [root.id]


def test_a_folder_of_other_things_is_not_offline(catalog: Catalog, pictures: Path) -> None:
    put(pictures, {"a.jpg": "1", "notes.txt": ""})
    scan(catalog, [pictures])
    (pictures / "a.jpg").unlink()
    report = scan(catalog, [pictures])
    assert (report.missing, report.offline) == (1, [])


def test_folders_never_known(catalog: Catalog, pictures: Path, tmp_path: Path) -> None:
    put(pictures, {"a.jpg": "1"})
    with pytest.raises(FolderNotFound, match=r"typo cannot be indexed: it does not exist; check the name"):
        scan(catalog, [pictures, tmp_path / "typo"])
    assert catalog.roots() == []
    with pytest.raises(FolderNotFound, match="it is not a folder; name the folder"):
        scan(catalog, [pictures / "a.jpg"])
    scan(catalog, [pictures])
    with pytest.raises(FolderNotFound, match="does not exist"):
        scan(catalog, [pictures / "typo"])


def test_a_folder_inside_a_root_is_a_part_of_it(catalog: Catalog, pictures: Path) -> None:
    put(pictures, {"a.jpg": "1", "sub/b.jpg": "2", "sub/d.jpg": "4", "sub2/c.jpg": "3"})
    scan(catalog, [pictures])
    put(pictures, {"new.jpg": "5", "sub/new.jpg": "6"})
    (pictures / "a.jpg").unlink()
    (pictures / "sub/b.jpg").unlink()
    report = scan(catalog, [pictures / "sub"])
    assert [root.path for root in catalog.roots()] == [os.fsencode(pictures)]
    assert sorted(names(catalog, pictures)) == ["a.jpg", "sub/d.jpg", "sub/new.jpg", "sub2/c.jpg"]
    result = account(catalog, report, [])
    assert (result.on_disk, result.missing) == (2, 1)
    shutil.rmtree(pictures / "sub")
    assert [path for path, _ in scan(catalog, [pictures / "sub"]).offline] == [os.fsencode(pictures / "sub")]
    assert scan(catalog, [pictures]).missing == 3


def test_a_folder_around_roots_absorbs_them(catalog: Catalog, tmp_path: Path) -> None:
    put(tmp_path / "p", {"x/a.jpg": "1", "y/z/b.jpg": "2"})
    scan(catalog, [tmp_path / "p/x", tmp_path / "p/y"])
    space = index_all(catalog)
    before = held(catalog)
    put(tmp_path / "p", {"c.jpg": "3"})
    report = scan(catalog, [tmp_path / "p"])
    assert [root.path for root in catalog.roots()] == [os.fsencode(tmp_path / "p")]
    assert {path: row for path, row in held(catalog).items() if row != 3} == before
    assert on_disk(account(catalog, report, [space])) == {"new": 1, "unchanged": 2}
    assert [file.display for file in catalog.files_of([2])[2]] == [str(tmp_path / "p/y/z/b.jpg")]
    assert [item.content_id for item in catalog.pending([space])] == [3]


def test_an_offline_root_is_not_absorbed(catalog: Catalog, tmp_path: Path) -> None:
    disk, away = tmp_path / "mnt/disk", tmp_path / "away"
    put(disk, {"a.jpg": "1"})
    scan(catalog, [disk])
    space = index_all(catalog)
    put(tmp_path / "mnt", {"b.jpg": "2"})
    disk.rename(away)
    disk.mkdir()
    report = scan(catalog, [tmp_path / "mnt"])
    assert report.offline == [(os.fsencode(disk), "is empty, though pictures were known there")]
    assert held(catalog) == {os.fsencode(disk / "a.jpg"): 1, os.fsencode(tmp_path / "mnt/b.jpg"): 2}
    assert known(account(catalog, report, [space])) == {"offline": 1}
    disk.rmdir()
    away.rename(disk)
    report = scan(catalog, [tmp_path / "mnt"])
    assert [root.path for root in catalog.roots()] == [os.fsencode(tmp_path / "mnt")]
    assert on_disk(account(catalog, report, [space])) == {"unchanged": 2}


def test_a_link_to_a_root_is_that_root(catalog: Catalog, pictures: Path, tmp_path: Path) -> None:
    put(pictures, {"a.jpg": "1"})
    (tmp_path / "link").symlink_to(pictures)
    scan(catalog, [tmp_path / "link", pictures])
    assert [root.path for root in catalog.roots()] == [os.fsencode(pictures)]


def test_a_file_that_moved_to_another_root(catalog: Catalog, tmp_path: Path) -> None:
    put(tmp_path / "old", {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3"})
    scan(catalog, [tmp_path / "old"])
    put(tmp_path / "new", {"b.jpg": "2"})
    (tmp_path / "old/a.jpg").rename(tmp_path / "new/a.jpg")
    report = scan(catalog, [tmp_path / "new"])
    assert classes(report, tmp_path) == {"new/a.jpg": "moved", "new/b.jpg": "copied"}
    assert sorted(names(catalog, tmp_path)) == ["new/a.jpg", "new/b.jpg", "old/b.jpg", "old/c.jpg"]


def test_a_content_that_is_no_picture_counts_as_failed(catalog: Catalog, pictures: Path) -> None:
    put(pictures, {"a.jpg": "1", "b.jpg": "1", "c.jpg": "2"})
    report = scan(catalog, [pictures])
    catalog.mark_failed(1, "cannot be decoded")
    result = account(catalog, report, [index_all(catalog)])
    assert on_disk(result) == {"new": 1, "failed": 2}
    assert [reason for _, reason in result.failures] == ["cannot be decoded"] * 2
    assert known(result) == {"indexed": 1}


def test_the_account_is_checked(catalog: Catalog, pictures: Path) -> None:
    put(pictures, {"a.jpg": "1"})
    report = scan(catalog, [pictures])
    with catalog._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM files")
    with pytest.raises(AccountMismatch):
        account(catalog, report, [])


def test_a_file_that_changed_after_the_scan(catalog: Catalog, pictures: Path) -> None:
    put(pictures, {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3", "d.jpg": "4"})
    scan(catalog, [pictures])
    report = scan(catalog, [pictures])
    put(pictures, {"a.jpg": "1 edited", "b.jpg": "4"})
    (pictures / "c.jpg").unlink()
    changed, copied, gone, same = (
        rescan_file(catalog, report, os.fsencode(pictures / name)) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    )
    assert (changed.content_id, changed.sha256) == (5, hashlib.sha256(b"1 edited").digest())
    assert (copied.content_id, same.content_id, gone.content_id) == (4, 4, None)
    assert gone.failure == "no longer there"
    assert names(catalog, pictures) == {"a.jpg": 5, "b.jpg": 4, "d.jpg": 4}
    assert on_disk(account(catalog, report, [])) == {"changed": 2, "unchanged": 1, "failed": 1}
    assert scan(catalog, [pictures]).missing == 1


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    for name, reason in (
        ("pipe.jpg", "not a regular file"),
        ("link.jpg", "symbolic link"),
        ("none.jpg", "no longer there"),
    ):
        found = read_digest(os.fsencode(tmp_path / name))
        assert isinstance(found, Unread)
        assert found.reason.startswith(reason)
        assert not found.lasting


def test_a_file_that_keeps_changing(tmp_path: Path) -> None:
    path = tmp_path / "live.jpg"
    path.write_bytes(bytes(32 << 20))
    stop = threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(8))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_digest(os.fsencode(path)) == Unread("keeps changing while it is read", lasting=False)
    finally:
        stop.set()
        writer.join()
    assert isinstance(read_digest(os.fsencode(path)), Digest)


CHILD = """
import os, sys
from pathlib import Path
import sqlalchemy.dialects.sqlite

from diffsim.indexer import hashing
from diffsim.db import files
from diffsim.db.catalog import Catalog
from diffsim.db.files import Finding
from diffsim.db.filters import Filters
from diffsim.indexer.account import account
from diffsim.indexer.scan import scan
if os.geteuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
hashing.RACY_NS = 0
catalog = Catalog.open(folder / "catalog.sqlite", create=True)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may write to, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def test_without_the_right_to_read(open_folder: Path) -> None:
    code = """
pictures = folder / "pictures"
(pictures / "closed").mkdir(parents=True)
for name in ("a.jpg", "b.jpg", "c.jpg", "closed/d.jpg"):
    (pictures / name).write_text(name)
def step(text):
    report = scan(catalog, [pictures])
    result = account(catalog, report, [])
    kinds = ("new", "changed", "moved", "copied", "unchanged", "failed", "missing", "offline")
    print(text, [f"{kind} {getattr(result, kind)}" for kind in kinds if getattr(result, kind)])
    print([(Path(os.fsdecode(p)).name, reason) for p, reason in report.failed + report.offline])
(pictures / "b.jpg").chmod(0)
step("new")
(pictures / "a.jpg").chmod(0)
(pictures / "closed").chmod(0)
step("closed")
step("remembered")
(pictures / "a.jpg").chmod(0o600)
(pictures / "b.jpg").chmod(0o600)
(pictures / "closed").chmod(0o700)
step("open")
pictures.chmod(0)
step("root closed")
pictures.chmod(0o777)
"""
    command = [sys.executable, "-c", CHILD + code, str(open_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    denied = "permission denied"
    assert done.stdout.splitlines() == [
        "new ['new 3', 'failed 1']",
        str([("b.jpg", denied)]),
        "closed ['unchanged 1', 'failed 3', 'offline 1']",
        str([("b.jpg", denied), ("closed", denied), ("a.jpg", denied)]),
        "remembered ['unchanged 1', 'failed 3', 'offline 1']",
        str([("a.jpg", denied), ("b.jpg", denied), ("closed", denied)]),
        "open ['new 1', 'unchanged 3']",
        "[]",
        "root closed ['offline 4']",
        str([("pictures", denied)]),
    ]


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_the_walk_is_compared_with_the_rows_in_byte_order(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """Folders that could not be looked at come before and between the files beside them."""
    monkeypatch.setattr(files, "_ROWS_AT_ONCE", rows_at_once)
    root = catalog.files.add_root(b"/p")
    names = [b"a-b.jpg", b"a.jpg", b"a/x.jpg", b"a/y.jpg", b"a0.jpg", b"closed.jpg", b"d/z.jpg", b"link.jpg", b"z.jpg"]
    found = [Finding(None, root.id, name, 1, 1, 1, bytes([n]) * 32, None) for n, name in enumerate(names)]
    catalog.files.write(found, [])
    row = {row.path: row.id for row in catalog.files.below(root.id, b"")}
    assert list(row) == names
    catalog.files.set_missing([row[b"a0.jpg"], row[b"z.jpg"]], [])
    met = [
        Entry(b"!new.jpg", 1, 1, 1),
        Unreadable(b"a", "permission denied"),
        Entry(b"a-b.jpg", 1, 1, 1),
        Entry(b"a/y.jpg", 1, 1, 1),  # the folder could be read in part
        Entry(b"a0.jpg", 1, 1, 1),
        Unreadable(b"closed.jpg", "permission denied"),
        Skipped(b"d", "excluded directory"),
        Skipped(b"link.jpg", "symbolic link"),
        Entry(b"y.jpg", 1, 1, 1),
    ]
    survey = compare_with_disk(catalog, [Scope(root, b"", None)], lambda scope: iter(met))
    assert [item.path for item in survey.to_read] == [b"!new.jpg", b"y.jpg"]
    gone = {b"a.jpg": False, b"d/z.jpg": False, b"link.jpg": False, b"z.jpg": True}
    assert survey.gone == {row[name]: was_missing for name, was_missing in gone.items()}
    assert survey.back == [row[b"a0.jpg"]] and survey.unseen == {b"/p/a", b"/p/closed.jpg"}
    assert (survey.on_disk, survey.unchanged, survey.excluded.total(), len(survey.failed)) == (9, 3, 2, 2)


KILLED = """
import os, signal, sys
from pathlib import Path
from diffsim.db import files
from diffsim.db.catalog import Catalog
from diffsim.db.files import Finding
from diffsim.db.filters import Filters
from diffsim.indexer.scan import scan
left = int(sys.argv[2])
def on_step(name):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
scan(Catalog.open(folder / "catalog.sqlite"), [folder / "pictures"], on_step=on_step, commit_every_s=0)
"""


def test_a_killed_scan_is_taken_up_again(tmp_path: Path) -> None:
    def index_rearranged(kill_at: int) -> dict[str, int]:
        """Everything happens that can happen; the scan after it is killed after one of its commits, then repeated."""
        folder = tmp_path / str(kill_at)
        pictures = folder / "pictures"
        put(pictures, {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3", "d.jpg": "4", "e.jpg": "5"})
        with Catalog.open(folder / "catalog.sqlite", create=True) as catalog:
            scan(catalog, [pictures])
        put(pictures, {"c.jpg": "3 edited", "sub/new.jpg": "9", "b2.jpg": "8", "zz.jpg": "9"})
        (pictures / "a.jpg").rename(pictures / "sub/a.jpg")
        shutil.copy(pictures / "b.jpg", pictures / "sub/b.jpg")
        (pictures / "d.jpg").unlink()
        if kill_at:
            command = [sys.executable, "-c", KILLED, str(folder), str(kill_at)]
            assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        steps: list[str] = []
        with Catalog.open(folder / "catalog.sqlite") as catalog:
            report = scan(catalog, [pictures], on_step=steps.append, commit_every_s=0)
            account(catalog, report, [])
            assert kill_at or steps == ["files committed"] * 8 + ["missing committed"]
            return names(catalog, pictures)

    unbroken = index_rearranged(0)
    assert unbroken == {
        "b.jpg": 2, "b2.jpg": 6, "c.jpg": 7, "e.jpg": 5, "sub/a.jpg": 1, "sub/b.jpg": 2, "sub/new.jpg": 8, "zz.jpg": 8,
    }  # fmt: skip
    for kill_at in (1, 2, 5, 7, 9):
        assert index_rearranged(kill_at) == unbroken


PATHS = ["a.jpg", "b.jpg", "d/a.jpg", "d/c.png", "e.jpg/x.jpg"]
path_names = st.sampled_from(PATHS)
steps = st.one_of(
    st.tuples(st.just("write"), path_names, st.sampled_from("123456")),
    st.tuples(st.sampled_from(["move", "copy", "link"]), path_names, path_names),
    st.tuples(st.sampled_from(["delete", "touch"]), path_names, st.just("")),
    st.tuples(st.just("scan"), st.sampled_from([".", ".", "d"]), st.just("")),
    st.tuples(st.just("prune"), st.just(""), st.just("")),
)


def apply(folder: Path, kind: str, first: str, second: str) -> None:
    source, target = folder / first, folder / second
    target.parent.mkdir(exist_ok=True)
    if kind == "write":
        source.parent.mkdir(exist_ok=True)
        source.write_text(second)
    elif kind == "touch" and source.exists():
        os.utime(source, (1, 1))
    elif kind == "delete":
        source.unlink(missing_ok=True)
    elif source.exists() and first != second:
        if kind == "move":
            source.replace(target)
        else:
            target.unlink(missing_ok=True)
            shutil.copy(source, target) if kind == "copy" else target.hardlink_to(source)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(steps, max_size=16))
def test_the_catalog_agrees_with_the_disk(changes: list[tuple[str, str, str]]) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as name,
        Catalog.open(Path(name).resolve() / "catalog.sqlite", create=True) as catalog,
    ):
        patch.setattr(files, "_ROWS_AT_ONCE", 2)
        folder = Path(name).resolve() / "pictures"
        put(folder, {"keep.jpg": "0", "d/keep.jpg": "0"})
        content_of: dict[int, str] = {}
        pruned: set[int] = set()
        for kind, first, second in [*changes, ("scan", ".", "")]:
            if kind == "prune":
                pruned.update(catalog.prune())
            elif kind == "scan":
                report = scan(catalog, [folder / first])
                account(catalog, report, [])
                index_all(catalog)
                result = account(catalog, report, [1])
                assert result.waiting == 0
                assert result.indexed + result.excluded == result.on_disk
                for path, content_id in names(catalog, folder).items():
                    if first == "." or path.startswith("d/"):
                        now = (folder / path).read_text()
                        assert content_of.setdefault(content_id, now) == now
                        assert content_id not in pruned
            else:
                apply(folder, kind, first, second)
        truth = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
            for path in folder.rglob("*")
            if path.is_file()
        }
        found = names(catalog, folder)
        assert {path: catalog.content_by_sha256(digest) for path, digest in truth.items()} == found
        assert len(set(found.values())) == len(set(truth.values()))


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("ns", [2**63, 10_414_000_000 * 10**9, -(2**63) - 1])
def test_a_time_that_no_catalog_can_hold(catalog: Catalog, pictures: Path, ns: int) -> None:
    put(pictures, {"a.jpg": "1", "far.jpg": "2"})
    os.utime(pictures / "far.jpg", ns=(ns, ns))
    scan(catalog, [pictures])
    assert set(names(catalog, pictures)) == {"a.jpg", "far.jpg"}
    put(pictures, {"beside.jpg": "4"})
    report = scan(catalog, [pictures])
    assert classes(report, pictures) == {"beside.jpg": "new"}
    assert report.unchanged == 2
    ids, undated = catalog.matching(Filters(after=datetime(2261, 1, 1)))
    assert (ids.tolist(), undated) == ([names(catalog, pictures)["far.jpg"]] if ns > 0 else [], [])
    assert Filters(after=datetime(2261, 1, 1)).in_time(ns) == (ns > 0)


@pytest.mark.parametrize("commit_every_s", [0, 60])
def test_copies_of_one_picture_cost_no_more_than_different_ones(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit_every_s: float
) -> None:
    put(tmp_path / "first", {f"{number}.jpg": "the same" for number in range(40)})
    put(tmp_path / "second", {f"{number}.jpg": "the same" for number in range(40)})
    scan(catalog, [tmp_path / "first"], commit_every_s=commit_every_s)
    looked_at: list[object] = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **more: (looked_at.append(path), lstat(path, **more))[1])
    report = scan(catalog, [tmp_path / "second"], commit_every_s=commit_every_s)
    assert report.count(FileClass.COPIED) == 40
    assert len(looked_at) < 100
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "first").mkdir()
    put(tmp_path / "first", {"other.jpg": "another"})
    (tmp_path / "second").rename(tmp_path / "first/second")
    looked_at.clear()
    report = scan(catalog, [tmp_path / "first"], commit_every_s=commit_every_s)
    assert (report.count(FileClass.MOVED), report.count(FileClass.NEW), report.missing) == (40, 1, 0)
    assert len(looked_at) < 200


def below(catalog: Catalog, folder: Path) -> set[str]:
    return {path for path in names(catalog, folder) if not path.startswith("..")}


def test_what_is_left_out_is_remembered_with_its_root(catalog: Catalog, pictures: Path, tmp_path: Path) -> None:
    put(pictures, {"a.jpg": "1", "private/b.jpg": "2", "trips/c.jpg": "3", "trips/private/d.jpg": "4", ".h.jpg": "5"})
    put(tmp_path / "other", {"private/x.jpg": "6", "y.gif": "7"})
    first = scan(catalog, [pictures], exclude=["./private", "no such/", "*.gif"], include_hidden=True)
    assert first.unmatched == ["no such/", "*.gif"]
    everything = {".h.jpg", "a.jpg", "trips/c.jpg", "trips/private/d.jpg"}
    assert below(catalog, pictures) == everything
    for folders in ([pictures], [pictures / "trips", pictures]):
        assert scan(catalog, folders).unmatched == []
        assert below(catalog, pictures) == everything
    scan(catalog, [tmp_path / "other"])
    assert below(catalog, tmp_path / "other") == {"private/x.jpg", "y.gif"}  # they are of one root
    scan(catalog, [pictures / "trips"], exclude=["private"])  # and of a part of it, where that was named
    scan(catalog, [pictures, tmp_path / "other"])
    assert below(catalog, pictures) == {".h.jpg", "a.jpg", "trips/c.jpg"}
    assert below(catalog, tmp_path / "other") == {"private/x.jpg", "y.gif"}
    known = {root.path: (root.left_out, root.include_hidden) for root in catalog.roots()}
    assert known == {
        os.fsencode(tmp_path / "other"): ((), False),
        os.fsencode(pictures): (("/private", "no such/", "*.gif", "/trips/**/private"), True),
    }
    scan(catalog, [pictures], exclude=["!./private"], include_hidden=False)
    assert below(catalog, pictures) == {"a.jpg", "private/b.jpg", "trips/c.jpg"}
    scan(catalog, [pictures], exclude=[os.fspath(pictures / "trips")])
    assert below(catalog, pictures) == {"a.jpg", "private/b.jpg"}


def test_a_folder_around_a_root_goes_on_leaving_out_what_the_root_left_out(catalog: Catalog, tmp_path: Path) -> None:
    put(tmp_path / "around/in", {"a.jpg": "1", "private/b.jpg": "2"})
    put(tmp_path / "around", {"private/c.jpg": "3"})
    scan(catalog, [tmp_path / "around/in"], exclude=["private/"])
    scan(catalog, [tmp_path / "around"])
    assert below(catalog, tmp_path / "around") == {"in/a.jpg", "private/c.jpg"}
    assert [root.left_out for root in catalog.roots()] == [("/in/**/private/",)]
