"""Threads for what takes time, so that no kind of request waits for a slower kind, and none waits too long.

Searches with features that are at hand run in one lane, extraction (a network's pass, seconds on a CPU) in another,
decoding for display in a third. A Searcher belongs to one thread at a time: the searching lane has one for each of its
threads, which share the memory-mapped files, and the extracting lane has its own.
"""

import asyncio
import os
import queue
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

from starlette.requests import Request

from diffsim.indexer.index_folder import IndexFolder

from ..search import Searcher
from .problems import Problem

T = TypeVar("T")

_PATIENCE_S = 8.0
"""Who would wait longer for an answer is told to come back."""
_DECODING_PATIENCE_S = 30.0
_EXTRACTING_PATIENCE_S = 120.0
"""A large network takes many seconds for a picture on a CPU."""
_RETRY_AFTER_S = 5
_MOST_SEARCHING = 4
_PAIRS = 8


class Lane:
    """A few threads with a queue, which is bounded by the time that it takes."""

    def __init__(self, name: str, threads: int, patience_s: float = _PATIENCE_S) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._free = asyncio.Semaphore(threads)
        self._count = threads
        self._patience_s = patience_s
        self._waiting = 0
        self._took = 0.0
        """Seconds of a piece of work, a moving mean."""

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Raises Problem if the lane is too busy."""
        async with self._turn() as submit:
            return await asyncio.wrap_future(submit(work, *arguments))

    async def run_if_wanted(self, request: Request, work: Callable[..., T], *arguments: Any) -> T | None:
        """None if the client disconnected before its turn; fast scrolling abandons many requests."""
        async with self._turn() as submit:
            if await request.is_disconnected():
                return None
            return await asyncio.wrap_future(submit(work, *arguments))

    async def stream(self, request: Request, work: Callable[[Callable[[T], None]], None]) -> AsyncGenerator[T]:
        """Yields what `work` passes to its argument, as soon as it does; raises what `work` raises. Nothing if the
        client disconnected before its turn."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[T | None] = asyncio.Queue()

        def put(item: T | None) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        def run() -> None:
            try:
                work(put)
            finally:
                put(None)

        async with self._turn() as submit:
            if await request.is_disconnected():
                return
            running = submit(run)
            try:
                while (item := await items.get()) is not None:
                    yield item
                await asyncio.wrap_future(running)
            finally:
                running.cancel()  # if the client has disconnected and it has not begun

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Callable[..., "Future[Any]"]]:
        """Wait for a free thread; yields what starts work in it, once."""
        if self._waiting * self._took / self._count > self._patience_s:
            raise _busy()
        self._waiting += 1
        try:
            # Its own work counts too, but however long work takes, there is some time to wait.
            async with asyncio.timeout(max(self._patience_s - self._took, self._patience_s / 2)):
                await self._free.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        started: list[Future[Any]] = []

        def submit(work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
            began = time.monotonic()

            def done(_: object) -> None:
                self._took += (time.monotonic() - began - self._took) / 8
                with suppress(RuntimeError):  # the server has ended
                    loop.call_soon_threadsafe(self._free.release)

            started.append(self._threads.submit(work, *arguments))
            started[0].add_done_callback(done)  # a client that leaves does not end the work
            return started[0]

        try:
            yield submit
        finally:
            if not started:
                self._free.release()

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def _busy() -> Problem:
    return Problem(503, "The page is busy with many questions; ask again in a few seconds.", _RETRY_AFTER_S)


class Asker:
    """A searcher, and the last pairs of indexed pictures that it compared, for a pointer that moves over them."""

    def __init__(self, index: IndexFolder, device: str) -> None:
        self.searcher = Searcher(index.path, device)
        self.indexed_pair = lru_cache(_PAIRS)(self.searcher.pair)


class Lanes:
    """extracting: of one thread, which alone may use `extractor`. decoding: of two."""

    def __init__(self, index: IndexFolder, device: str) -> None:
        # Each searcher has processes of its own in a cluster, and there a question uses all cores.
        threads = 1 if index.cluster else min(_MOST_SEARCHING, max(2, os.cpu_count() or 1))
        self._searching = Lane("searching", threads)
        self._free: queue.LifoQueue[Asker] = queue.LifoQueue()
        self._askers = [Asker(index, device) for _ in range(threads)]
        for asker in reversed(self._askers):
            self._free.put(asker)
        self.extracting = Lane("extracting", 1, _EXTRACTING_PATIENCE_S)
        self.decoding = Lane("decoding", 2, _DECODING_PATIENCE_S)
        self.extractor = Searcher(index.path, device)

    async def ask(self, work: Callable[[Asker], T]) -> T:
        """Run `work` in the searching lane. Raises Problem if the lane is too busy."""
        return await self._searching.run(self._with_asker, work)

    def asked(self, request: Request, work: Callable[[Asker, Callable[[T], None]], None]) -> AsyncGenerator[T]:
        """The same for answers in several steps, see `Lane.stream`."""
        return self._searching.stream(request, lambda put: self._with_asker(lambda asker: work(asker, put)))

    def _with_asker(self, work: Callable[[Asker], T]) -> T:
        asker = self._free.get()
        try:
            return work(asker)
        finally:
            self._free.put(asker)

    def close(self) -> None:
        for lane in (self._searching, self.extracting, self.decoding):
            lane.close()
        for searcher in (self.extractor, *(asker.searcher for asker in self._askers)):
            searcher.close()
