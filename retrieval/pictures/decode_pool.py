"""Decodes pictures in worker processes, so that a hostile or broken file affects only that file.

The main process enforces the time limit: it kills a worker and starts another. `decoder_process` starts workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.reduction import send_handle
from typing import Any, Self

import numpy as np
from PIL import Image

from .decoder_process import DecoderProcess, NoDecoder, cause_of_death
from .images import DecodedPicture, UnreadableImage, inside_size
from .metadata import NOTHING_SAID, Metadata

_JOBS_PER_WORKER = 3
"""One in progress and two waiting, so that a worker stays busy while the results are being used."""
_START_S = 60.0
_MOST_LOSSES = 3
_MAX_MESSAGE = 1 << 21
"""Bytes: more than the longest metadata take as JSON."""


@dataclass(frozen=True)
class Job:
    """A file to decode. `path`: absolute, links are not followed; `sha256`: the expected hash of its bytes, or empty to
    accept any; `descriptor`: of an open file, which is read instead of the path."""

    content_id: int
    path: bytes
    sha256: bytes
    descriptor: int | None = None


@dataclass(frozen=True)
class Decoded:
    """`pixels`: uint8 [size, size, 3], RGB; `width`, `height`: of the whole picture, upright; `taken_ns`: its own date,
    in nanoseconds since 1970, if it has one; `metadata`: what else its file says of it."""

    job: Job
    pixels: np.ndarray
    format: str
    width: int
    height: int
    taken_ns: int | None = None
    metadata: Metadata = NOTHING_SAID


@dataclass(frozen=True)
class Failed:
    job: Job
    reason: str


@dataclass(frozen=True)
class Changed:
    """The file no longer holds the bytes that were hashed. It was not decoded."""

    job: Job


def why_not(result: Failed | Changed) -> str:
    """The reason for a missing picture, worded for the end of a sentence."""
    return result.reason if isinstance(result, Failed) else "it changed while it was read"


@dataclass(eq=False)
class _Worker:
    decoder: DecoderProcess
    deadline: float
    started: bool = False
    begun: bool = False  # the first of `jobs` is in progress, not just sent
    sent: int = 0
    jobs: deque[Job] = field(default_factory=deque)  # in the order of the answers


class DecodePool:
    """Up to `workers` processes that decode to size x size, by the fit (see images.decode); each file may
    take `timeout_s` seconds and `memory_bytes` (on Linux).

    Workers start when there is work and are kept between runs, until the pool is closed (or garbage-collected, or the
    program ends); a closed pool starts new ones when it is used again. A forked child has none.
    """

    def __init__(
        self, workers: int, size: int, timeout_s: float = 60, memory_bytes: int = 2 * 10**9, fit: str = "squash"
    ) -> None:
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
        weakref.finalize(self, _end_all, self._workers)
        _pools.add(self)

    def close(self) -> None:
        """End the workers. Closing twice is harmless."""
        _end_all(self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def decode(self, path: str | os.PathLike[str]) -> DecodedPicture:
        """Decode one picture; links are followed, because the user named the file. Raises as `decode_job`."""
        return self.decode_job(Job(0, os.fsencode(os.path.realpath(path)), b""), os.fsdecode(path))

    def decode_job(self, job: Job, name: str) -> DecodedPicture:
        """Decode one picture. name: for errors. Raises UnreadableImage, NoDecoder."""
        (result,) = self.run([job])
        if not isinstance(result, Decoded):
            raise UnreadableImage(f"Cannot read {name}: {why_not(result)}.")
        size = result.width, result.height
        return DecodedPicture(result.pixels, result.format, *size, result.taken_ns, result.metadata)

    def run(self, jobs: Iterable[Job]) -> Iterator[Decoded | Failed | Changed]:
        """One result per job, in order of completion. Takes at most 3 jobs per worker ahead of the results.

        One run at a time. Raises NoDecoder if workers do not start at all.
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
                if worker.jobs:  # the run was aborted: its late answers must not reach the next run
                    self._end(worker)

    def _send(self, job: Job) -> None:
        freest = min(self._workers, key=lambda worker: len(worker.jobs), default=None)
        if freest is None or (freest.jobs and len(self._workers) < self._most_workers):
            freest = self._start()
            self._workers.append(freest)
        elif not freest.jobs:
            freest.deadline = time.monotonic() + (self._timeout_s if freest.started else _START_S)
        freest.jobs.append(job)
        slot, opened = freest.sent % _JOBS_PER_WORKER, job.descriptor is not None
        with contextlib.suppress(OSError):  # it is dead: _collect detects that, and that this job never began
            freest.decoder.connection.send((slot, job.path, job.sha256, opened))
            if job.descriptor is not None:
                send_handle(freest.decoder.connection, job.descriptor, freest.decoder.process.pid)
        freest.sent += 1

    def _collect(self, answers: deque[Decoded | Failed | Changed], again: deque[Job]) -> None:
        """Wait for messages or a deadline, then process all messages."""
        busy = [worker for worker in self._workers if worker.jobs]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        # A consumer that was away for long returns to expired deadlines: process messages before them.
        ready = wait([worker.decoder.connection for worker in busy], max(0.0, patience))
        for worker in busy:
            reason = None
            if worker.decoder.connection in ready:
                if self._take_news(worker, answers):
                    continue
            elif time.monotonic() < worker.deadline:
                continue
            else:
                reason = f"took longer than {self._timeout_s:g} s"
            status = self._end(worker)
            if worker.begun:
                answers.append(Failed(worker.jobs.popleft(), reason or cause_of_death(status)))
            else:
                self._losses += 1
            again.extendleft(reversed(worker.jobs))
            worker.jobs.clear()
            if self._losses >= _MOST_LOSSES:
                self._losses = 0
                raise NoDecoder(cause_of_death(status))

    def _take_news(self, worker: _Worker, answers: deque[Decoded | Failed | Changed]) -> bool:
        """Read all messages; False if the worker is dead or sends invalid data."""
        try:
            while worker.decoder.connection.poll():
                message = json.loads(worker.decoder.connection.recv_bytes(_MAX_MESSAGE))
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

    def _result(self, worker: _Worker, message: dict[str, Any]) -> Decoded | Failed | Changed:
        """The first job's result, from the worker's answer."""
        slot = (worker.sent - len(worker.jobs)) % _JOBS_PER_WORKER
        job = worker.jobs[0]
        if "changed" in message:
            return Changed(job)
        if "failed" in message:
            return Failed(job, message["failed"])
        pixels = worker.decoder.pixels[slot].copy()
        taken_ns = None if message["taken_ns"] is None else int(message["taken_ns"])
        if taken_ns is not None and not -(2**63) <= taken_ns < 2**63:
            raise ValueError(f"{taken_ns=}")
        size = int(message["width"]), int(message["height"])
        return Decoded(job, pixels, message["format"], *size, taken_ns, Metadata.from_message(message["metadata"]))

    def _start(self) -> _Worker:
        patience = 2 * self._timeout_s + 10
        decoder = DecoderProcess.start(_JOBS_PER_WORKER, self._size, self._memory_bytes, patience, self._fit)
        return _Worker(decoder, time.monotonic() + _START_S)

    def _end(self, worker: _Worker) -> int | None:
        self._workers.remove(worker)
        return worker.decoder.end()


def decode_whole(job: Job, name: str) -> Image.Image:
    """The whole upright picture at full scale, RGB, decoded in a process of its own. Raises UnreadableImage."""
    with DecodePool(1, 1, fit="inside") as probe:
        sides = probe.decode_job(job, name)
    side = max(sides.width, sides.height)
    with DecodePool(1, side, fit="inside") as pool:
        found = pool.decode_job(job, name)
    width, height = inside_size(found.width, found.height, side)
    return Image.fromarray(found.pixels[:height, :width])


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().decoder.end()


_pools: weakref.WeakSet[DecodePool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in _pools:
        for worker in pool._workers:
            worker.decoder.forget()
        pool._workers.clear()


os.register_at_fork(after_in_child=_forget_all)
