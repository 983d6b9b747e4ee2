"""The program of a decoding process: reads files, checks their hash, returns pixels. Started by `decode_pool`.

Loads Pillow and numpy, never torch: a worker starts in a fraction of a second and takes some 40 MB. Answers are JSON
and raw pixels, never a pickle: a decoder taken over by a hostile picture cannot run code in the main process.
"""

import hashlib
import json
import mmap
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import numpy as np
from PIL import AvifImagePlugin

from ..regular_files import MAX_FILE_BYTES, open_regular, plain_reason, read_whole
from .images import DecodedPicture, UnreadableImage, decode


def read_file(path: bytes) -> bytes:
    """All bytes of a regular file. Does not follow a link in the last part of the path and never waits for a FIFO.

    Raises UnreadableImage ("permission denied", "no longer there", ...).
    """
    try:
        with open_regular(path) as file:
            return read_opened(file.fileno())
    except OSError as error:
        raise UnreadableImage(plain_reason(error)) from None


def read_opened(descriptor: int) -> bytes:
    """All bytes of an open file. Raises UnreadableImage."""
    size = os.fstat(descriptor).st_size
    if size > MAX_FILE_BYTES:
        raise UnreadableImage(f"{size / 2**30:,.1f} GB, over the limit of {MAX_FILE_BYTES >> 30} GB")
    try:
        return read_whole(descriptor)
    except OSError as error:
        raise UnreadableImage(plain_reason(error)) from None


def main(
    connection_fd: int, pixels_fd: int, slots: int, size: int, memory_bytes: int, patience_s: float, fit: str
) -> None:
    """Serve jobs (slot, path, sha256, whether a descriptor follows, which is read instead of the path) until the other
    end closes. Pixels go to their slot of the shared memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pixels = np.frombuffer(mmap.mmap(pixels_fd, slots * size * size * 3), np.uint8).reshape(slots, size, size, 3)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one core per worker, and each thread takes address space
    _limit_memory(memory_bytes)
    connection = Connection(connection_fd)
    try:
        connection.send_bytes(b'"ready"')
        # From here on, stderr would only carry messages of C libraries (libtiff, libpng) about unusual files.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while True:
            slot, path, sha256, opened = connection.recv()
            descriptor = recv_handle(connection) if opened else None
            connection.send_bytes(b'"begun"')
            # The main process enforces the time limit. If it dies, the kernel ends this process, even in a C loop.
            signal.setitimer(signal.ITIMER_REAL, patience_s)
            answer, picture = _answer(path, descriptor, sha256, size, fit, memory_bytes)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if picture is not None:
                pixels[slot] = picture.pixels
            connection.send_bytes(json.dumps(answer).encode())
    except (EOFError, ConnectionError):
        return


def _answer(
    path: bytes, descriptor: int | None, sha256: bytes, size: int, fit: str, memory_bytes: int
) -> tuple[dict[str, Any], DecodedPicture | None]:
    try:
        if descriptor is None:
            data = read_file(path)
        else:
            with open(descriptor, "rb"):
                data = read_opened(descriptor)
        if sha256 and hashlib.sha256(data).digest() != sha256:
            return {"changed": True}, None
        picture = decode(data, size, fit)
    except UnreadableImage as error:
        return {"failed": str(error)}, None
    except MemoryError:
        return {"failed": f"needs more than {memory_bytes // 10**6:,} MB of memory"}, None
    facts = {"format": picture.format, "width": picture.width, "height": picture.height, "taken_ns": picture.taken_ns}
    return facts | {"metadata": picture.metadata.as_message()}, picture


def _limit_memory(memory_bytes: int) -> None:
    """Limit this process to `memory_bytes` more than it has now (Linux; macOS has no such limit)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
