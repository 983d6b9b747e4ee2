"""Disks that become full: an index grows on one that is too small by a little or by much, then there is room again.

As root on Linux the disk is a small tmpfs. Elsewhere no file may grow beyond a size, which is much the same to a
program. The run must end in one sentence, or be whole; the index can be asked; when there is room the same run makes it
whole.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kills import Scenario, differences, prepare, run
from torture_ground import SIZE, Count, Outcome, ask, in_process, shifted
from torture_kills import truths

from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces

_SMALLEST = 64 * 1024


def part(work: Path, model: str, pictures: int, disks: int) -> Count:
    """First runs and updates in turn, each on a disk of another size, evenly spread up to what the index takes."""
    count = Count("full disks")
    work.mkdir()
    scenarios = prepare(work, model, SIZE, pictures)
    asking = [scenarios[0].gallery / "000.png", scenarios[0].gallery / "004.png"]
    known = truths(scenarios[1], asking)
    ended = dict.fromkeys(("one sentence", "whole"), 0)
    whole = sum(path.stat().st_blocks * 512 for path in scenarios[0].after.rglob("*"))
    least = sum(path.stat().st_blocks * 512 for path in (work / "before").rglob("*"))
    for number in range(disks):
        scenario = scenarios[number % 2]
        low = least if scenario.before else _SMALLEST
        room = low + int((whole - low) * (number + 0.5) / disks)
        kept = work / "kept"
        ran, asked = _on_a_small_disk(work / "disk", room, scenario, model, asking, kept)
        what = f"{scenario.name} on {room // 1024} KB"
        count.tried += 1
        ended["one sentence" if ran.how == "sentence" else "whole"] += 1
        for outcome in (ran, asked):
            if outcome.how in ("traceback", "crash"):
                count.add("tracebacks", f"{what}: {outcome.value}")
        if shifted(known, asked):
            count.add("shifted", what)
        try:
            run(kept, scenario.gallery, model, SIZE)
            for difference in differences(scenario.after, kept):
                count.add("lost", f"{what}: {difference}")
        except RuntimeError as problem:
            count.add("tracebacks", f"{what}, with room again: {problem}")
    count.facts = f"{ended['one sentence']} ended in one sentence, {ended['whole']} had room enough"
    return count


def _on_a_small_disk(
    place: Path, room: int, scenario: Scenario, model: str, asking: Sequence[Path], kept: Path
) -> tuple[Outcome, Outcome]:
    """A run there and questions to what it left, of which a copy is kept."""
    index = place / "index"
    place.mkdir(exist_ok=True)
    with small_disk(place, room) as limited:
        shutil.rmtree(index, ignore_errors=True)
        if scenario.before:
            shutil.copytree(scenario.before, index)
        ran = in_process(lambda: limited(lambda: _run(index, scenario.gallery, model)))
        asked = in_process(lambda: ask(index, asking))
        shutil.rmtree(kept, ignore_errors=True)
        if index.exists():
            shutil.copytree(index, kept)
    return ran, asked


def _run(index: Path, gallery: Path, model: str) -> None:
    options = IndexOptions(workers=1, batch_size=2, commit_seconds=0, device="cpu", shard_pictures=5)
    with IndexFolder.begin(index) as begun:
        index_folders(begun, [gallery], requested_spaces(model, ["look"], size=SIZE, tier="fp32"), options)


@contextmanager
def small_disk(place: Path, room: int) -> Iterator[Callable[[Callable[[], object]], object]]:
    """Mounts it; yields a function that does work under what limits there are."""
    if sys.platform == "linux" and os.geteuid() == 0:
        size = f"size={room // 1024}k"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], capture_output=True, check=False)
        if mounted.returncode == 0:
            try:
                yield lambda work: work()
            finally:
                subprocess.run(["umount", "-l", place], check=True)
            return

    def limited(work: Callable[[], object]) -> object:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room // 4, room // 4))
        return work()

    yield limited
