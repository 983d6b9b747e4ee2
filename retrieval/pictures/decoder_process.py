"""One decoding process, as seen from the main process: how it starts, what it shares, how it ends.

Why not multiprocessing's spawn, ProcessPoolExecutor or pebble: their children import the user's `__main__` again (and
with it torch), and one dead child breaks a ProcessPoolExecutor. Here each worker is a plain child process with a socket
for small messages and shared memory for pixels, so that large data cannot be left half sent. Workers are in their own
process group, which Ctrl-C does not reach. If this process dies, they exit when the socket closes; a stopped one is
then ended by the kernel, which sends SIGHUP to orphaned process groups.
"""

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import diffsim

from ..errors import RetrievalError

_BOOT = (
    "import json, sys; path, settings = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from diffsim.retrieval.pictures.decode_worker import main; main(*settings)"
)


class NoDecoder(RetrievalError):
    """Decoding processes do not start, so pictures cannot be read."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Pictures cannot be decoded, because the processes for that do not start ({why}); "
            f"see what `{sys.executable} -m diffsim.retrieval.pictures.decode_worker` says, and whether memory is left."
        )


@dataclass(frozen=True, eq=False)
class DecoderProcess:
    """`connection`: jobs go in, answers come out; `pixels`: uint8 [slots, size, size, 3], RGB, which it fills."""

    process: subprocess.Popen[bytes]
    connection: Connection
    pixels: np.ndarray

    @classmethod
    def start(cls, slots: int, size: int, memory_bytes: int, patience_s: float, fit: str) -> "DecoderProcess":
        """patience_s: how long it may work on one file after this process has died. Raises NoDecoder."""
        try:
            return cls._start(slots, size, memory_bytes, patience_s, fit)
        except OSError as problem:
            raise NoDecoder(problem.strerror or str(problem)) from problem

    @classmethod
    def _start(cls, slots: int, size: int, memory_bytes: int, patience_s: float, fit: str) -> "DecoderProcess":
        nbytes = slots * size**2 * 3
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryFile() if sys.platform != "linux" else open(os.memfd_create("pixels"), "w+b") as file:
            with theirs:
                file.truncate(nbytes)
                settings = (theirs.fileno(), file.fileno(), slots, size, memory_bytes, patience_s, fit)
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps([_import_path(), settings])],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), file.fileno()),
                    process_group=0,
                    # Threads and their memory pools would take address space that is meant for pictures.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
                )
            pixels = np.frombuffer(mmap.mmap(file.fileno(), nbytes), np.uint8)
        return cls(process, Connection(ours.detach()), pixels.reshape(slots, size, size, 3))

    def end(self) -> int | None:
        """Kill it, which loses nothing; returns its exit status, or None if the kernel cannot end it yet."""
        self.connection.close()
        self.process.kill()
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:  # blocked on a dead network disk: waiting is useless
            return None

    def forget(self) -> None:
        """In a forked child: release what belongs to the parent."""
        self.connection.close()
        self.process.poll()  # not a child of ours: from now on Popen treats it as ended


def _import_path() -> list[str]:
    """This process's import path, so that a worker finds the same modules, wherever the program was started."""
    project = str(Path(diffsim.__file__).parent.parent)
    path = [folder or project for folder in sys.path]
    return path if project in path else [*path, project]


def cause_of_death(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed the decoder (signal {-status})"
    return f"ended the decoder (exit status {status})"
