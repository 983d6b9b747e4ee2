"""The root of every error that a caller may catch."""

from collections.abc import Iterable
from difflib import get_close_matches


class Error(Exception):
    """A named problem; its text is one complete sentence for the person who asked."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question for the end of a sentence, or nothing where no known name resembles the wrong one."""
    near = get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
