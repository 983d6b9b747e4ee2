"""Golden answers: every kind of question, answered as the version that wrote tests/data/golden_answers.json did."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA
from golden_questions import QUESTIONS, in_null_spreads

GOLDEN = json.loads((DATA / "golden_answers.json").read_text(encoding="utf-8"))
SCRIPT = Path(__file__).with_name("golden_answers.py")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The answers of today, from a process that computes alike on every processor."""
    file = tmp_path_factory.mktemp("golden") / "answers.json"
    environment = os.environ | {"PYTHONPATH": os.fspath(SCRIPT.parents[1])}
    subprocess.run([sys.executable, SCRIPT, file], env=environment, check=True)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["pixels_sha256"] == GOLDEN["pixels_sha256"], (
        "Pillow or NumPy draws other pictures here than those of the golden answers: install the versions of "
        "constraints.txt, or write the answers anew with a version of this program whose answers are known to be right."
    )
    return found["answers"]


def test_every_question_has_an_answer_and_no_answer_is_left_over() -> None:
    assert list(GOLDEN["answers"]) == list(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_is_the_same(answers: dict[str, dict], name: str) -> None:
    found, expected = answers[name], GOLDEN["answers"][name]
    assert {**found, "hits": None} == {**expected, "hits": None}
    assert _files(found["hits"]) == _files(expected["hits"])
    hits = list(zip(_flat(found["hits"]), _flat(expected["hits"]), strict=True))
    for (_, score, chance, *_), (file, golden_score, golden_chance, *_) in hits:
        assert score == pytest.approx(golden_score, abs=_tolerance(QUESTIONS[name])), file
        assert _same_chance(chance, golden_chance), (file, chance, golden_chance)
    # Descriptors are stored in float16: a rounding may exchange two neighbours of the first stage.
    moved = [abs(found[3] - expected[3]) for found, expected in hits if found[3] != expected[3]]
    assert set(moved) <= {1} and len(moved) <= 2


def _files(hits: list) -> list:
    return [[files, _files(copies)] for files, _, _, _, copies in hits]


def _flat(hits: list) -> list:
    return [row for hit in hits for row in (hit, *hit[4])]


def _tolerance(question: dict) -> float:
    """Of a score. Tokens that are rounded where they are stored may be rounded the other way."""
    rounded = {"mini", "look in int8"} & set(question["spaces"])
    return (1e-5 if rounded else 1e-6) * (100 if in_null_spreads(question) else 1)


def _same_chance(found: float | None, expected: float | None) -> bool:
    """Two digits are given, of which the last may be rounded the other way. Below 0.001 the score is close to 1, where
    the seventh digit of a cosine tells."""
    if found is None or expected is None:
        return found is expected
    digit = 10 ** (math.floor(math.log10(expected)) - 1)
    return abs(found - expected) <= max(1.01 * digit, 0.3 * expected if expected < 1e-3 else 0)
