"""Indexing from the page: one child process, `diffsim index`, on a folder that the index knows.

Its progress is read from the catalog, as for a run that somebody started elsewhere; what it says is kept.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import diffsim
from diffsim.indexer.index_folder import IndexFolder

from ..text import printable
from .problems import Problem
from .schemas import RunOut

_PATIENCE_S = 20.0
_LINES = 200
# A server that was started in the background ignores Ctrl-C, and so would its children. The signal is blocked until
# somebody is there to take it: Python itself, while it starts, would answer with a traceback.
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


class Runs:
    """At most one run at a time. Safe to use from several threads."""

    def __init__(self, index: IndexFolder) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._run: RunOut | None = None
        self._began = 0.0
        self._stopping = False
        self._lines: deque[str] = deque(maxlen=_LINES)

    def start(self, root: int | None, folder: bytes | None) -> RunOut:
        """Index a folder, or all that the index knows. Raises Problem while a run is going on."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise Problem(409, "An indexing run is going on already; wait for its end, or stop it.")
            line: list[str | bytes] = [sys.executable, "-c", _BOOT, "index"]
            line += [] if folder is None else [folder]
            project = str(Path(diffsim.__file__).parent.parent)
            paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
            before = signal.pthread_sigmask(
                signal.SIG_BLOCK, [signal.SIGINT]
            )  # of this thread, which the child inherits
            try:
                self._process = subprocess.Popen(
                    [*line, "--index", os.fsencode(self._index.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    process_group=0,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TERM": "dumb"},
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._stopping = False
            self._began = time.monotonic()
            self._lines.clear()
            shown = "all folders" if folder is None else printable(os.fsdecode(folder))
            started = datetime.now(UTC).isoformat(timespec="seconds")
            self._run = RunOut(root=root, folder=shown, state="running", started=started, seconds=0, lines=[])
            threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()
        return self.state() or self._run

    def stop(self) -> RunOut:
        """Interrupt the run as Ctrl-C does: what is done is kept. Raises Problem where there is none."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None or self._run is None:
                raise Problem(409, "No indexing run of this page is going on.")
            self._stopping = True
            process.send_signal(signal.SIGINT)
            threading.Thread(target=_end, args=(process,), daemon=True).start()
        return self.state() or self._run

    def close(self) -> None:
        """End a run with the page."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            _end(self._process)

    def state(self) -> RunOut | None:
        with self._lock:
            if self._run is None or self._process is None:
                return None
            if self._run.state in ("running", "stopping"):
                self._run = self._run.model_copy(
                    update={
                        "state": self._now(self._process.poll()),
                        "seconds": round(time.monotonic() - self._began, 1),
                    }
                )
            return self._run.model_copy(update={"lines": list(self._lines)})

    def _now(self, code: int | None) -> str:
        if code is None:
            return "stopping" if self._stopping else "running"
        return "done" if code == 0 else "stopped" if self._stopping else "failed"

    def writer(self) -> str | None:
        """Who else is writing to the index now, in words."""
        if self._process is not None and self._process.poll() is None:
            return None
        try:
            with open(self._index.path / "writer.lock", "rb") as lock:
                # Held for a moment, which a writer that begins just then would take for another one.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            pass
        except OSError:
            return None
        return printable(self._index.writer())

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Take what it says until it ends: the account, and the last line of a problem."""
        assert process.stdout is not None and process.stderr is not None
        threading.Thread(target=self._take, args=(process.stderr,), daemon=True).start()
        self._take(process.stdout)
        process.wait()

    def _take(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                text = printable(raw.decode("utf-8", "surrogateescape").rstrip("\n"))
                if text and not text.startswith("Extracting"):  # the progress bar
                    self._lines.append(text)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
