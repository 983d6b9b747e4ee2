"""One picture asked in one feature space: its candidates and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from db.catalog import KnownSpace
from retrieval.kit import SpaceKit
from retrieval.recall import search_exact
from retrieval.rerank import score_records
from retrieval.score import AttentionFeatures

from .gallery import Gallery


@dataclass(frozen=True)
class View:
    """The pictures of a space as one example sees them.

    descriptor: float16 [dimensions] of the example. features: its attention features per tap, none in a space without
    a token stage. itself: the example's content id, None for a picture that is not in the index.
    """

    space: KnownSpace
    gallery: Gallery
    kit: SpaceKit
    descriptor: np.ndarray
    features: Sequence[AttentionFeatures]
    itself: int | None

    @property
    def others(self) -> int:
        """How many pictures there are beside the example."""
        return len(self.gallery.ids) - (self.itself in self.gallery.sha256)

    def recall(self, count: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The `count` nearest by descriptor (None: all, compared exactly), best first: ids int64, cosines float32."""
        if count is None:
            return search_exact(*self.gallery.all_descriptors(), self.descriptor, len(self.gallery.ids))
        return self.gallery.recall(self.descriptor, count)

    def score(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the ids that could be read, int64, and their scores, float32 [n] in [-1, 1]: the full token-level
        score, or in a space without a token stage the cosine of the embeddings."""
        if self.kit.has_tokens:
            return score_records(self.kit, self.features, self.gallery.tokens(ids))
        found, descriptors = self.gallery.descriptors(ids)
        vectors = descriptors.astype(np.float32)
        asked = self.descriptor.astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked)
        return found, np.clip(vectors @ asked / lengths, -1, 1)
