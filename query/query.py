"""Queries and answers as plain values."""

import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral
from typing import TYPE_CHECKING, Literal, Union

from diffsim.db.catalog import KnownSpace
from diffsim.db.filters import NO_FILTERS, Filters
from diffsim.db.metadata import PictureMetadata
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.region import Box, checked_box

from .colours import Colour
from .errors import QueryError

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import pyarrow
    from PIL.Image import Image


class BadQuery(QueryError, ValueError):
    """The query is not valid."""


@dataclass(frozen=True)
class ExtractedPicture:
    """A picture that was read once and can be queried again without its file, see Searcher.extract.

    sha256: of its bytes. width, height: of the whole picture, upright, in pixels. features: by fingerprint of the
    feature space.
    """

    sha256: bytes
    width: int
    height: int
    features: Mapping[str, PictureFeatures]


@dataclass(frozen=True)
class Text:
    """Words that say what a picture shows: an example in feature spaces that take texts, see docs/querying.md.

    text: of any length; a network reads its beginning. Control characters count as spaces. Raises BadQuery if it is
    empty or no Unicode.
    """

    text: str

    def __post_init__(self) -> None:
        words = "".join(" " if unicodedata.category(char) == "Cc" else char for char in self.text)
        if any("\ud800" <= char <= "\udfff" for char in words):
            raise BadQuery("The text holds bytes that are no characters; write it in UTF-8.")
        if not words.strip():
            raise BadQuery("The text is empty; say what a picture should show, for example: a red bicycle in the rain.")
        object.__setattr__(self, "text", words.strip())


Subject = Union[str, "os.PathLike[str]", bytes, int, "Image", "np.ndarray", ExtractedPicture, Text]
"""What an example is: the path of a picture; the bytes of a picture file; a Pillow image; an array uint8 [height,
width, 3] of RGB; the id of a content of the index, whose file is not read; a picture that was extracted before; or a
text."""


@dataclass(frozen=True)
class Example:
    """A picture, or a text, to query with.

    weight: of its similarity in the score; negative weights push results away; not 0.
    region: (left, top, width, height) of a box in it, in fractions of its upright sides: only the tokens that it
    touches are compared, in one direction; see retrieval/region.py. None means the whole picture.
    spaces: names or beginnings of fingerprints of the feature spaces in which it is compared, each perhaps with its
    weight, `style:0.7`; empty means the query's, and for a text those of them that take texts, else the index's first
    that does.
    file: filled in: the file that the subject names, empty for a picture in memory, None for an id. It stays when the
    subject is replaced by what was read of it.
    """

    subject: Subject
    weight: float = 1.0
    region: Box | None = None
    spaces: Sequence[str] = ()
    file: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.subject, str | os.PathLike):
            object.__setattr__(self, "file", os.fspath(self.subject))
        elif self.file is None and not isinstance(self.subject, Integral):
            object.__setattr__(self, "file", "")
        object.__setattr__(self, "spaces", _names(self.spaces))
        if not math.isfinite(self.weight) or self.weight == 0:
            raise BadQuery(f"The weight {self.weight:g} of an example is not allowed; give a number above or below 0.")
        if self.region is not None and isinstance(self.subject, Text):
            raise BadQuery("A region belongs to a picture, not to a text; leave it out.")
        if self.region is not None:
            object.__setattr__(self, "region", checked_box(self.region))


@dataclass(frozen=True)
class Query:
    """A query.

    examples: one or several, at least one with positive weight; a subject alone is an example of weight 1. With several
    examples, or several spaces, the score is the sum of weight x similarity, each similarity in units of its own null
    spread, see stages.py; an example in several spaces has the mean over them, weighted where they have weights.
    Candidates come from the examples with positive weight.
    spaces: names or beginnings of fingerprints of feature spaces, for examples that name none, each perhaps with its
    weight, `style:0.7`, else 1; empty means the index's first. Among spaces that share a name, the newest that holds
    at least as many pictures as every older one is used.
    filters: conditions a picture must meet to be a hit; applied before recall. by_chance then counts only the pictures
    that pass. colours: of each of which a hit must have enough; as text (see Colour.parse), which needs the space
    `colour`.
    k: how many neighbours. fold: near copies of a better hit become its `duplicates` and do not count towards k.
    candidates: how many the first stage hands to the second. A region recalls five times as many, or scores every
    picture of a small collection.
    rerank: False stops after the first stage (scores are then cosines of descriptors). exact: score every picture.
    include_self: list the examples themselves too; else the file that an example names is left out, or for an id all
    files of that content. max_by_chance: leave out hits with more matches than this expected by chance.
    Raises BadQuery.
    """

    examples: Sequence[Example | Subject] | Example | Subject
    spaces: Sequence[str] = ()
    k: int = 10
    candidates: int = 200
    rerank: bool = True
    exact: bool = False
    include_self: bool = False
    max_by_chance: float | None = None
    filters: Filters = NO_FILTERS
    fold: bool = False
    colours: Sequence[Colour | str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", _names(self.spaces))
        several = isinstance(self.examples, list | tuple)
        given = self.examples if several else (self.examples,)
        examples = tuple(each if isinstance(each, Example) else Example(each) for each in given)  # type: ignore[union-attr, arg-type]
        object.__setattr__(self, "examples", examples)
        object.__setattr__(self, "colours", _colours(self.colours))
        if not any(example.weight > 0 for example in examples):
            raise BadQuery(
                "A query needs a picture or a text that results should be similar to; give one with a weight above 0."
            )
        if self.k < 1:
            raise BadQuery(f"The number of neighbours {self.k} is too small; give at least 1.")
        if self.candidates < 1:
            raise BadQuery(f"The number of candidates {self.candidates} is too small; give at least 1.")
        if self.exact and not self.rerank:
            raise BadQuery(
                "An exact search scores every picture, so it cannot go without reranking; drop one of the two."
            )
        if not self.rerank:
            self._check_first_stage(examples)

    def _check_first_stage(self, examples: Sequence[Example]) -> None:
        """Reject options that need full scores."""
        if len(self.spaces) > 1 or any(len(example.spaces) > 1 for example in examples):
            raise BadQuery("Several feature spaces are combined by their full scores; drop --no-rerank or query one.")
        if len(examples) > 1:
            raise BadQuery("Several examples are combined by their full scores; drop --no-rerank or give one.")
        if any(example.region for example in examples):
            raise BadQuery("The first stage compares whole pictures only; drop --no-rerank or the region.")
        if self.max_by_chance is not None:
            raise BadQuery("Likeness against chance needs the full score; drop --no-rerank or --max-by-chance.")

    @property
    def all_colours(self) -> tuple[Colour, ...]:
        """The colours, read."""
        return tuple(colour for colour in self.colours if isinstance(colour, Colour))

    @property
    def all_examples(self) -> tuple[Example, ...]:
        """The examples, as examples."""
        return self.examples  # type: ignore[return-value]


def _colours(given: Sequence[Colour | str] | Colour | str) -> tuple[Colour, ...]:
    several = (given,) if isinstance(given, Colour | str) else given
    return tuple(each if isinstance(each, Colour) else Colour.parse(each) for each in several)


def _names(spaces: Sequence[str]) -> tuple[str, ...]:
    return (spaces,) if isinstance(spaces, str) else tuple(spaces)  # a string is one name, not its letters


@dataclass(frozen=True)
class Hit:
    """One neighbour.

    rank: from 1; near copies have the rank of the hit that they are folded into.
    score: in [-1, 1], larger is more similar; with several spaces or examples in units of null spreads, see Query.
    recall_rank: its rank after the first stage, from 1.
    likeness: how far it stands above what pictures of this collection score in the middle, in units of their spread;
    by_chance: how many of them would be expected to score as high by chance. None without rerank, and in a collection
    of fewer than 20 pictures.
    path: a file with this content; paths: all of them. offline: its folder is not available at the moment.
    date: of the picture, in local time; date_of: `picture` for its own (EXIF), `file` where it has none and `path` was
    last modified then. None where neither is known.
    metadata: what its file says of it: camera, place, keywords, ...; None where that is not known.
    duplicates: near copies of it that ranked lower, if the query folds.
    """

    rank: int
    score: float
    path: str
    recall_rank: int
    likeness: float | None
    by_chance: float | None
    paths: tuple[str, ...]
    offline: bool
    content_id: int
    duplicates: tuple["Hit", ...] = ()
    date: datetime | None = None
    date_of: Literal["picture", "file"] | None = None
    metadata: PictureMetadata | None = None


@dataclass(frozen=True)
class Unanswered:
    """A shard that had no part in an answer. pictures: how many it holds of the spaces that were queried."""

    shard: int
    pictures: int
    reason: str

    def __str__(self) -> str:
        return f"Shard {self.shard} with {self.pictures} pictures had no part in this answer: {self.reason}."


@dataclass(frozen=True)
class Answer:
    """Neighbours and how they were found.

    spaces: those that were queried. pictures: how many could be hits, after filters.
    recalled, scored: candidates of the first stage, and how many of them were scored.
    notes: for the user, as sentences.
    reranked: True for the order by full score, False for that of the first stage.
    unanswered: shards of a cluster that were down or late: the hits, `pictures` and by_chance are of the others.
    """

    hits: list[Hit]
    spaces: list[KnownSpace]
    pictures: int
    recalled: int
    scored: int
    notes: list[str]
    reranked: bool = True
    unanswered: tuple[Unanswered, ...] = ()

    @property
    def name(self) -> str:
        """The spaces' names, for a title."""
        return " + ".join(space.name for space in self.spaces)

    def to_pandas(self) -> "pandas.DataFrame":
        """The hits as a table, see query/tables.py. Raises MissingPackage."""
        from .tables import to_pandas

        return to_pandas(self.hits)

    def to_arrow(self) -> "pyarrow.Table":
        """The same as an Arrow table. Raises MissingPackage."""
        from .tables import to_arrow

        return to_arrow(self.hits)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The pictures of one feature space as vectors, ascending by id.

    ids: int64 [n], of the contents. paths: a file of each. descriptors: float32 [n, dimensions], unit norm; their inner
    product is the cosine by which candidates are recalled. They are stored as float16, which limits their precision.
    """

    ids: "np.ndarray"
    paths: list[str]
    descriptors: "np.ndarray"
