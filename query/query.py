"""What is asked and what is answered, as plain values."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffsim.db.catalog import KnownSpace
from diffsim.db.filters import NO_FILTERS, Filters
from diffsim.retrieval.region import Box, checked_box

from .errors import QueryError

if TYPE_CHECKING:
    from diffsim.retrieval.extractor import PictureFeatures


class BadQuery(QueryError, ValueError):
    """A query asks for something that is not allowed."""


@dataclass(frozen=True)
class ExtractedPicture:
    """A picture that was read once and can be asked with again without its file, see Searcher.extract.

    sha256: of its bytes. width, height: of the whole picture, upright, in pixels. features: by fingerprint of the
    feature space, as a record of that space has them.
    """

    sha256: bytes
    width: int
    height: int
    features: "Mapping[str, PictureFeatures]"


Picture = str | os.PathLike[str] | int | ExtractedPicture
"""A path; the id of a content of the index, of which then no file is read; or a picture that was extracted before."""


@dataclass(frozen=True)
class Example:
    """A further picture to ask with. weight: of its likeness; below 0 pushes away what is like it; never 0.

    region: only the likeness to this part of it counts, see Query.
    """

    picture: Picture
    weight: float = 1.0
    region: Box | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight) or self.weight == 0:
            raise BadQuery(f"The weight {self.weight:g} of an example is not allowed; give a number above or below 0.")
        if self.region is not None:
            object.__setattr__(self, "region", checked_box(self.region))


@dataclass(frozen=True)
class Query:
    """What is asked.

    picture: the example. region: (left, top, width, height) of a box in it, in fractions of its upright sides: only the
    tokens that it touches ask, in one direction; see retrieval/region.py. A region recalls five times as many
    candidates, or scores every picture of a small collection.
    examples: further ones, each weighed against the weight 1 of the first. The score is then the sum of weight x
    likeness, each likeness in units of its example's null spread; candidates come from those of positive weight.
    spaces: names or beginnings of fingerprints of feature spaces; none is the index's
    first. Where several spaces bear one name, the newest that holds as many pictures as the older ones answers for it.
    With several spaces a likeness is the mean over them, each in units of its own null spread, see stages.py.
    filters: what a picture must be to be a hit; asked before recall. by_chance then counts the pictures that pass.
    k: how many neighbours. fold: near copies of a better hit stand in its `duplicates`, not among the k, see fold.py.
    candidates: how many the first stage hands to the second.
    rerank: False stops after the first stage (scores are then cosines of descriptors). exact: score every picture.
    include_self: list the examples' own contents too. max_by_chance: leave out hits that more pictures than this would
    equal by chance.
    """

    picture: Picture
    spaces: Sequence[str] = ()
    k: int = 10
    candidates: int = 200
    rerank: bool = True
    exact: bool = False
    include_self: bool = False
    max_by_chance: float | None = None
    region: Box | None = None
    examples: Sequence[Example] = ()
    filters: Filters = NO_FILTERS
    fold: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.spaces, str):  # one name is meant, not its letters
            object.__setattr__(self, "spaces", (self.spaces,))
        object.__setattr__(self, "examples", tuple(self.examples))
        if self.region is not None:
            object.__setattr__(self, "region", checked_box(self.region))
        if self.k < 1:
            raise BadQuery(f"The number of neighbours {self.k} is too small; ask for at least 1.")
        if self.candidates < 1:
            raise BadQuery(f"The number of candidates {self.candidates} is too small; give at least 1.")
        if self.exact and not self.rerank:
            raise BadQuery(
                "An exact search scores every picture, so it cannot go without reranking; drop one of the two."
            )
        if len(self.spaces) > 1 and not self.rerank:
            raise BadQuery("Several feature spaces are weighed by their full scores; drop --no-rerank or ask in one.")
        if self.examples and not self.rerank:
            raise BadQuery("Several examples are weighed by their full scores; drop --no-rerank or ask with one.")
        if any(example.region for example in self.all_examples) and not self.rerank:
            raise BadQuery("The first stage knows whole pictures only; drop --no-rerank or the region.")
        if self.max_by_chance is not None and not self.rerank:
            raise BadQuery("Likeness against chance needs the full score; drop --no-rerank or --max-by-chance.")

    @property
    def all_examples(self) -> tuple[Example, ...]:
        """The first picture, of weight 1, and the further ones."""
        return (Example(self.picture, region=self.region), *self.examples)


@dataclass(frozen=True)
class Hit:
    """One neighbour.

    rank: from 1; near copies have that of the hit into which they are folded.
    score: in [-1, 1], larger is more alike; with several spaces or examples in null spreads, see Query.
    recall_rank: its place after the first stage, from 1.
    by_chance: how many pictures of this collection would be expected to score as high by chance (None without rerank).
    path: a file with this content; paths: all of them. offline: its folder is not there at the moment.
    duplicates: near copies of it that ranked lower, where folding was asked for.
    """

    rank: int
    score: float
    path: str
    recall_rank: int
    by_chance: float | None
    paths: tuple[str, ...]
    offline: bool
    content_id: int
    duplicates: tuple["Hit", ...] = ()


@dataclass(frozen=True)
class Answer:
    """Neighbours and how they were found.

    spaces: those that were asked. pictures: how many could be hits, after filters.
    recalled, scored: candidates of the first stage, and how many of them were scored.
    notes: what the asker should know, as sentences.
    reranked: whether this is the order of the full score, or that of the first stage.
    """

    hits: list[Hit]
    spaces: list[KnownSpace]
    pictures: int
    recalled: int
    scored: int
    notes: list[str]
    reranked: bool = True

    @property
    def name(self) -> str:
        """The spaces' names, for a title."""
        return " + ".join(space.name for space in self.spaces)
