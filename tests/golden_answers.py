"""Asks the questions of golden_questions.py of a collection that is drawn for them, and writes the answers down.

python tests/golden_answers.py FILE [SOURCE]

test_query_golden.py compares them with tests/data/golden_answers.json. Write that file anew only where an answer is
meant to change: it was written by the version that it names as its source, and shows that later ones answer the same.
"""

import os

# Without the processor's wider instructions every x86 computes the same numbers, to the seventh digit.
os.environ |= {
    "ATEN_CPU_CAPABILITY": "default",
    "FAISS_OPT_LEVEL": "generic",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Prescott",
}

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
from conftest import TINY
from golden_questions import QUESTIONS, SPACES, in_null_spreads
from PIL import Image

from diffsim.db.filters import Filters
from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.query import Answer, Example, Hit, Query
from diffsim.query.search import Searcher
from diffsim.retrieval.drawings.gallery import STYLES, draw

SUBJECTS = {"sea": ("boat", "fish", "house"), "land": ("cat", "mushroom", "car")}
GAP = 1e-5
"""Scores of neighbouring hits are at least this far from each other, or in null spreads (a score divided by a standard
deviation of about 0.01) 100 times as far, so that the noise of another processor exchanges none."""


# ------------------------------------------------------------------------------------------- the collection


def lay_out(folder: Path) -> None:
    """60 drawings in two folders, near and exact copies of a few; beside them two pictures from elsewhere."""
    for where, subjects in SUBJECTS.items():
        (folder / "pictures" / where).mkdir(parents=True)
        for subject in subjects:
            for style in STYLES:
                draw(subject, style, size=96).save(folder / "pictures" / where / f"{subject}-{style}.png")
    (folder / "pictures" / "copies").mkdir()
    copy = partial(_copy, folder / "pictures")
    copy("land/cat-neon.png", "cat-neon-again.jpg", quality=95)
    copy("land/cat-neon.png", "cat-neon-small.png", side=90)
    copy("sea/boat-ink.png", "boat-ink-again.jpg", quality=92)
    copy("sea/fish-glass.png", "fish-glass-small.png", side=88)
    copy("sea/fish-glass.png", "fish-glass-tiny.png", side=72)
    shutil.copy(folder / "pictures/sea/house-poster.png", folder / "pictures/copies/house-poster-same.png")
    (folder / "elsewhere").mkdir()
    draw("cat", "neon", seed=1, size=96).save(folder / "elsewhere" / "cat.png")
    draw("boat", "ink", seed=1, size=96).crop((0, 12, 96, 84)).save(folder / "elsewhere" / "boat.png")
    for path in (folder / "pictures").rglob("*.*"):
        year = 2010 if path.parent.name == "sea" else 2020
        moment = (date(year, 6, 1) - date(1970, 1, 1)).total_seconds()
        os.utime(path, (moment, moment))


def _copy(folder: Path, of: str, name: str, side: int = 96, quality: int = 100) -> None:
    picture = Image.open(folder / of).resize((side, side), Image.Resampling.LANCZOS)
    picture.save(folder / "copies" / name, quality=quality)


def pixels_sha256(folder: Path) -> str:
    """Of all pictures: Pillow and NumPy drew them, and another version or processor may draw them otherwise."""
    digest = hashlib.sha256()
    paths = [path for part in ("pictures", "elsewhere") for path in sorted((folder / part).rglob("*.*"))]
    for path in paths:
        digest.update(np.asarray(Image.open(path).convert("RGB")).tobytes())
    return digest.hexdigest()


def build(folder: Path) -> Path:
    """The index of the collection, all spaces in it."""
    tiny = {"size": 64, "tier": "fp32"}
    requests = requested_spaces(str(TINY), ["style", "instance", "look"], **tiny)
    requests += requested_spaces(str(TINY), ["look"], **tiny | {"tier": "int8"})
    requests += requested_spaces("mini", ["style"])
    options = IndexOptions(workers=1, device="cpu")
    index_folders(IndexFolder.create(folder / "index"), [folder / "pictures"], requests, options)
    return folder / "index"


# ------------------------------------------------------------------------------------------- asking

_FILTERS = ("folders", "min_side", "max_side", "formats")


def ask(searcher: Searcher, folder: Path, question: dict) -> Answer:
    """The one place that says how a question is put to the program."""
    asked = dict(question)
    filters = {name: asked.pop(name) for name in _FILTERS if name in asked}
    filters |= {name: date.fromisoformat(asked.pop(name)) for name in ("after", "before") if name in asked}
    if "folders" in filters:
        filters["folders"] = [folder / name for name in filters["folders"]]
    known = dict(zip(SPACES, searcher.spaces(), strict=True))
    spaces = [known[name].fingerprint for name in asked.pop("spaces")]
    by_id, extracted = asked.pop("by_id", False), asked.pop("extracted", False)

    def subject(picture: str) -> object:
        if by_id:
            (itself,) = searcher.search(folder / picture, include_self=True, k=1)
            return itself.content_id
        return searcher.extract(folder / picture, spaces) if extracted else folder / picture

    examples = [
        Example(subject(one["picture"]), one["weight"], one["region"])  # type: ignore[arg-type]
        for one in asked.pop("examples")
    ]
    few_numbers = asked.pop("few_numbers", False)
    query = Query(examples, spaces=spaces, filters=Filters(**filters), **asked)
    with patch("diffsim.query.stages.EXHAUSTIVE_NUMBERS", 0) if few_numbers else nullcontext():
        return searcher.answer(query)


# ------------------------------------------------------------------------------------------- answers as data


def as_data(folder: Path, answer: Answer) -> dict:
    """An answer without places and ids. A hit is [files, score, by_chance, recall_rank, duplicates]."""

    def files(hit: Hit) -> str:
        return " ".join(os.path.relpath(path, folder / "pictures") for path in hit.paths)

    def row(hit: Hit) -> list:
        chance = None if hit.by_chance is None else float(f"{hit.by_chance:.6g}")
        return [files(hit), round(hit.score, 9), chance, hit.recall_rank, [row(copy) for copy in hit.duplicates]]

    assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))
    assert all(copy.rank == hit.rank for hit in answer.hits for copy in hit.duplicates)
    return {
        "pictures": answer.pictures,
        "recalled": answer.recalled,
        "scored": answer.scored,
        "reranked": answer.reranked,
        "notes": [note.replace(os.fspath(folder), "") for note in answer.notes],
        "hits": [row(hit) for hit in answer.hits],
    }


def close_calls(question: dict, again: Callable[[dict], dict]) -> list[str]:
    """What in an answer the noise of another processor could turn."""
    answer = again({**question, "k": question.get("k", 10) + 1})
    rows = [row for hit in answer["hits"] for row in (hit, *hit[4])]
    scores = sorted((row[1] for row in rows), reverse=True)
    gap = GAP * (100 if in_null_spreads(question) else 1)
    found = [f"scores {a} and {b}" for a, b in pairwise(scores) if a - b < gap]
    most = question.get("max_by_chance")
    if most is not None:
        chances = [row[2] for row in again({**question, "max_by_chance": None, "k": 100})["hits"]]
        found += [f"by chance {chance}" for chance in chances if abs(chance / most - 1) < 0.07]
    return found


def main(file: Path, source: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        lay_out(folder)
        with Searcher(build(folder), "cpu") as searcher:

            def answer(question: dict) -> dict:
                return as_data(folder, ask(searcher, folder, question))

            answers = {name: answer(question) for name, question in QUESTIONS.items()}
            if source:
                for name, question in QUESTIONS.items():
                    for call in close_calls(question, answer):
                        print(f"{name}: too close, {call}", file=sys.stderr)
        pixels = pixels_sha256(folder)
    rows = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(answer, ensure_ascii=False, separators=(',', ':'))}"
        for name, answer in answers.items()
    )
    head = f'{{"source": {json.dumps(source)},\n"pixels_sha256": "{pixels}",\n"answers": {{\n'
    file.write_text(f"{head}{rows}\n}}}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
