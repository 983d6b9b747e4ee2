"""Similarity judged against chance: how many pictures of this collection would score as high without being related?

The query is scored against a fixed sample of the collection. From these scores come two figures for every hit. Its
likeness says how far it stands above the middle of the sample, in units of the sample's spread: one scale for every
query, feature space and combination of these. And its figure by chance extrapolates the tail of the sample; like
BLAST's E-value it is a number of pictures, not a percentage. docs/chance.md measures how accurate it is.
"""

from dataclasses import dataclass

import numpy as np

NULL_SAMPLE = 256
"""Pictures scored to learn what chance looks like."""

FEWEST = 20
"""Fewer pictures support no figure."""

GAP = 3.5
"""The sample falls into strangers and relatives of the query if their means are this many standard deviations apart;
the halves of a normal distribution are 2.6 apart (docs/chance.md)."""

_CARE = 1.15
"""The tail is taken to be this much wider than it is found: fitted to few pictures, it is too narrow as often as too
wide, and the promise is about the former (docs/chance.md)."""


def combined(rows: np.ndarray, weights: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of several parts as one, and how much more similar than the sample's that is.

    rows: scores [parts, n] in [-1, 1]; weights: of the parts, [parts]. null: bool [n], which pictures are the sample.
    Returns scores float32 [n], those of a single part as they are, else the sum of weight x score in standard
    deviations from the mean of the part's scores of the sample; and likenesses float64 [n].
    """
    scores = rows.astype(np.float64)
    means, deviations = np.zeros(len(rows)), np.ones(len(rows))
    if null.any():
        means, deviations = scores[:, null].mean(1), np.maximum(scores[:, null].std(1), 1e-6)
    scales = weights / deviations
    total = scales @ (scores - means[:, None])
    # As a cosine: the highest sum that there can be is 1, and a sum of 0 the parts' mean score of the sample.
    highest = float(scales @ (np.sign(weights) - means))
    middle = float(np.abs(weights) @ means / np.abs(weights).sum())
    likeness = _in_spreads(middle + total / highest * (1 - middle), null)
    return (rows[0] if len(rows) == 1 else total.astype(np.float32)), likeness


def _in_spreads(cosines: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Distances from the middle of the sample in its spread, of Fisher's z, because bounded scores have no tail.

    The spread is the standard deviation of a normal distribution with the same distance from its middle to its lowest
    tenth: relatives of the query, which are above, do not widen it.
    """
    z: np.ndarray = np.arctanh(np.clip(cosines, -1 + 1e-7, 1 - 1e-7))
    if null.any():
        low, middle = np.quantile(z[null], (0.1, 0.5)).tolist()
        z = (z - middle) / max((middle - low) / 1.2816, 1e-3)
    return z


@dataclass(frozen=True)
class Tail:
    """P(likeness > x) = share * (1 + (x - threshold) / (points * scale)) ** -points above the threshold.

    The predictive form of an exponential tail whose scale was estimated from `points` exceedances: heavier than the
    exponential, so that a small sample gives cautious figures. Below the threshold the sample itself is counted.
    """

    sample: np.ndarray
    threshold: float
    share: float
    scale: float
    points: float

    def expected(self, likeness: np.ndarray, pictures: int) -> list[float]:
        """How many of `pictures` unrelated ones would have at least each likeness by chance."""
        excess = np.maximum(likeness - self.threshold, 0)
        above = (1 + excess / (self.points * self.scale)) ** -self.points * self.share
        below = (len(self.sample) - np.searchsorted(self.sample, likeness) + 1) / (len(self.sample) + 1)
        chance = np.where(likeness >= self.threshold, above, below)
        return [float(f"{value:.2g}") for value in np.minimum(chance, 1) * pictures]


def fit_tail(likeness: np.ndarray) -> Tail | None:
    """Fit to the likeness of the sample, [n]; None for fewer than FEWEST pictures."""
    if len(likeness) < FEWEST:
        return None
    sample = np.sort(likeness.astype(np.float64))
    strangers = sample[: _strangers(sample)]
    threshold = float(np.quantile(strangers, 0.75))
    excess = strangers[strangers > threshold] - threshold
    # The median, because the query's own relatives in the sample hardly move it; it is worth half as many points.
    scale = max(_CARE * float(np.median(excess)) / np.log(2) if len(excess) else 0.0, 1e-6)
    return Tail(sample, threshold, max(len(excess), 1) / len(sample), scale, max(len(excess), 1) / 2)


def _strangers(sample: np.ndarray) -> int:
    """How many of a sorted sample [n] are no relatives of the query: all, unless it clearly falls into two parts. The
    parts are those of the least variance within (Otsu); relatives are at most half of the sample."""
    count = len(sample)
    low = np.arange(1, count)
    high = count - low
    sums, squares = np.cumsum(sample), np.cumsum(sample**2)
    low_mean, high_mean = sums[:-1] / low, (sums[-1] - sums[:-1]) / high
    low_variance = squares[:-1] / low - low_mean**2
    high_variance = (squares[-1] - squares[:-1]) / high - high_mean**2
    within = np.where((high >= max(8, count // 32)) & (low >= high), low * low_variance + high * high_variance, np.inf)
    best = int(within.argmin())
    if not np.isfinite(within[best]):
        return count
    deviation = np.sqrt(max((low_variance[best] + high_variance[best]) / 2, 1e-12))
    return best + 1 if high_mean[best] - low_mean[best] > GAP * deviation else count
