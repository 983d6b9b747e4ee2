"""One picture asked in several feature spaces: what each of them takes for alike (the paper's Figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffsim.errors import Error
from diffsim.retrieval.pictures.images import UnreadableImage

from .errors import QueryError
from .query import Answer, BadQuery, Query
from .search import Searcher


class NoSpaceAnswers(QueryError):
    """The picture can be asked in none of the feature spaces."""


@dataclass(frozen=True)
class Comparison:
    """answers: one for each space that could be asked, in the order of the spaces. problems: why the others could not,
    one sentence each."""

    answers: list[Answer]
    problems: list[str]


def compare(searcher: Searcher, query: Query, spaces: Sequence[str] = ()) -> Comparison:
    """Ask `query` in each of the spaces (names or fingerprints), in all of the index where none is named.

    A space that cannot be asked, for example because its network is not on this machine, is left out and said so.
    Raises NoSpaceAnswers where that is all of them, and as `Searcher.answer` does for a picture that cannot be read.
    """
    names = spaces or dict.fromkeys(space.name for space in searcher.spaces()) or [None]
    chosen = {space.fingerprint: space for space in map(searcher.choose, names)}
    answers, problems = [], []
    for fingerprint, space in chosen.items():
        try:
            answers.append(searcher.answer(replace(query, spaces=(fingerprint,))))
        except (BadQuery, UnreadableImage):
            raise
        except Error as problem:
            problems.append(f"{space.name}: {problem}")
    if not answers:
        raise NoSpaceAnswers(f"The picture {query.picture} can be asked in no feature space; {'; '.join(problems)}")
    return Comparison(answers, problems)
