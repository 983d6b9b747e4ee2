"""What a program calls first: make an index, open it, score a pair."""

import os
from collections.abc import Iterable
from pathlib import Path

from .indexer.build import IndexOptions, IndexReport, index_folders
from .indexer.index_folder import IndexFolder
from .indexer.requests import DEFAULT_MODEL, DEFAULT_PROFILE, requested_spaces
from .query.score_files import score_files
from .query.search import Searcher
from .retrieval.score import PairScore


def open(index: str | os.PathLike[str], device: str = "auto") -> Searcher:
    """Open an index to ask it: `diffsim.open(folder).search("cat.jpg")` gives a list of hits."""
    return Searcher(index, device)


def index(
    index: str | os.PathLike[str],
    folders: Iterable[str | os.PathLike[str]],
    *,
    model: str = DEFAULT_MODEL,
    by: Iterable[str] = (),
    options: IndexOptions | None = None,
) -> IndexReport:
    """Build an index from folders of pictures, or bring it up to date.

    by: `style`, `instance`, `look`; none means every feature space of the index, or the default one for a new index.
    """
    profiles = list(by)
    requests = requested_spaces(model, profiles) if profiles or model != DEFAULT_MODEL else []
    return index_folders(IndexFolder.create(Path(index)), [Path(folder) for folder in folders], requests, options)


def score(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    model: str = DEFAULT_MODEL,
    by: str = DEFAULT_PROFILE,
    device: str = "auto",
) -> PairScore:
    """Score two pictures without an index, both directions and their mean in [-1, 1]; 1 for a picture and itself."""
    (request,) = requested_spaces(model, [by], tier="fp32")
    return score_files(Path(a), Path(b), request, device=device).score
