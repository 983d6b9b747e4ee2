"""Whole runs: incremental, resumable, many spaces, many processes; after anything that happens to the files."""

import os
import select
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from indexing import FAST, build, diffsim, draw, listing, problem

from benchmarks.kills import in_child
from diffsim.db import catalog
from diffsim.indexer import scan, walk
from diffsim.indexer.build import index_folders
from diffsim.indexer.estimate import estimate
from diffsim.indexer.hashing import read_digest
from diffsim.indexer.index_folder import IndexBusy, IndexFolder, NoIndex
from diffsim.indexer.maintain import prune_index, verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.indexer.roots import FolderNotFound
from diffsim.query.search import Query, Searcher
from diffsim.retrieval.shard.lmdb_environment import StoreFull

EVERYTHING = 10_000


def paths_of(hits: list) -> set[str]:
    return {path for hit in hits for path in hit.paths}


# ------------------------------------------------------------------------------------------- what happens to files


def test_moved_copied_and_linked_files_are_not_extracted_again(pictures, tmp_path):
    assert build(tmp_path / "index", pictures).extracted == 12
    (pictures / "00.png").rename(pictures / "sub" / "moved.png")
    shutil.copy(pictures / "01.png", pictures / "copied.png")
    os.link(pictures / "02.png", pictures / "linked.png")
    report = build(tmp_path / "index", pictures)
    assert report.extracted == 0
    assert (report.account.moved, report.account.copied, report.account.unchanged) == (1, 2, 11)
    hits = Searcher(tmp_path / "index").search(pictures / "02.png", include_self=True, k=EVERYTHING)
    assert hits[0].paths == (str(pictures / "02.png"), str(pictures / "linked.png"))
    assert len(hits) == 12 and len(paths_of(hits)) == 14


def test_an_index_among_the_pictures_is_left_out_and_said_so(pictures, tmp_path):
    index = pictures / "my.idx"
    build(index, pictures)
    (index / "thumbnails/5a").mkdir(parents=True)
    random_picture(50).save(index / "thumbnails/5a" / f"{'5a' * 32}.webp")
    other = shutil.copytree(index, pictures / "sub/another person's index")
    report = build(index, pictures)
    assert (report.account.unchanged, report.account.new) == (12, 0)
    assert report.account.excluded_by_reason == {"index folder": 2}
    for folder in (index, other / "thumbnails", other / "thumbnails/5a", index / "spaces"):
        with pytest.raises(FolderNotFound, match=r"belongs to the index .*; name the folder that holds the pictures"):
            build(tmp_path / "index", folder)
    draw(index / "photographs", range(2))  # beside an index's own files: a library in one folder
    assert build(index, index / "photographs").extracted == 0
    assert len(paths_of(Searcher(index).search(pictures / "00.png", include_self=True, k=EVERYTHING))) == 14


def test_thumbnails_that_were_indexed_once_are_gone_with_the_next_run(pictures, tmp_path):
    index = pictures / "my.idx"
    thumbnail = index / "thumbnails/5a" / f"{'5a' * 32}.webp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "is_index", lambda folder: False)
        build(index, pictures)
        thumbnail.parent.mkdir(parents=True)
        random_picture(50).save(thumbnail)
        assert build(index, pictures).account.indexed == 13
    report = build(index, pictures)
    assert (report.account.indexed, report.account.missing) == (12, 1)
    assert str(thumbnail) not in paths_of(Searcher(index).search(pictures / "00.png", k=EVERYTHING))


def test_a_deleted_file_leaves_at_once_and_its_features_stay_until_prune(pictures, tmp_path):
    build(tmp_path / "index", pictures)
    searcher = Searcher(tmp_path / "index")
    kept = (pictures / "05.png").read_bytes()
    (pictures / "05.png").unlink()
    assert str(pictures / "05.png") not in paths_of(searcher.search(pictures / "04.png", k=EVERYTHING))
    build(tmp_path / "index", pictures)
    hits = searcher.search(pictures / "04.png", k=EVERYTHING)
    assert len(hits) == 10 and str(pictures / "05.png") not in paths_of(hits)
    (pictures / "back.png").write_bytes(kept)
    assert build(tmp_path / "index", pictures).extracted == 0
    (pictures / "back.png").unlink()
    build(tmp_path / "index", pictures)
    pruned = prune_index(searcher.index, 2**30)
    assert (pruned.files, pruned.pictures) == (1, 1)
    (pictures / "05.png").write_bytes(kept)
    assert build(tmp_path / "index", pictures).extracted == 1
    (checked,) = verify_index(searcher.index, 2**30).spaces
    assert (checked.pictures, checked.damaged, checked.orphans) == (12, [], 0)


@pytest.mark.parametrize("empty", [True, False])
def test_an_unmounted_folder_is_offline_and_stays_in_the_results(pictures, tmp_path, empty):
    other = tmp_path / "other"
    draw(other, range(20, 24))
    build(tmp_path / "index", pictures)
    build(tmp_path / "index", other)
    other.rename(tmp_path / "away")
    if empty:
        other.mkdir()  # the mount point
    report = index_folders(IndexFolder.open(tmp_path / "index"), [], (), FAST)
    assert (report.account.offline, report.account.missing, report.account.indexed) == (4, 0, 12)
    assert [path for path, _ in report.offline] == [os.fsencode(other)]
    searcher = Searcher(tmp_path / "index")
    hits = searcher.search(tmp_path / "away" / "21.png", include_self=True, k=EVERYTHING)
    assert len(hits) == 16 and hits[0].path == str(other / "21.png") and hits[0].offline
    assert sum(hit.offline for hit in hits) == 4
    prune_index(searcher.index, 2**30)
    shutil.rmtree(other, ignore_errors=True)
    (tmp_path / "away").rename(other)
    report = index_folders(IndexFolder.open(tmp_path / "index"), [], (), FAST)
    assert (report.extracted, report.account.indexed) == (0, 16)


def test_a_file_that_changes_between_scan_and_decoding(pictures, tmp_path):
    def change(step: str) -> None:
        if step == "files committed":
            random_picture(50).save(pictures / "03.png")
            (pictures / "04.png").unlink()

    report = build(tmp_path / "index", pictures, on_step=change)
    assert report.account.indexed == 11 and report.account.failed == 1 and report.account.waiting == 0
    hits = Searcher(tmp_path / "index").search(pictures / "03.png", include_self=True, k=EVERYTHING)
    assert hits[0].path == str(pictures / "03.png") and hits[0].score == pytest.approx(1, abs=1e-6)
    assert build(tmp_path / "index", pictures).account.missing == 1


def test_failed_files_are_tried_again_when_they_change_or_on_demand(pictures, tmp_path):
    whole = (pictures / "03.png").read_bytes()
    (pictures / "03.png").write_bytes(whole[:50])
    assert build(tmp_path / "index", pictures).account.failed == 1
    again = build(tmp_path / "index", pictures)
    assert (again.extracted, again.account.failed, again.account.indexed) == (0, 1, 11)
    forced = build(tmp_path / "index", pictures, options=replace(FAST, retry_failed=True))
    assert forced.account.failed == 1
    (pictures / "03.png").write_bytes(whole)
    assert build(tmp_path / "index", pictures).account.indexed == 12


# ------------------------------------------------------------------------------------------- spaces


def test_one_run_feeds_several_spaces_and_a_new_one_leaves_the_old_alone(pictures, tmp_path):
    folder = IndexFolder.create(tmp_path / "index")
    both = requested_spaces(str(TINY), ["style", "look"], size=64, tier="fp32")
    assert index_folders(folder, [pictures], both[:1], FAST).extracted == 12
    before = Searcher(folder.path).search(pictures / "03.png", spaces="style")
    assert index_folders(folder, [pictures], both, FAST).extracted == 12
    alone = tmp_path / "alone"
    index_folders(IndexFolder.create(alone), [pictures], both[1:], FAST)
    searcher = Searcher(folder.path)
    assert searcher.search(pictures / "03.png", spaces="style") == before
    together, single = searcher.search(pictures / "03.png", spaces="look"), Searcher(alone).search(pictures / "03.png")
    assert [hit.path for hit in together] == [hit.path for hit in single]
    assert np.allclose([hit.score for hit in together], [hit.score for hit in single], atol=1e-5)


def test_a_profile_and_its_layer_spelled_out_are_one_space(pictures, tmp_path):
    (profile,) = requested_spaces(str(TINY), ["style"], size=64)
    (tap,) = profile.settings.taps
    (layer,) = requested_spaces(str(TINY), layers=[f"{tap.module}@{tap.timestep}"], size=64)
    report = index_folders(IndexFolder.create(tmp_path / "index"), [pictures], [profile, layer], FAST)
    assert len({space.known.fingerprint for space in report.spaces}) == 1 and len(report.spaces) == 2
    assert report.account.indexed == 12


def test_a_mistyped_folder_leaves_no_trace(pictures, tmp_path):
    with pytest.raises(FolderNotFound):
        build(tmp_path / "index", tmp_path / "typo")
    with IndexFolder.open(tmp_path / "index").catalog() as catalog:
        assert catalog.spaces() == [] and catalog.roots() == []


def test_an_empty_folder_makes_an_index_that_can_be_asked(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    assert build(tmp_path / "index", tmp_path / "empty").account.on_disk == 0
    assert Searcher(tmp_path / "index").search(pictures / "03.png") == []
    assert Searcher(tmp_path / "index").search(pictures / "03.png", exact=True) == []


def test_a_dry_run_writes_nothing_and_tells_what_a_run_would_do(pictures, tmp_path):
    requests = requested_spaces(str(TINY), ["look"], size=64, tier="fp32")
    index = tmp_path / "index"
    fresh = estimate(index, [pictures], requests, FAST)
    assert (fresh.pictures, fresh.known) == (12, 0) and fresh.seconds > 0
    assert not index.exists()
    build(index, pictures)
    os.utime(pictures / "00.png", ns=(10**18, 10**18))  # old enough to be trusted at the next look
    build(index, pictures)
    before = listing(index)
    nothing = estimate(index, [], [], FAST)
    assert nothing.pictures == 12 and nothing.disk <= fresh.disk
    other = estimate(index, [], requested_spaces(str(TINY), ["style"], size=64, tier="fp32"), FAST)
    assert (other.pictures, other.known) == (12, 0) and other.disk == fresh.disk
    assert listing(index) == before
    stored = IndexFolder.open(index).store(Searcher(index).spaces()[0].fingerprint, 0, readonly=True)
    assert fresh.disk < stored.nbytes() < fresh.disk + 100_000
    stored.close()
    with pytest.raises(FolderNotFound):
        estimate(index, [tmp_path / "typo"], requests, FAST)


def test_a_dry_run_knows_what_is_done(pictures, tmp_path):
    index = tmp_path / "index"
    build(index, pictures)
    done = estimate(index, [pictures], [], FAST)
    assert (done.pictures, done.known, done.todo, done.seconds, done.disk) == (12, 12, 0, 0, 0)
    (pictures / "05.png").unlink()
    (pictures / "06.png").rename(pictures / "moved.png")
    shutil.copy(pictures / "07.png", pictures / "copy.png")
    random_picture(70).save(pictures / "08.png")
    random_picture(71).save(pictures / "new.png")
    shutil.copy(pictures / "new.png", pictures / "sub" / "the same.png")
    before = listing(index)
    changed = estimate(index, [pictures], [], FAST)
    assert (changed.pictures, changed.known, changed.todo) == (14, 11, 2) and changed.seconds > 0
    assert listing(index) == before
    assert build(index, pictures).extracted == 2


def test_a_renamed_folder_is_nothing_to_do(tmp_path):
    draw(tmp_path / "pictures" / "old", range(20))
    draw(tmp_path / "pictures" / "other", range(20, 22))
    index = tmp_path / "index"
    build(index, tmp_path / "pictures")
    (tmp_path / "pictures" / "old").rename(tmp_path / "pictures" / "new")
    found = estimate(index, [], [], FAST)
    assert (found.pictures, found.known, found.todo) == (22, 22, 0)
    # also where the folder around it is asked for, which takes over what is known of it
    around = estimate(index, [tmp_path], [], replace(FAST, exclude=["index/"]))
    assert (around.pictures, around.known, around.todo) == (22, 22, 0)
    assert build(index, tmp_path / "pictures").extracted == 0


def test_a_dry_run_reads_only_files_that_may_be_known(pictures, tmp_path, monkeypatch):
    """A file of a size that no other has is new: a first estimate must not read a whole disk."""
    build(tmp_path / "index", pictures)
    (pictures / "00.png").rename(pictures / "moved.png")
    random_picture(80, 333, 222).save(pictures / "large.png")
    random_picture(81, 334, 222).save(pictures / "larger.png")
    shutil.copy(pictures / "larger.png", pictures / "sub" / "copy.png")
    read = []

    def reading(path: bytes) -> object:
        read.append(Path(os.fsdecode(path)).name)
        return read_digest(path)

    monkeypatch.setattr(scan, "read_digest", reading)
    assert estimate(tmp_path / "index", [pictures], [], FAST).todo == 2
    assert {"moved.png", "larger.png", "copy.png"} <= set(read) and "large.png" not in read


def test_a_dry_run_of_an_index_that_is_being_written(pictures, tmp_path):
    index = tmp_path / "index"
    build(index, pictures)
    random_picture(50).save(pictures / "new.png")
    folder = IndexFolder.open(index)
    with folder.writing(), folder.catalog() as catalog, catalog._database.writing():
        assert estimate(index, [], [], FAST).todo == 1


def test_a_dry_run_tells_what_the_run_would_not_do(pictures, tmp_path):
    """The very words of the run."""
    for run in (
        lambda index: estimate(index, [pictures], [], FAST),
        lambda index: index_folders(IndexFolder.create(index), [pictures], [], FAST),
    ):
        with pytest.raises(NoIndex, match="is not empty and holds no index"):
            run(pictures)


def test_a_dry_run_tries_failed_files_again_when_the_run_would(pictures, tmp_path):
    (pictures / "03.png").write_bytes((pictures / "03.png").read_bytes()[:50])
    build(tmp_path / "index", pictures)
    assert estimate(tmp_path / "index", [], [], FAST).todo == 0
    assert estimate(tmp_path / "index", [], [], replace(FAST, retry_failed=True)).todo == 1


FILES = st.integers(0, 30)


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["add", "delete", "rename", "copy", "edit", "touch", "folder"]), FILES, FILES),
            max_size=6,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_dry_run_says_what_the_run_then_does(rounds: list[list[tuple[str, int, int]]]) -> None:
    """After any operations on the files: as many pictures as the estimate says are extracted."""
    with tempfile.TemporaryDirectory() as work:
        index, folder = Path(work) / "index", Path(work) / "pictures"
        draw(folder, [99])  # an emptied folder would be taken for an unmounted disk
        for operations in rounds:
            for kind, number, other in operations:
                happen(folder, kind, number, other)
            dry = estimate(index, [folder], requested_spaces(str(TINY), ["look"], size=64, tier="fp32"), FAST)
            report = build(index, folder)
            assert dry.todo == report.extracted
            assert dry.pictures == report.account.on_disk and dry.known <= report.account.indexed
            assert (dry.known == report.account.indexed) == (report.extracted == 0)


def happen(folder: Path, kind: str, number: int, other: int) -> None:
    """Something that a person does to a folder of pictures."""
    there = sorted(path for path in folder.rglob("*.png") if path.stem != "99")
    chosen = there[number % len(there)] if there else None
    new = folder / ("sub" if other % 2 else "") / f"{other % 7}.png"
    new.parent.mkdir(exist_ok=True)
    if kind == "add" or chosen is None:
        random_picture(number).save(new)
    elif kind == "delete":
        chosen.unlink()
    elif kind == "rename":
        chosen.replace(new)
    elif kind == "copy" and chosen != new:
        shutil.copy(chosen, new)
    elif kind == "edit":
        random_picture(other).save(chosen)
    elif kind == "touch":
        os.utime(chosen, (1, other))
    elif kind == "folder" and (folder / "sub").exists():
        shutil.rmtree(folder / "renamed", ignore_errors=True)
        (folder / "sub").rename(folder / "renamed")


# ------------------------------------------------------------------------------------------- other processes


def test_a_second_indexer_is_told_who_holds_the_lock(pictures, tmp_path):
    index = tmp_path / "index"
    assert build(index, pictures).extracted == 12
    with IndexFolder.open(index).writing(), pytest.raises(IndexBusy, match=f"process {os.getpid()} on "):
        build(index, pictures)
    assert build(index, pictures).extracted == 0


def test_reading_while_another_process_indexes(tmp_path):
    folder, index = tmp_path / "pictures", tmp_path / "index"
    draw(folder, range(8))
    build(index, folder)
    draw(folder, range(8, 40))
    (committed, commits), (asked, asks) = os.pipe(), os.pipe()

    def await_a_question(step: str) -> None:
        """However fast the run is, somebody asks between its commits."""
        if step == "features committed":
            os.write(commits, b".")
            os.read(asked, 1)

    options = replace(FAST, commit_seconds=0, batch_size=2)
    child = in_child(lambda: build(index, folder, options=options, on_step=await_a_question))
    searcher, seen = Searcher(index), []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        waits, *_ = select.select([committed], [], [], 0)
        for number in (len(seen) % 8, 7):
            answer = searcher.answer(Query(folder / f"{number:02d}.png", k=EVERYTHING, include_self=True))
            assert answer.hits[0].path == str(folder / f"{number:02d}.png")
            assert answer.hits[0].score == pytest.approx(1, abs=1e-6)
            assert len(answer.hits) == answer.scored == answer.pictures
            assert len({hit.content_id for hit in answer.hits}) == len(answer.hits)
        seen.append(answer.pictures)
        if waits:
            os.write(asks, os.read(committed, 1))
    assert seen == sorted(seen) and len(set(seen)) > 10
    assert len(searcher.search(folder / "00.png", k=EVERYTHING)) == 39


def test_an_interrupted_run_keeps_what_was_done(pictures, tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "index", pictures, on_progress=interrupt)
    assert len(Searcher(tmp_path / "index").search(pictures / "00.png", include_self=True, k=EVERYTHING)) == 8
    assert build(tmp_path / "index", pictures).extracted == 4


# ------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 600 kB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_ends_in_one_sentence_and_loses_nothing(small_disk, tmp_path):
    folder, index = tmp_path / "pictures", small_disk / "index"
    draw(folder, range(6))
    build(index, folder, size=256)
    draw(folder, range(6, 60))
    arguments = ("index", folder, "--index", index, "--device", "cpu")
    text = problem(diffsim(*arguments))
    assert "make room" in text or "disk has room" in text
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert diffsim("verify", "--index", index).out.endswith(b"clean\n")
    with Searcher(index) as searcher:
        hits = searcher.search(folder / "03.png", include_self=True, k=EVERYTHING)
    assert hits[0].score == pytest.approx(1, abs=1e-6) and len(hits) >= 6
    assert diffsim(*arguments).code == 0
    with Searcher(index) as searcher:
        assert len(searcher.search(folder / "03.png", include_self=True, k=EVERYTHING)) == 60
    assert diffsim("verify", "--index", index).out.endswith(b"clean\n")


def test_a_store_that_may_not_grow_is_left_intact(pictures, tmp_path):
    """The same without mounting: the system refuses to make any file larger than 420 kB."""
    index = tmp_path / "index"
    build(index, pictures, size=192)
    draw(pictures, range(20, 70))

    def work() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (420_000, 420_000))
        try:
            build(index, pictures, size=192, options=replace(FAST, commit_seconds=100))
        except StoreFull:
            os._exit(42)

    _, status = os.waitpid(in_child(work), 0)
    assert os.waitstatus_to_exitcode(status) == 42
    (checked,) = verify_index(IndexFolder.open(index), 2**30).spaces
    assert (checked.pictures, checked.damaged) == (12, [])
    assert build(index, pictures, size=192).account.indexed == 62


# ------------------------------------------------------------------------------------------- any sequence

NAMES = [f"{letter}.png" for letter in "abcdef"] + ["sub/a.png", "sub/b.png"]
OPERATION = st.tuples(
    st.sampled_from(["add", "add", "change", "move", "copy", "delete", "corrupt"]),
    st.sampled_from(NAMES),
    st.integers(0, 7),
    st.integers(0, 9),
)


def apply(folder: Path, operation: tuple[str, str, int, int], corrupt: set[str]) -> None:
    kind, name, other, seed = operation
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    if kind == "add" or not there:
        random_picture(seed).save(folder / name)
        corrupt.discard(name)
        return
    chosen = there[other % len(there)]
    if kind == "change":
        random_picture(seed + 10).save(folder / chosen)
        corrupt.discard(chosen)
    elif kind == "delete":
        (folder / chosen).unlink()
        corrupt.discard(chosen)
    elif kind == "corrupt":
        (folder / chosen).write_bytes((folder / chosen).read_bytes()[: 20 + other])
        corrupt.add(chosen)
    elif chosen != name:
        if kind == "move":
            os.replace(folder / chosen, folder / name)
        else:
            shutil.copy(folder / chosen, folder / name)
        corrupt.discard(name)
        if chosen in corrupt:
            corrupt.add(name)
            if kind == "move":
                corrupt.discard(chosen)


@pytest.mark.parametrize(("tier", "tolerance"), [("fp32", 1e-5), ("int8", 1e-4)])
def test_after_anything_that_happens_every_picture_finds_itself(tier, tolerance):
    @settings(
        max_examples=7 if tier == "fp32" else 3,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking would take minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.lists(OPERATION, min_size=2, max_size=8), min_size=2, max_size=3))
    def check(rounds: list[list[tuple[str, str, int, int]]]) -> None:
        with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalog, "_PENDING_AT_ONCE", 2)
            folder = Path(work) / "pictures"
            (folder / "sub").mkdir(parents=True)
            corrupt: set[str] = set()
            random_picture(99).save(folder / "always.png")  # an emptied folder would be taken for an unmounted disk
            for operations in rounds:
                for operation in operations:
                    if operation[0] == "delete" and operation[2] == 0:
                        continue
                    apply(folder, operation, corrupt)
                check_index(Path(work) / "index", folder, corrupt, tier, tolerance)
            compare_with_fresh(Path(work), folder, corrupt, tier, tolerance)

    check()


def check_index(index: Path, folder: Path, corrupt: set[str], tier: str, tolerance: float) -> None:
    account = build(index, folder, tier=tier).account
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    good = [name for name in there if name not in corrupt]
    assert account.on_disk == len(there)
    assert (account.failed, account.indexed, account.waiting, account.offline) == (len(corrupt), len(good), 0, 0)
    content = {str(folder / name): (folder / name).read_bytes() for name in good}
    searcher = Searcher(index, "cpu")
    for path in content:
        hits = searcher.search(path, include_self=True, k=EVERYTHING)
        assert hits[0].score == pytest.approx(1, abs=tolerance)
        assert path in hits[0].paths
        assert all(content[path] == content[same] for same in hits[0].paths)
        assert sorted(same for hit in hits for same in hit.paths) == sorted(content)


def compare_with_fresh(work: Path, folder: Path, corrupt: set[str], tier: str, tolerance: float) -> None:
    build(work / "fresh", folder, tier=tier)
    incremental, fresh = Searcher(work / "index", "cpu"), Searcher(work / "fresh", "cpu")
    good = [path for path in sorted(folder.rglob("*.png")) if str(path.relative_to(folder)) not in corrupt]
    for path in good[:4]:
        ours, theirs = (each.search(path, include_self=True, k=EVERYTHING) for each in (incremental, fresh))
        scores = {hit.paths: hit.score for hit in theirs}
        assert scores.keys() == {hit.paths for hit in ours}
        assert all(abs(scores[hit.paths] - hit.score) <= tolerance for hit in ours)
        for hit, other in zip(ours, theirs, strict=True):
            assert hit.paths == other.paths or abs(hit.score - other.score) <= tolerance
