"""Guarded decoding for display: upright pictures, small enough for a sheet or a browser, from every format that can be
indexed.

Files are decoded in processes of their own, with limits of time and memory, as when they are indexed.
"""

import io
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image

from diffsim.retrieval.pictures.decode_pool import Changed, Decoded, DecodePool, Failed, Job
from diffsim.retrieval.pictures.images import inside_size

THUMBNAIL_SIDE = 384
PREVIEW_SIDE = 1600
FULL_SIDE = 4096
MEDIA_TYPE = "image/webp"

_TIMEOUT_S = 30.0
_MEMORY = 2 * 10**9
_QUALITY = {THUMBNAIL_SIDE: 78, PREVIEW_SIDE: 88, FULL_SIDE: 90}


class Decoders:
    """Safe to use from several threads: each borrows a process that decodes to the size it needs."""

    def __init__(self, workers: int) -> None:
        self._free: dict[int, queue.LifoQueue[DecodePool]] = {}
        for side, most in ((THUMBNAIL_SIDE, workers), (PREVIEW_SIDE, workers), (FULL_SIDE, 1)):
            self._free[side] = queue.LifoQueue()
            for _ in range(most):
                self._free[side].put(DecodePool(1, side, _TIMEOUT_S, _MEMORY, fit="inside"))

    def decode(self, job: Job, side: int) -> Decoded | Failed | Changed:
        """side: THUMBNAIL_SIDE, PREVIEW_SIDE or FULL_SIDE, the most pixels of a side."""
        with self._borrowed(side) as pool:
            (result,) = pool.run([job])
        return result

    @contextmanager
    def _borrowed(self, side: int) -> Iterator[DecodePool]:
        pool = self._free[side].get()
        try:
            yield pool
        finally:
            self._free[side].put(pool)

    def close(self) -> None:
        for free in self._free.values():
            with suppress(queue.Empty):
                while True:
                    free.get_nowait().close()


def picture_of(decoded: Decoded, side: int) -> Image.Image:
    """The decoded picture without the white around it."""
    width, height = inside_size(decoded.width, decoded.height, side)
    return Image.fromarray(decoded.pixels[:height, :width])


def encoded(decoded: Decoded, side: int) -> bytes:
    """The decoded picture as WebP."""
    file = io.BytesIO()
    picture_of(decoded, side).save(file, "WEBP", quality=_QUALITY[side], method=2)
    return file.getvalue()
