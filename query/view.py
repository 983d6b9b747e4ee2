"""One example asked in one feature space: its candidates and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.score import AttentionFeatures, score, score_one_way
from diffsim.retrieval.shard.recall import search_exact
from diffsim.retrieval.shard.rerank import score_queries

from .gallery import Gallery

REGION_FACTOR = 5
"""So many times as many candidates are recalled for a region: the descriptor is the whole picture's, because that
brings in more of the true nearest than one of the region's own map (docs/querying.md)."""

EXHAUSTIVE_NUMBERS = 32_000_000
"""Up to this many token numbers, pictures x tokens x channels, a region is scored against every picture."""


@dataclass(frozen=True)
class View:
    """The pictures of a space as one example sees them.

    descriptor: float16 [dimensions] of the example. features: its attention features per tap, none in a space without
    a token stage. itself: the example's content id, None for a picture that is not in the index.
    weight: of this view's likeness among several. region: the features are those of a region, asked in one direction.
    """

    space: KnownSpace
    gallery: Gallery
    kit: SpaceKit
    descriptor: np.ndarray
    features: Sequence[AttentionFeatures]
    itself: int | None
    weight: float = 1.0
    region: bool = False

    @property
    def scores_all(self) -> bool:
        """Whether a region is scored against every picture: in a collection in which that is quick."""
        numbers = sum(tokens * channels for tokens, channels in self.kit.shapes)
        return self.region and len(self.gallery.ids) * numbers <= EXHAUSTIVE_NUMBERS

    def recall(self, count: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The `count` nearest by descriptor (None: all, compared exactly), best first: ids int64, cosines float32."""
        if count is None:
            return search_exact(*self.gallery.all_descriptors(), self.descriptor, len(self.gallery.ids))
        return self.gallery.recall(self.descriptor, count)

    def score(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the ids that could be read, int64, and their scores, float32 [n] in [-1, 1]: the full token-level
        score, or in a space without a token stage the cosine of the embeddings."""
        found, (scores,) = score_views([self], ids)
        return found, scores


def score_views(views: Sequence[View], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for several views of one space at once: ids int64 [n], scores float32 [views, n]."""
    kit, gallery = views[0].kit, views[0].gallery
    if kit.has_tokens:
        queries = [(view.features, score_one_way if view.region else score) for view in views]
        return score_queries(kit, queries, gallery.tokens(ids))
    found, descriptors = gallery.descriptors(ids)
    vectors = descriptors.astype(np.float32)
    asked = np.stack([view.descriptor for view in views]).astype(np.float32)
    lengths = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    return found, np.clip(asked @ vectors.T / lengths, -1, 1)
