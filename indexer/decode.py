"""Decode pictures in worker processes, where a hostile or broken file costs that one file.

Why not multiprocessing's spawn, ProcessPoolExecutor or pebble: their children import the user's `__main__` again (and
with it torch), and one dead child breaks a ProcessPoolExecutor. Here each worker is a plain child process with a socket
for small messages and shared memory for pixels, so that nothing large can be left half sent. This side keeps the time:
it kills a worker and starts another. Workers sit in a process group of their own, which Ctrl-C does not reach. They end
with the pool or, should this process die, at the end of the socket; one that is stopped is then ended by the kernel,
which hangs up on orphaned process groups.
"""

import contextlib
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from retrieval.images import Picture, UnreadableImage

_JOBS_PER_WORKER = 3
"""One in work and two waiting, so that a worker goes on while the results are being used."""
_START_S = 60.0
_MOST_LOSSES = 3
_MAX_MESSAGE = 1 << 16

_BOOT = (
    "import json, sys; path, numbers = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from indexer.decode_worker import main; main(*numbers)"
)


@dataclass(frozen=True)
class Job:
    """A file to decode. `path`: absolute; `sha256`: what the bytes must have, or empty for whatever they are."""

    content_id: int
    path: bytes
    sha256: bytes


@dataclass(frozen=True)
class Decoded:
    """`pixels`: uint8 [size, size, 3], RGB; `width`, `height`: of the whole picture, upright."""

    job: Job
    pixels: np.ndarray
    format: str
    width: int
    height: int


@dataclass(frozen=True)
class Failed:
    job: Job
    reason: str


@dataclass(frozen=True)
class Changed:
    """The file does not hold the bytes that were hashed. Nothing of it was decoded."""

    job: Job


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    pixels: np.ndarray
    deadline: float
    started: bool = False
    begun: bool = False  # the first of `jobs` is in work, not just sent
    sent: int = 0
    jobs: deque[Job] = field(default_factory=deque)  # in the order of the answers


class DecodePool:
    """Up to `workers` processes that decode to size x size, by the fit (see retrieval.images.decode); each file may
    take `timeout_s` seconds and `memory_bytes` (on Linux). Workers start when there is work for them and are kept
    between runs. Use as a context manager."""

    def __init__(self, workers: int, size: int, timeout_s: float, memory_bytes: int, fit: str = "squash") -> None:
        if workers < 1 or size < 1 or timeout_s <= 0 or memory_bytes < 1:
            raise ValueError(f"{workers=}, {size=}, {timeout_s=} and {memory_bytes=} must all be above 0")
        self._most_workers = workers
        self._size = size
        self._fit = fit
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._workers: list[_Worker] = []
        self._running = False
        self._losses = 0  # workers lost in a row without having begun a job

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers[:]:
            self._end(worker)

    def run(self, jobs: Iterable[Job]) -> Iterator[Decoded | Failed | Changed]:
        """One result per job, in order of completion. Takes at most 3 jobs per worker in advance of the results.

        One run at a time. Raises RuntimeError if workers do not start at all.
        """
        if self._running:
            raise RuntimeError("this pool is still busy with another run")
        self._running = True
        source = iter(jobs)
        again: deque[Job] = deque()  # sent to a worker that was lost before it came to them
        answers: deque[Decoded | Failed | Changed] = deque()
        try:
            while True:
                pending = len(answers) + sum(len(worker.jobs) for worker in self._workers)
                while pending < self._most_workers * _JOBS_PER_WORKER:
                    job = again.popleft() if again else next(source, None)
                    if job is None:
                        break
                    self._send(job)
                    pending += 1
                if not pending:
                    return
                if not answers:
                    self._collect(answers, again)
                else:
                    yield answers.popleft()
        finally:
            self._running = False
            for worker in self._workers[:]:
                if worker.jobs:  # the run was broken off: its late answers must not reach the next run
                    self._end(worker)

    def _send(self, job: Job) -> None:
        freest = min(self._workers, key=lambda worker: len(worker.jobs), default=None)
        if freest is None or (freest.jobs and len(self._workers) < self._most_workers):
            freest = self._start()
            self._workers.append(freest)
        elif not freest.jobs:
            freest.deadline = time.monotonic() + (self._timeout_s if freest.started else _START_S)
        freest.jobs.append(job)
        with contextlib.suppress(OSError):  # it is dead: _collect finds out, and that this job was never begun
            freest.connection.send((freest.sent % _JOBS_PER_WORKER, job.path, job.sha256))
        freest.sent += 1

    def _collect(self, answers: deque[Decoded | Failed | Changed], again: deque[Job]) -> None:
        """Wait for news or a deadline, then take in all news."""
        busy = [worker for worker in self._workers if worker.jobs]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        # A consumer that was away for long comes back to passed deadlines: news counts before them.
        ready = wait([worker.connection for worker in busy], max(0.0, patience))
        for worker in busy:
            reason = None
            if worker.connection in ready:
                if self._take_news(worker, answers):
                    continue
            elif time.monotonic() < worker.deadline:
                continue
            else:
                reason = f"took longer than {self._timeout_s:g} s"
            status = self._end(worker)
            if worker.begun:
                answers.append(Failed(worker.jobs.popleft(), reason or _cause_of_death(status)))
            else:
                self._losses += 1
            again.extendleft(reversed(worker.jobs))
            worker.jobs.clear()
            if self._losses >= _MOST_LOSSES:
                raise RuntimeError(f"decoding processes do not start ({_cause_of_death(status)})")

    def _take_news(self, worker: _Worker, answers: deque[Decoded | Failed | Changed]) -> bool:
        """Read all messages; False if the worker is dead or talks nonsense."""
        try:
            while worker.connection.poll():
                message = json.loads(worker.connection.recv_bytes(_MAX_MESSAGE))
                worker.deadline = time.monotonic() + self._timeout_s
                worker.started = True
                worker.begun = message == "begun"
                if worker.begun:
                    self._losses = 0
                elif message != "ready":
                    answers.append(self._result(worker, message))
                    worker.jobs.popleft()
        except (EOFError, OSError, ValueError, LookupError, TypeError):
            return False
        return True

    def _result(self, worker: _Worker, message: dict[str, str]) -> Decoded | Failed | Changed:
        """The first job's, from the worker's answer to it."""
        slot = (worker.sent - len(worker.jobs)) % _JOBS_PER_WORKER
        job = worker.jobs[0]
        if "changed" in message:
            return Changed(job)
        if "failed" in message:
            return Failed(job, message["failed"])
        pixels = worker.pixels[slot].copy()
        return Decoded(job, pixels, message["format"], int(message["width"]), int(message["height"]))

    def _start(self) -> _Worker:
        nbytes = _JOBS_PER_WORKER * self._size**2 * 3
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryFile() if sys.platform != "linux" else open(os.memfd_create("pixels"), "w+b") as file:
            with theirs:
                file.truncate(nbytes)
                numbers = (theirs.fileno(), file.fileno(), _JOBS_PER_WORKER, self._size, self._memory_bytes)
                arguments = json.dumps([_import_path(), [*numbers, 2 * self._timeout_s + 10, self._fit]])
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BOOT, arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), file.fileno()),
                    process_group=0,
                    # Threads and their memory pools would take address space that the limit means for pictures.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
                )
            pixels = np.frombuffer(mmap.mmap(file.fileno(), nbytes), np.uint8)
        shape = (_JOBS_PER_WORKER, self._size, self._size, 3)
        return _Worker(process, Connection(ours.detach()), pixels.reshape(shape), time.monotonic() + _START_S)

    def _end(self, worker: _Worker) -> int | None:
        """Kill a worker, as it has nothing to save -> its exit status, or None if the kernel cannot end it yet."""
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.kill()
        try:
            return worker.process.wait(5)
        except subprocess.TimeoutExpired:  # waits for a dead network disk: no use waiting with it
            return None


def decode_file(
    path: str | os.PathLike[str],
    size: int,
    fit: str = "squash",
    *,
    timeout_s: float = 60,
    memory_bytes: int = 2 * 10**9,
) -> Picture:
    """Decode one picture in a worker of its own, with the same guards; links are followed, as a person names the file.

    Raises UnreadableImage.
    """
    job = Job(0, os.fsencode(os.path.realpath(path)), b"")
    with DecodePool(1, size, timeout_s, memory_bytes, fit) as pool:
        (result,) = pool.run([job])
    if not isinstance(result, Decoded):
        reason = result.reason if isinstance(result, Failed) else "it changed while it was read"
        raise UnreadableImage(f"Cannot read {os.fsdecode(path)}: {reason}.")
    return Picture(result.pixels, result.format, result.width, result.height)


def _import_path() -> list[str]:
    """This process's import path, so that a worker finds what was found here, wherever the program was started."""
    project = str(Path(__file__).resolve().parent.parent)
    path = [folder or project for folder in sys.path]
    return path if project in path else [*path, project]


def _cause_of_death(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed the decoder (signal {-status})"
    return f"ended the decoder (exit status {status})"
