"""Flip bits in the files of an index, or cut them short, and see what becomes of questions, `verify` and `index`.

    python benchmarks/torture.py --flips 1000 --cuts 200

Every trial takes a sound index, harms one of its files, asks it, verifies it, and where something was found runs
`diffsim index` and asks again, each in a process of its own. No answer may show a picture with another one's score;
what is missing must be noted, or found by `verify`; after that and a run all is as it was, or one sentence says what to
do. Prints how often each outcome was seen, and every trial that went wrong; the exit status says whether there was one.
"""

import os
import pickle
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

import diffsim
from benchmarks.kills import TOLERANCE, draw_pictures, in_child
from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import verify_index
from diffsim.indexer.requests import requested_spaces

MEMORY = 2**30

Scores = dict[str, float]


@dataclass(frozen=True)
class Harm:
    """What is done to a file: one bit is flipped, or it is cut to a number of bytes."""

    file: Path  # relative to the index
    bit: int | None = None
    length: int | None = None

    def do(self, index: Path) -> None:
        path = index / self.file
        if self.length is not None:
            os.truncate(path, self.length)
        else:
            assert self.bit is not None
            with open(path, "r+b") as file:
                file.seek(self.bit // 8)
                (byte,) = file.read(1)
                file.seek(self.bit // 8)
                file.write(bytes([byte ^ 1 << self.bit % 8]))

    def __str__(self) -> str:
        return f"{self.file} " + (f"cut to {self.length} bytes" if self.bit is None else f"bit {self.bit} flipped")


@dataclass(frozen=True)
class Outcome:
    """How a step ended: `done` with a value, `sentence`, `traceback` or `crash` with a text."""

    how: str
    value: object


@dataclass(frozen=True)
class Trial:
    """asked, verified, mended: a word for each step. wrong: what must never happen, empty if all is well."""

    harm: Harm
    asked: str
    verified: str
    mended: str
    wrong: str


@dataclass(frozen=True)
class Ground:
    """A sound index of a gallery, and what it answers."""

    index: Path
    gallery: Path
    model: str
    truth: list[Scores]

    @classmethod
    def lay(cls, work: Path, model: str, pictures: int) -> "Ground":
        gallery, index = work / "gallery", work / "index"
        draw_pictures(gallery, range(pictures))
        ground = cls(index, gallery, model, [])
        ground.run(index)  # in this process, so that all is imported before the children are forked
        return cls(index, gallery, model, [scores for scores, _ in ground.ask(index)])

    def run(self, index: Path) -> None:
        requests = requested_spaces(self.model, ["look"], size=64, tier="fp32")
        options = IndexOptions(workers=1, batch_size=8, device="cpu")
        index_folders(IndexFolder.create(index), [self.gallery], requests, options)

    def ask(self, index: Path) -> list[tuple[Scores, list[str]]]:
        with diffsim.open(index, "cpu") as searcher:
            found = []
            for picture in sorted(self.gallery.iterdir())[:2]:
                answer = searcher.answer(diffsim.Query(picture, k=1000, include_self=True))
                found.append(({hit.path: hit.score for hit in answer.hits}, answer.notes))
            return found

    def trial(self, harm: Harm, index: Path) -> Trial:
        """index: a place for the harmed copy."""
        shutil.rmtree(index, ignore_errors=True)
        shutil.copytree(self.index, index)
        harm.do(index)
        asked = in_process(lambda: self.ask(index))
        answer = self._judged(asked)
        verified = in_process(lambda: verify(index))
        if verified.how == "done" and not verified.value:
            wrong = "" if answer.startswith("right") else f"{answer}, and verify found nothing"
            return Trial(harm, answer, "clean", "-", _gravest(asked, verified) or _grave(answer) or wrong)
        found = "found" if verified.how == "done" else verified.how
        again = in_process(lambda: self.run(index))
        after = in_process(lambda: self.ask(index))
        mended = self._judged(after) if again.how == "done" else again.how
        unmended = verified.how == "done" and mended not in ("right", "sentence") and f"not mended: {mended}"
        wrong = _gravest(asked, verified, again, after) or _grave(answer) or unmended or ""
        return Trial(harm, answer, found, mended, wrong)

    def _judged(self, asked: Outcome) -> str:
        """An answer in a few words."""
        if asked.how != "done":
            return asked.how
        kinds = set()
        for truth, (scores, notes) in zip(self.truth, asked.value, strict=True):  # type: ignore[call-overload]
            noted = "noted" if notes else "without a note"
            if any(path not in truth or abs(score - truth[path]) > TOLERANCE for path, score in scores.items()):
                kinds.add(f"wrong, {noted}")
            elif scores.keys() != truth.keys():
                kinds.add(f"less, {noted}")
            else:
                kinds.add("right, noted" if notes else "right")
        return min(kinds, key=_KINDS.index)


_KINDS = [
    "wrong, without a note",
    "wrong, noted",
    "less, without a note",
    "less, noted",
    "right, noted",
    "right",
]


def _grave(answer: str) -> str:
    return answer if answer.startswith("wrong") else ""


def _gravest(*outcomes: Outcome) -> str:
    return next((f"{each.how}: {each.value}" for each in outcomes if each.how in ("crash", "traceback")), "")


def verify(index: Path) -> bool:
    """Whether anything that matters was found, and mended as far as it can be."""
    found = verify_index(IndexFolder.open(index), MEMORY)
    return bool(found.fault) or any(space.damaged or space.rebuilt for space in found.spaces)


def in_process(work: Callable[[], object]) -> Outcome:
    """Do it in a child, which may crash."""
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile("w+") as errors:

        def child() -> None:
            os.dup2(errors.fileno(), 2)
            try:
                outcome = Outcome("done", work())
            except diffsim.Error as problem:
                outcome = Outcome("sentence", str(problem))
            pickle.dump(outcome, answer)
            answer.flush()

        _, status = os.waitpid(in_child(child), 0)
        answer.seek(0)
        errors.seek(0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return Outcome("crash", f"signal {-code}")
        if code:
            return Outcome("traceback", errors.read().strip()[-600:])
        outcome: Outcome = pickle.load(answer)
        return outcome


def harms(index: Path, flips: int, cuts: int, seed: int, only: str = "") -> Iterator[Harm]:
    """Spread evenly over the files that matter, so that small ones have their share; the places are random, three of
    four among bytes that are not zero, because most of a small database is empty."""
    chance = random.Random(seed)
    files = [path.relative_to(index) for path in sorted(index.rglob(f"*{only}*" if only else "*")) if path.is_file()]
    files = [file for file in files if file.name not in ("writer.lock", "lock.mdb") and (index / file).stat().st_size]
    for number in range(flips):
        file = files[number % len(files)]
        data = (index / file).read_bytes()
        places = [place for place, byte in enumerate(data) if byte] if number % 4 else range(len(data))
        yield Harm(file, bit=8 * chance.choice(places) + chance.randrange(8))
    for number in range(cuts):
        file = files[number % len(files)]
        yield Harm(file, length=chance.randrange((index / file).stat().st_size))


def table(trials: Sequence[Trial]) -> Iterator[str]:
    """Counts by kind of file and outcome."""
    counts = Counter(
        (
            trial.harm.file.suffix,
            "flip" if trial.harm.length is None else "cut",
            trial.asked,
            trial.verified,
            trial.mended,
        )
        for trial in trials
    )
    yield f"{'file':14}{'harm':6}{'question':24}{'verify':12}{'after index':14}trials"
    for (kind, harm, asked, verified, mended), count in sorted(counts.items()):
        yield f"{kind:14}{harm:6}{asked:24}{verified:12}{mended:14}{count:6}"


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n", 1))
@click.option("--flips", default=1000, show_default=True, help="Bits to flip.")
@click.option("--cuts", default=200, show_default=True, help="Files to cut short.")
@click.option("--pictures", default=24, show_default=True)
@click.option("--model", default="mini", show_default=True, help="A preset or a network's folder.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", help="Harm only files with this in their name.")
def main(flips: int, cuts: int, pictures: int, model: str, seed: int, only: str) -> None:
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        ground = Ground.lay(Path(name), model, pictures)
        trials = []
        for harm in harms(ground.index, flips, cuts, seed, only):
            trials.append(ground.trial(harm, Path(name) / "harmed"))
            if trials[-1].wrong:
                click.echo(f"WRONG {harm}: {trials[-1].wrong}")
    click.echo("\n".join(table(trials)))
    wrong = sum(bool(trial.wrong) for trial in trials)
    click.echo(f"{len(trials)} trials, {wrong} of them wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
