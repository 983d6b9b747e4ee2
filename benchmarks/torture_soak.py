"""Many questions of every kind to one searcher, while runs commit beside it: the same answers, and no growth."""

import os
import random
import shutil
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from kills import TOLERANCE, draw_pictures, in_child
from torture_ground import Count, Ground

import diffsim

_BETWEEN_RUNS = 500
_GROWTH = 1.1
"""More than this, times what the process held after the first tenth, is a leak."""


def part(work: Path, ground: Ground, questions: int, seed: int) -> Count:
    """A picture comes or goes after every few hundred questions. A score that depends on two pictures alone must never
    change."""
    count, chance = Count("questions"), random.Random(seed)
    index, more, process = work / "soaked", work / "more", psutil.Process()
    shutil.copytree(ground.index, index)
    draw_pictures(more, range(10_000, 10_002))
    known: dict[tuple[str, str], float] = {}
    held, started, ask_s = [], time.monotonic(), 0.0
    with diffsim.open(index, "cpu") as searcher:
        pictures = sorted(map(str, ground.gallery.iterdir()))
        for number in range(questions):
            if number % _BETWEEN_RUNS == 0 and number:
                draw_pictures(more, range(10_000 + number, 10_001 + number))
                (more / f"{10_000 + max(0, number - 2 * _BETWEEN_RUNS)}.png").unlink(missing_ok=True)
                _, status = os.waitpid(in_child(lambda: ground.run(index, more)), 0)
                if status:
                    count.add("tracebacks", "a run beside the questions failed")
            picture = chance.choice(pictures)
            name, query = _question(picture, pictures, chance)
            count.tried += 1
            asked = time.monotonic()
            try:
                answer = searcher.answer(query)
            except Exception as problem:
                count.add("tracebacks", f"{name} {picture}: {problem!r}")
                continue
            ask_s += time.monotonic() - asked
            if not answer.hits and name != "of a day":
                count.add("silent", f"{name} {picture}: no hit, {answer.notes}")
            for hit in answer.hits if name in ("whole", "exact") else ():
                if abs(known.setdefault((picture, hit.path), hit.score) - hit.score) > TOLERANCE:
                    count.add("shifted", f"{name} {picture}: {hit.path}")
            if number >= questions // 10:
                held.append(process.memory_info().rss)
    if held:
        first, last, most = (held[0], held[-1], max(held))
        count.facts = (
            f"RSS {first / 2**20:.0f} MB after a tenth, {last / 2**20:.0f} MB at the end, {most / 2**20:.0f} at most; "
            f"{1e3 * ask_s / count.tried:.0f} ms a question, {time.monotonic() - started:.0f} s in all"
        )
        if last > _GROWTH * first:
            count.add("lost", f"memory grows: {count.facts}")
    return count


def _question(picture: str, pictures: list[str], chance: random.Random) -> tuple[str, diffsim.Query]:
    left, top = chance.random() / 2, chance.random() / 2
    more: dict[str, dict[str, Any]] = {
        "whole": {},
        "exact": {"exact": True},
        "first stage": {"rerank": False},
        "folded": {"fold": True},
        "filtered": {"filters": diffsim.Filters(min_side=10, formats="png")},
        "dated": {"filters": diffsim.Filters(after=date(2000, 1, 1))},
        "of a day": {"filters": diffsim.Filters(before=date(1990, 1, 1))},
    }
    name = chance.choice([*more, "region", "two"])
    examples: Any = picture
    if name == "region":
        examples = diffsim.Example(picture, region=(left, top, 0.4, 0.4))
    elif name == "two":
        examples = [picture, diffsim.Example(chance.choice(pictures), weight=chance.choice((0.5, -0.5)))]
    return name, diffsim.Query(examples, k=10, include_self=True, **more.get(name, {}))
