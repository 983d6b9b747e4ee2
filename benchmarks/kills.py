"""Kill an indexing run again and again, run it once more each time, and compare with an unbroken run.

    python benchmarks/kills.py --kills 100

Two runs are broken off in turn: a first one, and an update after files were added, changed, moved and deleted. Half of
the kills come directly after a commit, half at some moment before the next one, both spread evenly over the commits of
the writing part; every named step is met. Then the same ids, features (tokens to 1e-5 relative in fp32, descriptors to
one unit in the last place of fp16), ranks (except among scores closer than 1e-5), nothing lost, nothing twice, `verify`
clean.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # the runs are forked, and a forked child has no other threads

import numpy as np
from PIL import Image

import diffsim
from diffsim.db.changes import SpaceChanges
from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.tiers import decode_tokens

TOLERANCE = 1e-5
SHARD_PICTURES = 5
"""So few that every run fills several shards, and some of its commits two."""
STEPS = (
    "root committed",
    "files committed",
    "missing committed",
    "features stored",
    "features committed",
    "recall written",
    "recall committed",
)


@dataclass(frozen=True)
class Scenario:
    """A run to break off. before: the index that it starts with, None for a first run. after: the same run unbroken.
    steps: its commits in their order. gaps: seconds from each of them to the next."""

    name: str
    gallery: Path
    before: Path | None
    after: Path
    steps: list[str]
    gaps: list[float]


@dataclass(frozen=True)
class Kill:
    """Directly after commit number `step` (from 0), or `delay` seconds later."""

    scenario: Scenario
    step: int
    delay: float | None = None

    def __str__(self) -> str:
        when = "directly" if self.delay is None else f"{1000 * self.delay:.1f} ms"
        return f"{when} after commit {self.step} ({self.scenario.steps[self.step]})"


def draw_pictures(folder: Path, numbers: range) -> None:
    """Different small pictures of smooth colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        colours = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(colours).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")


def prepare(work: Path, model: str, size: int, pictures: int) -> list[Scenario]:
    """Two scenarios with their unbroken runs."""
    gallery = work / "gallery"
    draw_pictures(gallery, range(pictures // 2))
    run(work / "before", gallery, model, size)
    draw_pictures(gallery / "more", range(pictures // 2, pictures))
    shutil.copy(gallery / "000.png", gallery / "more" / "copy.png")
    (gallery / "001.png").rename(gallery / "moved.png")
    (gallery / "002.png").unlink()
    shutil.copy(gallery / "more" / f"{pictures - 1:03d}.png", gallery / "003.png")
    (gallery / "broken.png").write_bytes((gallery / "004.png").read_bytes()[:40])
    time.sleep(2.1)  # else a file could be too young for its stat to be trusted
    scenarios = []
    for name, before in (("first run", None), ("update", work / "before")):
        after = work / f"after {name}"
        if before:
            shutil.copytree(before, after)
        steps = run(after, gallery, model, size)
        moments = [moment for _, moment in steps]
        gaps = [later - earlier for earlier, later in pairwise([*moments, moments[-1] + 0.05])]
        scenarios.append(Scenario(name, gallery, before, after, [name for name, _ in steps], gaps))
    return scenarios


def run(index: Path, gallery: Path, model: str, size: int) -> list[tuple[str, float]]:
    """Index the gallery with very many commits, in a child -> its steps and when they were done."""
    read_end, write_end = os.pipe()
    child = in_child(lambda: _index(index, gallery, model, size, write_end))
    os.close(write_end)
    with open(read_end) as lines:
        steps = [line.rstrip("\n").split("\t") for line in lines]
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the run on {index} ended with status {status}")
    return [(name, float(moment)) for name, moment in steps]


def run_and_kill(index: Path, gallery: Path, model: str, size: int, kill: Kill) -> int:
    """As `run`, but killed -> how many commits it got through."""
    read_end, write_end = os.pipe()
    die_at = kill.step if kill.delay is None else None
    child = in_child(lambda: _index(index, gallery, model, size, write_end, die_at))
    os.close(write_end)
    with open(read_end) as lines:
        commits = 0
        if kill.delay is not None:
            while commits <= kill.step and lines.readline():
                commits += 1
            time.sleep(kill.delay)
            os.kill(child, signal.SIGKILL)
        commits += len(lines.read().splitlines())
    os.waitpid(child, 0)
    return commits


def _index(index: Path, gallery: Path, model: str, size: int, pipe: int, die_at: int | None = None) -> None:
    done = 0

    def on_step(name: str) -> None:
        nonlocal done
        os.write(pipe, f"{name}\t{time.monotonic()}\n".encode())
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    index_folders(
        IndexFolder.create(index),
        [gallery],
        requested_spaces(model, ["look"], size=size, tier="fp32"),
        IndexOptions(workers=1, batch_size=2, commit_seconds=0, device="cpu", shard_pictures=SHARD_PICTURES),
        on_step=on_step,
    )


def in_child(work: Callable[[], object]) -> int:
    """Fork a child that does the work and ends with status 0, or 1 after printing a traceback -> its process id."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, of which one waits for nothing here
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def kills(scenario: Scenario, count: int) -> Iterator[Kill]:
    """Half of them directly after a commit, half between two; the first occurrence of every named step comes first."""
    named = [scenario.steps.index(name) for name in STEPS if name in scenario.steps]
    spread = max(0, count // 2 - len(named))
    for step in [*named, *(int((number + 0.5) / spread * len(scenario.steps)) for number in range(spread))]:
        yield Kill(scenario, step)
    between = count - len(named) - spread
    for number in range(between):
        step, share = divmod((number + 0.5) / between * len(scenario.steps), 1)
        yield Kill(scenario, int(step), share * scenario.gaps[int(step)])


def try_kill(work: Path, kill: Kill, model: str, size: int) -> tuple[int, list[str]]:
    """Kill a run, run it again -> (commits before the kill, what is different from the unbroken run)."""
    index = work / "killed"
    shutil.rmtree(index, ignore_errors=True)
    if kill.scenario.before:
        shutil.copytree(kill.scenario.before, index)
    commits = run_and_kill(index, kill.scenario.gallery, model, size, kill)
    run(index, kill.scenario.gallery, model, size)
    return commits, differences(kill.scenario.after, index)


def differences(unbroken: Path, other: Path) -> list[str]:
    """Everything in which two indexes of the same pictures differ, as sentences."""
    ours, theirs = _files(unbroken), _files(other)
    if ours != theirs:
        return [f"files or ids differ: {sorted(ours.items() ^ theirs.items())[:4]}"]
    with diffsim.open(unbroken, "cpu") as a, diffsim.open(other, "cpu") as b:
        (space,), spaces = a.spaces(), b.spaces()
        if [space.fingerprint] != [each.fingerprint for each in spaces]:
            return ["the feature spaces differ"]
        found = _feature_differences(a.index, b.index, space.fingerprint)
        present = [os.fsdecode(path) for path, (_, failure) in sorted(ours.items()) if failure is None]
        for picture in present[:: max(1, len(present) // 6)]:
            for exact in (False, True):
                query = diffsim.Query(picture, k=1000, exact=exact, include_self=True)
                found += _rank_differences(picture, a.answer(query).hits, b.answer(query).hits)
    (checked,) = verify_index(IndexFolder.open(other), 2**30).spaces
    if checked.damaged or checked.orphans or checked.rebuilt:
        found.append(f"verify is not clean: {checked}")
    return found


def _files(index: Path) -> dict[bytes, tuple[int | None, str | None]]:
    """Path -> (content id, failure) of every file that the catalog knows."""
    with IndexFolder.open(index).catalog(readonly=True) as catalog:
        status = {failed.path: failed.reason for failed in catalog.status().failed}
        rows = {}
        for root in catalog.roots():
            for row in catalog.files.below(root.id, b""):
                path = os.path.join(root.path, row.path)
                rows[path] = (row.content_id, "missing" if row.missing else status.get(path))
        return rows


def _feature_differences(ours: IndexFolder, theirs: IndexFolder, fingerprint: str) -> list[str]:
    contents = [_indexed(index, fingerprint) for index in (ours, theirs)]
    for name in ("ids", "sha256", "shards", "visible"):
        if not np.array_equal(getattr(contents[0], name), getattr(contents[1], name)):
            return [f"the {name} of the indexed contents differ"]
    hashes = contents[0].hashes()
    found: list[str] = []
    for shard in np.unique(contents[0].shards).tolist():
        wanted = {
            content_id: hashes[content_id] for content_id in contents[0].ids[contents[0].shards == shard].tolist()
        }
        found += _store_differences(ours, theirs, fingerprint, shard, wanted)
    return found


def _indexed(index: IndexFolder, fingerprint: str) -> SpaceChanges:
    with index.catalog(readonly=True) as catalog:
        (space,) = (space for space in catalog.spaces() if space.fingerprint == fingerprint)
        return catalog.indexed(space.id)


def _store_differences(
    ours: IndexFolder, theirs: IndexFolder, fingerprint: str, shard: int, wanted: dict[int, bytes]
) -> list[str]:
    found: list[str] = []
    stores = [index.store(fingerprint, shard, readonly=True) for index in (ours, theirs)]
    kit = SpaceKit.load(ours.space(fingerprint))
    if stores[1].ids().tolist() != sorted(wanted):
        found.append(f"shard {shard} holds other ids than the catalog")
    descriptors = [store.descriptors(wanted)[1] for store in stores]
    if descriptors[0].shape != descriptors[1].shape:
        return [*found, "descriptors are lost"]
    unit = np.spacing(np.abs(descriptors[0]).astype(np.float16)).astype(np.float32)
    if np.any(np.abs(descriptors[0].astype(np.float32) - descriptors[1].astype(np.float32)) > 1.01 * unit):
        found.append("descriptors differ")
    for (content_id, one), (_, two) in zip(stores[0].tokens(wanted), stores[1].tokens(wanted), strict=True):
        for x, y in zip(*(decode_tokens([record], kit.shapes, "fp32") for record in (one, two)), strict=True):
            if float((x - y).norm() / x.norm()) > TOLERANCE:
                found.append(f"tokens of {content_id} differ")
    for store in stores:
        store.close()
    return found


def _rank_differences(picture: str, ours: list[diffsim.Hit], theirs: list[diffsim.Hit]) -> list[str]:
    ranks = {hit.content_id: hit.rank for hit in theirs}
    scores = np.array([hit.score for hit in ours])
    if set(ranks) != {hit.content_id for hit in ours}:
        return [f"{picture}: other hits"]
    for hit in ours:
        near = np.flatnonzero(np.abs(scores - hit.score) <= TOLERANCE) + 1
        if not near.min() <= ranks[hit.content_id] <= near.max():
            return [f"{picture}: content {hit.content_id} has rank {ranks[hit.content_id]} instead of {hit.rank}"]
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--model", default="mini", help="a preset or a folder")
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    bad = 0
    where: Counter[tuple[str, str]] = Counter()
    work = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        scenarios = prepare(work, arguments.model, arguments.size, arguments.pictures)
        for number, scenario in enumerate(scenarios):
            print(f"{scenario.name}: {len(scenario.steps)} commits in {sum(scenario.gaps):.2f} s")
            for kill in kills(scenario, arguments.kills // 2 + (number < arguments.kills % 2)):
                commits, found = try_kill(work, kill, arguments.model, arguments.size)
                last = scenario.steps[commits - 1] if commits else "-"
                last = last if commits < len(scenario.steps) else "end of the run"
                where[scenario.name, last] += 1
                bad += bool(found)
                for difference in found:
                    print(f"  WRONG {scenario.name}, killed {kill}: {difference}")
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    print(f"\n{'run':10} {'last commit before the kill':28} kills")
    for (name, last), count in where.items():
        print(f"{name:10} {last:28} {count:5}")
    print(f"\n{where.total()} kills, {bad} of them with a difference from the unbroken run")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
