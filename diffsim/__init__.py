"""diffsim-search: find pictures by style, instance or look, with the attention of a diffusion network.

import diffsim

diffsim.index("gallery.idx", "Pictures", by="style")
for hit in diffsim.open("gallery.idx").search("cat.jpg", k=5):
    print(hit.rank, hit.score, hit.path)
print(diffsim.score("cat.jpg", "dog.jpg", by="style").score)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import Space, explain, index, open, score
    from .db.catalog import KnownSpace
    from .db.errors import CatalogError
    from .db.filters import Filters
    from .db.metadata import PictureMetadata
    from .errors import Error
    from .indexer.build import IndexOptions, IndexReport
    from .indexer.errors import IndexerError
    from .query.errors import QueryError
    from .query.export import export
    from .query.pair import Pair
    from .query.query import Answer, Embeddings, Example, ExtractedPicture, Hit, Query, Subject, Text, Unanswered
    from .query.search import Searcher
    from .retrieval.agreement import Agreement
    from .retrieval.errors import RetrievalError
    from .retrieval.score import PairScore
    from .retrieval.settings import SpaceSettings, Tap
    from .retrieval.space import FeatureSpace

    __version__: str

_HOMES = {
    "Agreement": "retrieval.agreement",
    "Answer": "query.query",
    "CatalogError": "db.errors",
    "Embeddings": "query.query",
    "Error": "errors",
    "Example": "query.query",
    "ExtractedPicture": "query.query",
    "FeatureSpace": "retrieval.space",
    "Filters": "db.filters",
    "Hit": "query.query",
    "IndexOptions": "indexer.build",
    "IndexReport": "indexer.build",
    "IndexerError": "indexer.errors",
    "KnownSpace": "db.catalog",
    "Pair": "query.pair",
    "PairScore": "retrieval.score",
    "PictureMetadata": "db.metadata",
    "Query": "query.query",
    "QueryError": "query.errors",
    "RetrievalError": "retrieval.errors",
    "Searcher": "query.search",
    "Space": "api",
    "SpaceSettings": "retrieval.settings",
    "Subject": "query.query",
    "Tap": "retrieval.settings",
    "Text": "query.query",
    "Unanswered": "query.query",
    "explain": "api",
    "export": "query.export",
    "index": "api",
    "open": "api",
    "score": "api",
}
"""Where each public name lives. Loaded when it is first used: `diffsim --help` and the decoding processes, which import
this package too, must load neither torch nor FAISS."""

__all__ = [  # sorted as _HOMES
    "Agreement",
    "Answer",
    "CatalogError",
    "Embeddings",
    "Error",
    "Example",
    "ExtractedPicture",
    "FeatureSpace",
    "Filters",
    "Hit",
    "IndexOptions",
    "IndexReport",
    "IndexerError",
    "KnownSpace",
    "Pair",
    "PairScore",
    "PictureMetadata",
    "Query",
    "QueryError",
    "RetrievalError",
    "Searcher",
    "Space",
    "SpaceSettings",
    "Subject",
    "Tap",
    "Text",
    "Unanswered",
    "explain",
    "export",
    "index",
    "open",
    "score",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("diffsim-search")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
