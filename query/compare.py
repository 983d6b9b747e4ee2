"""Queries several feature spaces with one picture, to compare what each finds similar (the paper's Figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffsim.errors import Error

from .errors import QueryError
from .query import Answer, Query
from .search import Searcher


class NoSpaceAnswers(QueryError):
    """None of the feature spaces can be queried with the picture."""


@dataclass(frozen=True)
class Comparison:
    """answers: one for each space that could be queried, in the order of the spaces. problems: why the others could
    not, one sentence each."""

    answers: list[Answer]
    problems: list[str]


def compare(searcher: Searcher, query: Query, spaces: Sequence[str] = ()) -> Comparison:
    """Run `query` in each of the spaces (names or fingerprints), or in all of the index if none is named.

    A space that cannot be queried, for example because its network is not on this machine, is skipped and reported.
    Raises NoSpaceAnswers if that is all of them, and as `Searcher.answer` does for a picture that cannot be read.
    """
    names = spaces or list(dict.fromkeys(space.name for space in searcher.spaces()))
    chosen = searcher.choose_all(names)
    failed: dict[str, Error] = {}
    examples = searcher.prepared(query.all_examples, chosen, failed)
    answers = [
        searcher.answer(replace(query, examples=examples, spaces=(space.fingerprint,)))
        for space in chosen
        if space.fingerprint not in failed
    ]
    problems = [f"{space.name}: {failed[space.fingerprint]}" for space in chosen if space.fingerprint in failed]
    if not answers:
        raise NoSpaceAnswers(f"The picture can be compared in none of the feature spaces; {'; '.join(problems)}")
    return Comparison(answers, problems)
