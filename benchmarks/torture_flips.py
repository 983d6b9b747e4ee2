"""Bits flipped in the files of an index, and files cut short: what becomes of questions, `verify` and `index`.

Every trial takes a sound index, harms one of its files, asks it, verifies it, and where something was found runs
`diffsim index` and asks again, each in a process of its own. No answer may show a picture with another one's score;
what is missing must be noted, or found by `verify`; after that and a run all is as it was, or one sentence says what to
do.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torture_ground import Count, Ground, Outcome, in_process, verify


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
class Trial:
    """asked, verified, mended: a word for each step. wrong: what must never happen, empty if all is well."""

    harm: Harm
    asked: str
    verified: str
    mended: str
    wrong: str


def attempt(ground: Ground, harm: Harm, index: Path) -> Trial:
    """index: a place for the harmed copy."""
    shutil.rmtree(index, ignore_errors=True)
    shutil.copytree(ground.index, index)
    harm.do(index)
    asked = in_process(lambda: ground.ask(index))
    answer = ground.judged(asked)
    verified = in_process(lambda: verify(index))
    if verified.how == "done" and not verified.value:
        wrong = "" if answer.startswith("right") else f"{answer}, and verify found nothing"
        return Trial(harm, answer, "clean", "-", _gravest(asked, verified) or _grave(answer) or wrong)
    found = "found" if verified.how == "done" else verified.how
    again = in_process(lambda: ground.run(index))
    after = in_process(lambda: ground.ask(index))
    mended = ground.judged(after) if again.how == "done" else again.how
    unmended = verified.how == "done" and mended not in ("right", "sentence") and f"not mended: {mended}"
    wrong = _gravest(asked, verified, again, after) or _grave(answer) or unmended or ""
    return Trial(harm, answer, found, mended, wrong)


def _grave(answer: str) -> str:
    return answer if answer.startswith("wrong") else ""


def _gravest(*outcomes: Outcome) -> str:
    return next((f"{each.how}: {each.value}" for each in outcomes if each.how in ("crash", "traceback")), "")


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


def part(ground: Ground, work: Path, chosen: Iterable[Harm], name: str) -> tuple[Count, list[Trial]]:
    """All harms, one after the other. work: a folder for harmed copies."""
    count = Count(name)
    trials = []
    for harm in chosen:
        trial = attempt(ground, harm, work / "harmed")
        trials.append(trial)
        count.tried += 1
        if trial.wrong:
            count.add(_kind(trial.wrong), f"{harm}: {trial.wrong}")
    return count, trials


def _kind(wrong: str) -> str:
    kinds = {"wrong": "shifted", "less": "silent", "not mended": "lost"}
    return next((kind for start, kind in kinds.items() if wrong.startswith(start)), "tracebacks")
