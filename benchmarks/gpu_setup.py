"""What the parts of gpu.py share: where they compute, how they take time, and pictures on the disk."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

T = TypeVar("T")

Row = dict[str, Any]
"""One line of a table: plain values, for JSON."""

Part = Callable[["Setup"], Iterator[Row]]
"""Gives its rows as it goes: those before a failure are kept."""

TINY = Path(__file__).parent.parent / "tests" / "data" / "tiny-sd15"


@dataclass(frozen=True)
class Setup:
    """device: `cuda`, `cuda:N` or `cpu`. quick: tiny sizes. scratch: a folder for everything that is written."""

    device: str
    quick: bool
    scratch: Path

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def number(self) -> int:
        """Of the GPU."""
        return torch.device(self.device).index or 0

    @property
    def workers(self) -> int:
        """Decoding processes: a GPU waits for four."""
        return 1 if self.quick else min(16, os.cpu_count() or 1)

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        """Median over so many calls, with the GPU's work done."""
        return statistics.median(self.timed(work)[1] for _ in range(times))

    def timed(self, work: Callable[..., T], *arguments: object) -> tuple[T, float]:
        """What a call gives, and its seconds with the GPU's work done."""
        self.wait()
        started = time.perf_counter()
        found = work(*arguments)
        self.wait()
        return found, time.perf_counter() - started

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def peak_gb(self, work: Callable[[], object]) -> float | None:
        """GPU memory that the work takes at most, with what is held already; None on a CPU."""
        if not self.on_gpu:
            work()
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)

    def fresh(self, name: str) -> Path:
        """A path below scratch where nothing is."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        return path

    def jpegs(self, name: str, count: int, seed: int = 0) -> Path:
        """A folder of that many different JPEGs, made once: soft colours under grain, 3 megapixels or tiny ones."""
        folder = self.scratch / f"{name}-{count}"
        if not folder.exists():
            unfinished = self.fresh(f"{folder.name}.part")
            unfinished.mkdir()
            side = (160, 120) if self.quick else (2048, 1536)
            grain = np.random.default_rng(seed).normal(0, 6, (side[1], side[0], 1))
            for number in range(count):
                draw(np.random.default_rng((seed, number)), side, grain).save(
                    unfinished / f"{number:05d}.jpg", quality=90
                )
            unfinished.rename(folder)
        return folder


def draw(generator: np.random.Generator, side: tuple[int, int], grain: np.ndarray) -> Image.Image:
    """A picture of that width and height."""
    colours = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8)).resize(side, Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(colours) + grain, 0, 255).astype(np.uint8))


def ms(seconds: float) -> float:
    """Milliseconds to three digits."""
    return float(f"{1e3 * seconds:.3g}")
