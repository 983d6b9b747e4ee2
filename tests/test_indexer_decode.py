"""Decoding in worker processes: hostile files, and workers that die, hang or grow, cost one file each."""

import contextlib
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from diffsim.indexer.walk import Entry, walk
from diffsim.retrieval.pictures.decode_pool import Changed, Decoded, DecodePool, Failed, Job
from diffsim.retrieval.pictures.decode_worker import read_file
from diffsim.retrieval.pictures.decoder_process import NoDecoder
from diffsim.retrieval.pictures.images import UnreadableImage, decode

PROJECT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
GB = 10**9


def job(number: int, path: Path) -> Job:
    return Job(number, os.fsencode(path), hashlib.sha256(path.read_bytes()).digest())


@pytest.fixture
def small(tmp_path: Path) -> list[Job]:
    jobs = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (20, 10), (number, 0, 0)).save(path)
        jobs.append(job(number, path))
    return jobs


@pytest.fixture
def slow(tmp_path: Path) -> Job:
    """100 megapixels in a few kB: takes about a second and 500 MB."""
    path = tmp_path / "slow.png"
    Image.new("1", (10000, 10000)).save(path)
    return job(99, path)


def wait_until(condition: object, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def run(jobs: Iterable[Job], *, workers: int = 2, timeout_s: float = 30, memory_bytes: int = 2 * GB) -> dict:
    others = psutil.Process().children()
    with DecodePool(workers, 8, timeout_s, memory_bytes) as pool:
        results = {result.job.content_id: result for result in pool.run(jobs)}
    assert set(psutil.Process().children()) <= set(others)
    return results


# ------------------------------------------------------------------------------------------- hostile and odd files


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    with tarfile.open(DATA / "nasty.tar", encoding="utf-8", errors="surrogateescape") as archive:
        archive.extractall(folder, filter="tar")
    return folder / "nasty"


@pytest.fixture(scope="module")
def outcomes(nasty: Path) -> dict[bytes, str]:
    """Path -> "decoded" or the reason why not, for all that the walk finds."""
    root = os.fsencode(nasty)
    ends: dict[bytes, str] = {}
    jobs = []
    for found in walk(root):
        if isinstance(found, Entry):
            jobs.append(Job(len(jobs), root + b"/" + found.path, b""))
        else:
            ends[found.path] = found.reason
    with DecodePool(2, 16, 30, GB) as pool:
        for result in pool.run(jobs):
            end = "decoded" if isinstance(result, Decoded) else result.reason
            ends[result.job.path[len(root) + 1 :]] = end
    return ends


def expectations() -> list[tuple[str, str]]:
    with tarfile.open(DATA / "nasty.tar") as archive:
        text = archive.extractfile("nasty/expected.csv").read().decode()
    return [(row["file"], row["should_index"]) for row in csv.DictReader(text.splitlines(keepends=True))]


def test_all_99_hostile_entries_are_tested():
    assert len(expectations()) == 99


@pytest.mark.parametrize(("name", "expected"), expectations())
def test_hostile_entries_end_as_expected(outcomes, name, expected):
    if name == "unreadable.jpg" and os.geteuid() == 0:
        pytest.skip("root reads everything; test_reasons_of_read_file asks as another user")
    path = name.replace("\\xe9\\xff", "\udce9\udcff") if "latin1" in name else name
    end = outcomes.get(os.fsencode(path.rstrip("/")))
    if expected == "yes":
        assert end == "decoded"
    elif expected == "no":
        assert end != "decoded"
        assert end or name.endswith("/")  # a directory is not reported, only what is in it
    elif end is None:  # in a directory that was skipped as a whole
        assert os.fsencode(str(Path(path).parent)) in outcomes


def test_the_eight_orientations_are_one_picture(nasty):
    first, *others = (decode((nasty / f"exif/orientation_{i}.jpg").read_bytes(), 64).pixels for i in range(1, 9))
    for other in others:
        assert np.abs(first.astype(int) - other).mean() < 3


# ------------------------------------------------------------------------------------------- results


def test_results_carry_their_job_and_the_pixels_of_decode(small):
    results = run(small)
    assert sorted(results) == list(range(12))
    for each in small:
        result, truth = results[each.content_id], decode(read_file(each.path), 8)
        assert result.job == each and np.array_equal(result.pixels, truth.pixels)
        assert (result.format, result.width, result.height) == ("PNG", 20, 10)


def test_pixels_stay_after_the_pool_has_gone_on(small):
    with DecodePool(1, 8, 30, GB) as pool:
        results = list(pool.run(small))
    assert [result.pixels[0, 0, 0] for result in results] == list(range(12))


def test_changed_and_unreadable_files(small, tmp_path):
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").symlink_to("4.png")
    results = run(small)
    assert results[0] == Changed(small[0])
    assert results[2] == Failed(small[2], "no longer there")
    assert results[3] == Failed(small[3], "symbolic link")
    assert all(isinstance(results[number], Decoded) for number in range(4, 12))


def test_jobs_are_pulled_lazily(small):
    pulled = 0

    def counted() -> Iterator[Job]:
        nonlocal pulled
        for each in small:
            pulled += 1
            yield each

    with DecodePool(1, 8, 30, GB) as pool:
        for seen, _ in enumerate(pool.run(counted()), start=1):
            assert pulled <= seen + 3
    assert pulled == len(small)


def test_a_run_broken_off_leaves_nothing_to_the_next(small):
    with DecodePool(2, 8, 30, GB) as pool:
        for _ in pool.run(small):
            break
        assert {result.job for result in pool.run(small[5:7])} == set(small[5:7])


def test_nothing_to_do_starts_nothing(children):
    with DecodePool(2, 8, 30, GB) as pool:
        assert list(pool.run([])) == []
        assert not children()


def test_a_second_run_beside_the_first_is_refused(small):
    with DecodePool(1, 8, 30, GB) as pool:
        first = pool.run(small)
        next(first)
        with pytest.raises(RuntimeError, match="busy"):
            next(pool.run(small))


# ------------------------------------------------------------------------------------------- workers in trouble


@pytest.mark.parametrize(
    ("blow", "reason"),
    [(signal.SIGKILL, "killed the decoder (signal 9)"), (signal.SIGSTOP, "took longer than 4 s")],
)
def test_a_dead_or_frozen_worker_costs_its_one_file(small, slow, blow, reason, children):
    def jobs() -> Iterator[Job]:
        yield slow
        # Memory shows when the worker is in the middle of the large picture.
        assert wait_until(lambda: any(child.memory_info().rss > 150e6 for child in children()))
        max(children(), key=lambda child: child.memory_info().rss).send_signal(blow)
        yield from small

    results = run(jobs(), timeout_s=4)
    assert results[slow.content_id] == Failed(slow, reason)
    assert sum(isinstance(result, Decoded) for result in results.values()) == len(small)


def test_a_worker_killed_between_files_costs_nothing(small, children):
    with DecodePool(1, 8, 30, GB) as pool:
        assert len(list(pool.run(small[:1]))) == 1
        (child,) = children()
        child.kill()
        assert wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE)
        assert all(isinstance(result, Decoded) for result in pool.run(small))


def test_too_little_memory_fails_that_file_only(small, slow):
    results = run([slow, *small], workers=1, memory_bytes=100 * 10**6)
    assert results[slow.content_id] == Failed(slow, "needs more than 100 MB of memory")
    assert all(isinstance(results[each.content_id], Decoded) for each in small)


def test_workers_that_never_start_are_an_error_not_a_loop(small, monkeypatch, children):
    monkeypatch.setattr("diffsim.retrieval.pictures.decoder_process._BOOT", "raise SystemExit(3)")
    with DecodePool(2, 8, 30, GB) as pool:
        for _ in range(2):
            with pytest.raises(NoDecoder, match=r"do not start \(ended .* 3\)\); see what `.*python.*` says.*\.$"):
                list(pool.run(small))
    assert not children()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_no_child_is_left_after_an_error(small, error, children):
    with pytest.raises(error), DecodePool(2, 8, 30, GB) as pool:
        for _ in pool.run(small):
            raise error
    assert not children()


PARENT = """
import sys; sys.path.insert(0, {project!r})
import psutil
from diffsim.retrieval.pictures.decode_pool import DecodePool, Job
print("main", flush=True)
with DecodePool(1, 8, 30, 10**9) as pool:
    for result in pool.run([Job(0, {path!r}, b"")]):
        print(psutil.Process().children()[0].pid, type(result).__name__, flush=True)
    while True:
        for result in pool.run([Job(0, {path!r}, b"")] * 3):
            pass
"""


@pytest.fixture
def parent(tmp_path: Path, small: list[Job]) -> Iterator[subprocess.Popen[str]]:
    """A program of its own, in another directory and terminal session, that decodes for ever."""
    script = tmp_path / "script.py"
    script.write_text(PARENT.format(project=str(PROJECT), path=small[0].path))
    (tmp_path / "elsewhere").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path / "elsewhere",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    process.kill()
    process.communicate()


def first_child(parent: subprocess.Popen[str]) -> psutil.Process:
    assert parent.stdout.readline() == "main\n"
    pid, outcome = parent.stdout.readline().split()  # a second "main" would show here
    assert outcome == "Decoded"
    return psutil.Process(int(pid))


def test_ctrl_c_ends_everything_with_one_traceback(parent):
    child = first_child(parent)
    os.killpg(parent.pid, signal.SIGINT)
    _, stderr = parent.communicate(timeout=20)
    assert stderr.count("Traceback") == 1 and "decode_worker" not in stderr
    assert wait_until(lambda: not child.is_running())


@pytest.mark.parametrize("frozen", [False, True])
def test_no_child_outlives_a_killed_parent(parent, frozen):
    child = first_child(parent)
    if frozen:
        child.suspend()
        assert wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
    parent.kill()
    parent.wait()
    ended = wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    with contextlib.suppress(psutil.NoSuchProcess):
        child.kill()  # or a failing test would leave it for ever
    assert ended


def test_a_worker_loads_neither_torch_nor_faiss_nor_sqlalchemy():
    code = "import json, sys, diffsim.retrieval.pictures.decode_worker; print(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=True).stdout
    loaded = {name.split(".")[0] for name in json.loads(out)}
    assert "PIL" in loaded and not loaded & {"torch", "faiss", "sqlalchemy", "diffusers", "transformers", "click"}


# ------------------------------------------------------------------------------------------- one file


def test_one_file_follows_the_link_that_a_person_names(small, tmp_path):
    (tmp_path / "link.png").symlink_to("7.png")
    with DecodePool(1, 8) as pool:
        picture = pool.decode(tmp_path / "link.png")
    assert np.array_equal(picture.pixels, decode((tmp_path / "7.png").read_bytes(), 8).pixels)


def test_one_file_is_named_with_the_reason(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no")
    with DecodePool(1, 8) as pool:
        with pytest.raises(UnreadableImage, match=r"x\.png: not a picture"):
            pool.decode(tmp_path / "x.png")
        with pytest.raises(UnreadableImage, match="no longer there"):
            pool.decode(tmp_path / "y.png")


@pytest.mark.parametrize("blow", [None, signal.SIGKILL, signal.SIGSTOP])
def test_a_kept_worker_is_used_again_or_replaced(small, tmp_path, blow, children):
    with DecodePool(1, 8, timeout_s=2) as pool:
        pool.decode(tmp_path / "0.png")
        (first,) = children()
        if blow:
            first.send_signal(blow)
            assert wait_until(lambda: first.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED))
        assert pool.decode(tmp_path / "5.png").pixels[0, 0, 0] == 5
        (second,) = children()
        assert (second.pid == first.pid) == (blow is None)


def test_a_closed_pool_starts_again_when_asked(small, tmp_path, children):
    pool = DecodePool(1, 8)
    for number in (1, 2):
        assert pool.decode(tmp_path / f"{number}.png").pixels[0, 0, 0] == number
        assert len(children()) == 1
        pool.close()
        pool.close()
        assert not children()


def test_a_forgotten_pool_ends_its_workers(small, tmp_path, children):
    DecodePool(1, 8).decode(tmp_path / "0.png")
    assert not children()


def test_the_end_of_the_program_ends_kept_workers_in_silence(small, tmp_path):
    code = (
        "import sys; from diffsim.retrieval.pictures.decode_pool import DecodePool; import psutil; "
        "pool = DecodePool(1, 8); "
        "pool.decode(sys.argv[1]); print(psutil.Process().children()[0].pid)"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(tmp_path / "0.png")]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert not psutil.pid_exists(int(ended.stdout))


def test_a_forked_child_leaves_its_parents_worker_alone(small, tmp_path, children):
    pool = DecodePool(1, 8)
    pool.decode(tmp_path / "0.png")
    (worker,) = children()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            alone = not pool._workers
            answer = pool.decode(tmp_path / "3.png").pixels[0, 0, 0]
            pool.close()
            status = 0 if alone and answer == 3 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.decode(tmp_path / "4.png").pixels[0, 0, 0] == 4
    assert children() == {worker}
    pool.close()


@contextlib.contextmanager
def as_nobody_in(folder: Path) -> Iterator[None]:
    """Inside `folder` without root's right to read everything (root runs the tests in containers)."""
    folder.chmod(0o755)
    before, user = Path.cwd(), os.geteuid()
    os.chdir(folder)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        os.chdir(before)


def test_reasons_of_read_file(tmp_path):
    (tmp_path / "closed.jpg").write_bytes(b"x")
    (tmp_path / "closed.jpg").chmod(0)
    (tmp_path / "link.jpg").symlink_to("closed.jpg")
    os.mkfifo(tmp_path / "fifo.jpg", 0o644)
    (tmp_path / "dir.jpg").mkdir()
    with open(tmp_path / "huge.jpg", "wb") as sparse:
        sparse.truncate(3 << 29)
    reasons = {
        b"closed.jpg": "permission denied",
        b"link.jpg": "symbolic link",
        b"fifo.jpg": "not a regular file",
        b"dir.jpg": "not a regular file",
        b"none.jpg": "no longer there",
        b"huge.jpg": r"1\.5 GB, over the limit of 1 GB",
    }
    for name, reason in reasons.items():
        with as_nobody_in(tmp_path), pytest.raises(UnreadableImage, match=reason):
            read_file(name)
