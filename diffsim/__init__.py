"""diffsim-search: find pictures by style, instance or look, with the attention of a diffusion network.

import diffsim

diffsim.index("gallery.idx", ["Pictures"], by=["style"])
for hit in diffsim.open("gallery.idx").search("cat.jpg", k=5):
    print(hit.rank, hit.score, hit.path)
print(diffsim.score("cat.jpg", "dog.jpg", by="style").score)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import index, open, score
    from .db.errors import CatalogError
    from .db.filters import Filters
    from .errors import Error
    from .indexer.build import IndexOptions, IndexReport
    from .indexer.errors import IndexerError
    from .query.errors import QueryError
    from .query.query import Answer, Example, ExtractedPicture, Hit, Query
    from .query.search import Searcher
    from .retrieval.errors import RetrievalError
    from .retrieval.score import PairScore
    from .retrieval.settings import SpaceSettings, Tap
    from .retrieval.space import FeatureSpace

_HOMES = {
    "Answer": "query.query",
    "CatalogError": "db.errors",
    "Error": "errors",
    "Example": "query.query",
    "ExtractedPicture": "query.query",
    "FeatureSpace": "retrieval.space",
    "Filters": "db.filters",
    "Hit": "query.query",
    "IndexOptions": "indexer.build",
    "IndexReport": "indexer.build",
    "IndexerError": "indexer.errors",
    "PairScore": "retrieval.score",
    "Query": "query.query",
    "QueryError": "query.errors",
    "RetrievalError": "retrieval.errors",
    "Searcher": "query.search",
    "SpaceSettings": "retrieval.settings",
    "Tap": "retrieval.settings",
    "index": "api",
    "open": "api",
    "score": "api",
}
"""Where each public name lives. Loaded when it is first used: `diffsim --help` and the decoding processes, which import
this package too, must load neither torch nor FAISS."""

__all__ = [  # sorted as _HOMES
    "Answer",
    "CatalogError",
    "Error",
    "Example",
    "ExtractedPicture",
    "FeatureSpace",
    "Filters",
    "Hit",
    "IndexOptions",
    "IndexReport",
    "IndexerError",
    "PairScore",
    "Query",
    "QueryError",
    "RetrievalError",
    "Searcher",
    "SpaceSettings",
    "Tap",
    "index",
    "open",
    "score",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
