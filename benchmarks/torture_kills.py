"""SIGKILL at random moments of everything that writes, and of the decoding processes.

Each trial kills one kind of work, asks the index as it was left, does the work again, and compares with an index in
which it was never broken off: the same ids, features and ranks, nothing lost, nothing twice, `verify` clean.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from kills import Kill, Scenario, differences, in_child, prepare, run, run_and_kill
from torture_ground import MEMORY, SIZE, Count, Scores, ask, in_process, shifted

from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import prune_index, verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.query.web.runs import Runs

KINDS = ("index", "update", "prune", "verify", "FAISS rebuild", "run from the page", "decoder")


@dataclass(frozen=True)
class Work:
    """What is killed. before: the index that it starts with; do: the work; after: the index when it was not killed;
    seconds: how long it takes."""

    before: Path
    do: Callable[[Path], object]
    after: Path
    seconds: float


def truths(update: Scenario, pictures: Sequence[Path]) -> list[list[Scores]]:
    """What an index may answer before and after an update."""
    assert update.before is not None
    return [[scores for scores, _ in ask(index, pictures)] for index in (update.before, update.after)]


class Killing:
    """Everything that the trials need, made once. model: of the networks that the command knows, or a folder."""

    def __init__(self, work: Path, model: str, pictures: int, seed: int) -> None:
        self.work, self.model, self.chance = work, model, random.Random(seed)
        self.first, self.update = prepare(work, model, SIZE, pictures)
        self.gallery = self.update.gallery
        self.pictures = [self.gallery / "000.png", self.gallery / "004.png"]
        self.truths = truths(self.update, self.pictures)
        self.works = {name: self._timed(*each) for name, each in self._works()}

    def _works(self) -> Iterator[tuple[str, tuple[Path, Callable[[Path], object]]]]:
        yield "prune", (self.update.after, lambda index: prune_index(IndexFolder.open(index), MEMORY))
        damaged = self.work / "damaged"
        shutil.copytree(self.first.after, damaged)
        with (damaged / "catalog.sqlite").open("r+b") as catalog:  # an index of SQLite's own
            at = catalog.read().rindex(b"moved.png")
            catalog.seek(at)
            catalog.write(b"m\xefved.png")
        yield "verify", (damaged, self._verify_and_run)
        bare = self.work / "bare"
        shutil.copytree(self.first.after, bare)
        for file in bare.rglob("recall-*"):
            file.unlink()
        yield "FAISS rebuild", (bare, lambda index: verify_index(IndexFolder.open(index), MEMORY))

    def _verify_and_run(self, index: Path) -> None:
        verify_index(IndexFolder.open(index), MEMORY)
        index_folders(IndexFolder.open(index), [self.gallery], (), IndexOptions(workers=1, device="cpu"))

    def _timed(self, before: Path, do: Callable[[Path], object]) -> Work:
        after = self.work / "unbroken" / str(len(list((self.work / "unbroken").glob("*"))))
        shutil.copytree(before, after)
        started = time.monotonic()
        _finished(in_child(lambda: do(after)))
        return Work(before, do, after, time.monotonic() - started)

    def trial(self, kind: str, count: Count) -> None:
        """One kill of one kind; what went wrong goes into `count`."""
        count.tried += 1
        index = self.work / "killed"
        shutil.rmtree(index, ignore_errors=True)
        try:
            after = self._killed(kind, index, count)
            found = in_process(lambda: differences(after, index))
        except RuntimeError as problem:
            count.add("tracebacks", f"{kind}: {problem}")
            return
        if found.how != "done":
            count.add("tracebacks", f"{kind}: {found.value}")
        for difference in found.value if found.how == "done" else ():  # type: ignore[attr-defined]
            moved = any(word in difference for word in ("rank", "other hits", "differ"))
            count.add("shifted" if moved else "lost", f"{kind}: {difference}")

    def _killed(self, kind: str, index: Path, count: Count) -> Path:
        """Kill the work, ask, do it again -> the index to compare with."""
        if kind in ("index", "update"):
            scenario = self.first if kind == "index" else self.update
            if scenario.before:
                shutil.copytree(scenario.before, index)
            step = self.chance.randrange(len(scenario.steps))
            kill = Kill(scenario, step, self.chance.random() * scenario.gaps[step])
            run_and_kill(index, self.gallery, self.model, SIZE, kill)
            self._asked(kind, index, count)
            run(index, self.gallery, self.model, SIZE)
            return scenario.after
        if kind == "run from the page":
            assert self.update.before is not None
            shutil.copytree(self.update.before, index)
            self._kill_the_pages_run(index)
            self._asked(kind, index, count)
            run(index, self.gallery, self.model, SIZE)
            return self.update.after
        if kind == "decoder":
            self._kill_a_decoder(index, count)
            return self.first.after
        work = self.works[kind]
        shutil.copytree(work.before, index)
        child = in_child(lambda: work.do(index))
        time.sleep(self.chance.random() * work.seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self._asked(kind, index, count)
        _finished(in_child(lambda: work.do(index)))
        return work.after

    def _asked(self, kind: str, index: Path, count: Count) -> None:
        """What is left may answer with less, never with anything else."""
        asked = in_process(lambda: ask(index, self.pictures))
        if asked.how in ("crash", "traceback"):
            count.add("tracebacks", f"{kind}, asked: {asked.value}")
        elif shifted(self.truths, asked):
            count.add("shifted", f"{kind}, asked before it was done again")

    def _kill_the_pages_run(self, index: Path) -> None:
        """At a moment after it has begun to write, while the page asks for its state."""
        with closing(Runs(IndexFolder.open(index))) as runs:
            runs.start(None, None)
            folder, started = IndexFolder.open(index), time.monotonic()
            while folder.being_written() is None and time.monotonic() - started < 60:
                time.sleep(0.01)
            time.sleep(self.chance.random() * sum(self.update.gaps))
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process().children():
                    if "index" in child.cmdline():
                        child.kill()
            while (state := runs.state()) and state.state == "running":
                time.sleep(0.01)

    def _kill_a_decoder(self, index: Path, count: Count) -> None:
        """It may cost the one picture that it had; the run goes on, and a run that tries again has it."""
        options = IndexOptions(workers=1, batch_size=2, commit_seconds=0, device="cpu", shard_pictures=5)

        def work(options: IndexOptions = options) -> None:
            requests = requested_spaces(self.model, ["look"], size=SIZE, tier="fp32")
            index_folders(IndexFolder.create(index), [self.gallery], requests, options)

        child = in_child(work)
        time.sleep(self.chance.random() * sum(self.first.gaps))
        with suppress(psutil.NoSuchProcess):
            for decoder in psutil.Process(child).children():
                decoder.kill()
        _finished(child)
        with IndexFolder.open(index).catalog(readonly=True) as catalog:
            failed = [each for each in catalog.status().failed if not each.path.endswith(b"broken.png")]
        if len(failed) > 1 or any("killed the decoder" not in each.reason for each in failed):
            count.add("lost", f"decoder: {failed}")
        again = IndexOptions(workers=1, batch_size=2, device="cpu", shard_pictures=5, retry_failed=True)
        _finished(in_child(lambda: work(again)))


def _finished(child: int) -> None:
    """Raises RuntimeError if it ended with an error; its traceback is on stderr."""
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"work that was not killed ended with status {os.waitstatus_to_exitcode(status)}")


def part(work: Path, model: str, pictures: int, kills: int, seed: int) -> Count:
    """Kills of every kind in turn."""
    count = Count("kills")
    work.mkdir()
    killing = Killing(work, model, pictures, seed)
    tried = dict.fromkeys(KINDS, 0)
    for number in range(kills):
        kind = KINDS[number % len(KINDS)]
        tried[kind] += 1
        killing.trial(kind, count)
    count.facts = ", ".join(f"{number} {kind}" for kind, number in tried.items() if number)
    return count
