"""95 % intervals by bootstrap over independent units (percentile method; Efron and Tibshirani 1993, chapter 13).

Triplets and queries share pictures, so they are not independent: a whole style, subject or class is drawn at a time.
With few units the interval is rough and tends to be too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
FEW_UNITS = 10
"""With fewer units an interval should be read with care."""


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval; low and high are None if there are fewer than two units."""

    value: float
    low: float | None
    high: float | None


def mean_figure(values: np.ndarray, units: Sequence[str], seed: int) -> Figure:
    """The mean of `values`, float [n], and its interval when units (one name per value) are drawn with replacement.

    Deterministic for a seed, regardless of the order of the values.
    """
    value = float(values.mean())
    names, number = np.unique(np.array(units, object).astype(str), return_inverse=True)
    if len(names) < 2:
        return Figure(value, None, None)
    sums = np.bincount(number, values)
    counts = np.bincount(number)
    share = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), share, size=RESAMPLES)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), [2.5, 97.5])
    return Figure(value, float(low), float(high))
