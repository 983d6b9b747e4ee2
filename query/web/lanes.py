"""Threads for what takes time, so that no kind of request waits for a slower kind.

Searches with features that are at hand run in one lane, extraction (a network's pass, seconds on a CPU) in another,
decoding for display in a third. A Searcher belongs to one thread: each of the first two lanes has its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from diffsim.indexer.index_folder import IndexFolder

from ..search import Searcher

T = TypeVar("T")


class Lane:
    """A few threads with a queue."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._turn = asyncio.Semaphore(threads)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def run_if_wanted(self, request: Request, work: Callable[..., T], *arguments: Any) -> T | None:
        """None if the client disconnected before its turn; fast scrolling abandons many requests."""
        async with self._turn:
            if await request.is_disconnected():
                return None
            return await self.run(work, *arguments)

    async def stream(self, work: Callable[[Callable[[T], None]], None]) -> AsyncGenerator[T]:
        """Yields what `work` passes to its argument, as soon as it does; raises what `work` raises."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[T | None] = asyncio.Queue()

        def put(item: T | None) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        def run() -> None:
            try:
                work(put)
            finally:
                put(None)

        running = loop.run_in_executor(self._threads, run)
        try:
            while (item := await items.get()) is not None:
                yield item
            await running
        finally:
            running.cancel()  # if the client has disconnected and it has not begun

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


class Lanes:
    """searching, extracting: of one thread each, which alone may use `searcher` or `extractor`. decoding: of two."""

    def __init__(self, index: IndexFolder, device: str) -> None:
        self.searching = Lane("searching", 1)
        self.extracting = Lane("extracting", 1)
        self.decoding = Lane("decoding", 2)
        self.searcher = Searcher(index.path, device)
        self.extractor = Searcher(index.path, device)

    def close(self) -> None:
        for lane in (self.searching, self.extracting, self.decoding):
            lane.close()
        self.searcher.close()
        self.extractor.close()
