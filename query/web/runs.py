"""Indexing from the page: one child process, `diffsim index` or `diffsim prune`.

Its progress is read from the catalog, as for a run that was started elsewhere; its messages are kept.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

import diffsim
from diffsim.indexer.index_folder import IndexFolder

from .problems import Problem

_PATIENCE_S = 20.0
_LINES = 200
# A server that was started in the background ignores Ctrl-C, and its children would too. The signal stays blocked until
# something handles it: while it starts, Python itself would answer with a traceback.
_BOOT = """
import signal, sys
sys.argv[0] = "diffsim"
try:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    from diffsim.query.cli import main
    main()
except KeyboardInterrupt:
    sys.exit("Interrupted; nothing had been done yet.")
"""


Task = Literal["index", "prune"]


@dataclass(frozen=True)
class Run:
    """The state of a run. task: the command. root: id of the folder, and folder: its path; None for all. started: ISO
    8601, UTC. seconds: how long it has taken. lines: its messages, as they came."""

    task: Task
    root: int | None
    folder: bytes | None
    state: Literal["running", "stopping", "done", "stopped", "failed"]
    started: str
    seconds: float
    lines: tuple[str, ...]


class _Child:
    """A started run."""

    def __init__(
        self, index: Path, task: Task, root: int | None, folder: bytes | None, profiles: Sequence[str]
    ) -> None:
        self.task, self.root, self.folder = task, root, folder
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.began = time.monotonic()
        self.ended: float | None = None
        self.stopping = False
        self.lines: deque[str] = deque(maxlen=_LINES)
        line: list[str | bytes] = [sys.executable, "-c", _BOOT, task]
        line += [part for profile in profiles for part in ("--by", profile)]
        line += [] if folder is None else ["--", folder]
        project = str(Path(diffsim.__file__).parent.parent)
        paths = os.pathsep.join([project, *filter(None, [os.environ.get("PYTHONPATH")])])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # of this thread; the child inherits it
        try:
            self.process = subprocess.Popen(
                [*line[:4], "--index", os.fsencode(index), *line[4:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
                env={**os.environ, "PYTHONPATH": paths},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        streams = self.process.stdout, self.process.stderr
        self.readers = [threading.Thread(target=self._keep, args=(stream,), daemon=True) for stream in streams]
        for reader in self.readers:
            reader.start()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def state(self) -> Run:
        code = self.process.poll()
        if code is not None and self.ended is None:
            self.ended = time.monotonic()
            for reader in self.readers:  # for its last messages; a process that it left could keep a pipe open
                reader.join(1.0)
        seconds = round((self.ended or time.monotonic()) - self.began, 1)
        return Run(self.task, self.root, self.folder, self._name(code), self.started, seconds, tuple(self.lines))

    def _name(self, code: int | None) -> Literal["running", "stopping", "done", "stopped", "failed"]:
        if code is None:
            return "stopping" if self.stopping else "running"
        return "done" if code == 0 else "stopped" if self.stopping else "failed"

    def _keep(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                if text := line.decode("utf-8", "surrogateescape").rstrip("\n"):
                    self.lines.append(text)


class Runs:
    """At most one run at a time. Safe to use from several threads."""

    def __init__(self, index: IndexFolder) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def start(
        self, root: int | None = None, folder: bytes | None = None, profiles: Sequence[str] = (), task: Task = "index"
    ) -> Run:
        """Index a folder, or all that the index knows, in spaces of further profiles too; or prune. Raises Problem
        while a run is going on."""
        with self._lock:
            if self._child is not None and self._child.running:
                raise Problem(409, "An indexing run is going on already; wait until it ends, or stop it.")
            self._child = _Child(self._index.path, task, root, folder, profiles)
            return self._child.state()

    def stop(self) -> Run:
        """Interrupt the run as Ctrl-C does: what is done is kept. Raises Problem if this page runs none."""
        with self._lock:
            child = self._child
            if child is None or not child.running:
                raise Problem(409, "This page has no indexing run to stop.")
            child.stopping = True
            threading.Thread(target=child.interrupt, daemon=True).start()
            return child.state()

    def close(self) -> None:
        """End a run with the page."""
        if self._child is not None and self._child.running:
            self._child.interrupt()

    def state(self) -> Run | None:
        """The run that is going on, or the last one; None if there was none."""
        with self._lock:
            return self._child.state() if self._child is not None else None

    def writer(self) -> str | None:
        """Who else is writing to the index now, in words; None if nobody, or this page's own run."""
        return None if self._child is not None and self._child.running else self._index.being_written()
