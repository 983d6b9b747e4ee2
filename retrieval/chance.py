"""Similarity judged against chance: how many pictures of this collection would score as high without being related?

The query is scored against a fixed sample of the collection; the upper part of these scores is treated as chance, and
its tail is extrapolated beyond the sample. Like BLAST's E-value, the figure is a number of pictures, not a percentage.
docs/chance.md measures how accurate it is.
"""

from dataclasses import dataclass

import numpy as np

NULL_SAMPLE = 256
"""Pictures scored to learn what chance looks like."""


@dataclass(frozen=True)
class Tail:
    """P(score > s) = share * (1 + (z(s) - threshold) / (points * scale)) ** -points above the threshold.

    The predictive form of an exponential tail whose scale was estimated from `points` exceedances: heavier than the
    exponential, so that a small sample gives cautious figures. Below the threshold the sample itself is counted.
    cosines: whether scores are in [-1, 1] and are stretched by Fisher's z first.
    """

    sample: np.ndarray
    threshold: float
    share: float
    scale: float
    points: float
    cosines: bool = True

    def expected(self, scores: np.ndarray, pictures: int) -> list[float]:
        """How many of `pictures` unrelated ones would score at least each of `scores` by chance."""
        z = _stretch(scores) if self.cosines else scores.astype(np.float64)
        above = (1 + np.maximum(z - self.threshold, 0) / (self.points * self.scale)) ** -self.points * self.share
        below = (len(self.sample) - np.searchsorted(self.sample, z) + 1) / (len(self.sample) + 1)
        chance = np.where(z >= self.threshold, above, below)
        return [float(f"{value:.2g}") for value in np.minimum(chance, 1) * pictures]


def _stretch(scores: np.ndarray) -> np.ndarray:
    """Fisher's z of a cosine, because bounded scores have no tail."""
    return np.arctanh(np.clip(scores.astype(np.float64), -1 + 1e-7, 1 - 1e-7))


def fit_tail(scores: np.ndarray, *, cosines: bool = True) -> Tail | None:
    """Fit to the query's scores against a sample, [n]; None for fewer than 20, which are too few for a figure."""
    if len(scores) < 20:
        return None
    z = np.sort(_stretch(scores) if cosines else scores.astype(np.float64))
    threshold = float(np.quantile(z, 0.75))
    excess = z[z > threshold] - threshold
    # The median, because the query's own relatives in the sample hardly move it; it is worth half as many points.
    scale = max(float(np.median(excess)) / np.log(2) if len(excess) else 0.0, 1e-6)
    return Tail(z, threshold, max(len(excess), 1) / len(z), scale, max(len(excess), 1) / 2, cosines)
