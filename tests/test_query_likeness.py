"""Likeness against chance in words: the same in the table and on the sheet."""

import inspect
import math

import pytest

from diffsim.query.commands import query as query_command
from diffsim.query.figures import sheet
from diffsim.query.text import certainty, chance_text, likeness_ended, standing_text


@pytest.mark.parametrize(
    ("by_chance", "shown"),
    [
        (0.0, "< 0.001"),
        (0.00099, "< 0.001"),
        (0.001, "0.0010"),
        (0.0342, "0.034"),
        (0.5, "0.50"),
        (0.997, "1.0"),
        (1.0, "1.0"),
        (3.26, "3.3"),
        (9.97, "10"),
        (347, "350"),
        (12345, "12,000"),
        (2.1e7, "2e+07"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_never_finer_than_two_digits(by_chance, shown):
    assert chance_text(by_chance) == shown


def test_likeness_ends_where_chance_gives_more_than_one():
    assert [likeness_ended(figure) for figure in (None, 0.0, 1.0, 1.0001, math.inf)] == [False] * 3 + [True] * 2


def test_a_word_for_how_sure_a_hit_is():
    figures = (None, 0.0, 0.05, 0.051, 1.0, 1.01, math.inf)
    assert [certainty(figure) for figure in figures] == ["", "sure", "sure", "likely", "likely", "weak", "weak"]


def test_a_hit_stands_where_its_likeness_says_or_its_score():
    assert [standing_text(0.98764, likeness) for likeness in (None, 4.26, -0.5)] == ["0.9876", "4.3", "-0.5"]


def test_table_and_sheet_use_this_wording():
    for module in (query_command, sheet):
        assert module.chance_text is chance_text and module.likeness_ended is likeness_ended
        assert "by_chance > 1" not in inspect.getsource(module)
