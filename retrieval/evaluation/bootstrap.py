"""95 % intervals by bootstrap over independent units (percentile method; Efron and Tibshirani 1993, chapter 13).

Triplets and queries share pictures, so they are not independent: a whole style, subject or class is drawn at a time.
With few units the interval is rough, and rather too narrow.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
FEW_UNITS = 10
"""Below so many units an interval should be read with care."""


def unit_interval(values: np.ndarray, units: Sequence[str], seed: int) -> tuple[float | None, float | None]:
    """The interval of the mean of `values`, float [n], when units (one name per value) are drawn with replacement.

    None, None for fewer than two units. Deterministic for a seed, whatever the order of the values.
    """
    names, number = np.unique(np.array(units, object).astype(str), return_inverse=True)
    if len(names) < 2:
        return None, None
    sums = np.bincount(number, values)
    counts = np.bincount(number)
    share = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), share, size=RESAMPLES)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), [2.5, 97.5])
    return float(low), float(high)
