"""Which pictures of a sample are not much alike: a burst must not be all that chance looks like."""

import numpy as np

ALIKE = 0.1
"""Descriptors at most this far apart, where 1 is the 95th percentile, do not both go into a sample of unlike pictures:
the middle of copies that are cropped to 80 %, or of the next photographs of a series (docs/querying.md)."""


def unlike(descriptors: np.ndarray) -> np.ndarray:
    """Which of the pictures, in turn, are not much like one before them: bool [n]. descriptors: unit norm [n,
    dimensions]. Any share of the pictures may be frames of one burst: the usual distance is that of the others."""
    vectors = descriptors.astype(np.float32)
    chosen = np.zeros(len(vectors), np.bool_)
    if len(vectors):
        distances = 1 - vectors @ vectors.T
        alike = distances <= ALIKE * np.quantile(distances, 0.95, axis=1, keepdims=True)
        for number, row in enumerate(alike):
            chosen[number] = not (row & chosen).any()
    return chosen
