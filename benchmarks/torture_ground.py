"""A sound index to be harmed, what it answers, and work in a process of its own that may crash."""

import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kills import TOLERANCE, draw_pictures, in_child

import diffsim
from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import verify_index
from diffsim.indexer.requests import requested_spaces

MEMORY = 2**30
SIZE = 128

Scores = dict[str, float]
Answers = list[tuple[Scores, list[str]]]


@dataclass
class Count:
    """What became of one part of the torture. lost: something that had been there is not, after all was mended.
    shifted: a picture under another one's score. silent: less than there is, without a word. tracebacks: or a crash.
    wrong: each of these in words. facts: figures beside the counts."""

    part: str
    tried: int = 0
    lost: int = 0
    shifted: int = 0
    silent: int = 0
    tracebacks: int = 0
    wrong: list[str] = field(default_factory=list)
    facts: str = ""

    def add(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.wrong.append(f"{self.part}: {kind}: {what}")


@dataclass(frozen=True)
class Outcome:
    """How a step ended: `done` with a value, `sentence`, `traceback` or `crash` with a text."""

    how: str
    value: object


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

    def run(self, index: Path, folder: Path | None = None) -> None:
        """folder: else the gallery."""
        requests = requested_spaces(self.model, ["look"], size=SIZE, tier="fp32")
        options = IndexOptions(workers=1, batch_size=8, device="cpu")
        index_folders(IndexFolder.create(index), [folder or self.gallery], requests, options)

    def ask(self, index: Path) -> Answers:
        return ask(index, sorted(self.gallery.iterdir())[:2])

    def judged(self, asked: Outcome) -> str:
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


def ask(index: Path, pictures: Sequence[Path]) -> Answers:
    """All hits of each picture with their scores, and the notes."""
    with diffsim.open(index, "cpu") as searcher:
        found = []
        for picture in pictures:
            answer = searcher.answer(diffsim.Query(picture, k=1000, include_self=True))
            found.append(({hit.path: hit.score for hit in answer.hits}, answer.notes))
        return found


def shifted(truths: Sequence[Sequence[Scores]], asked: Outcome) -> bool:
    """Whether any picture is under a score that it has in none of the truths."""
    answers: Answers = asked.value if asked.how == "done" else []  # type: ignore[assignment]
    for number, (scores, _) in enumerate(answers):
        known = [truth[number] for truth in truths]
        for path, score in scores.items():
            if not any(abs(score - right[path]) <= TOLERANCE for right in known if path in right):
                return True
    return False


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
            except (diffsim.Error, OSError) as problem:  # what the command tells in a sentence
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
