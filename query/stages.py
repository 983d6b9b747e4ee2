"""The two stages over one or several views, each an example in a feature space: recall by descriptors, then the full
score, judged by chance."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from diffsim.retrieval.chance import NULL_SAMPLE, Tail, fit_tail

from .view import REGION_FACTOR, View, score_views


def recall_candidates(views: Sequence[View], count: int | None, *, include_self: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first stage: the `count` nearest of each view of positive weight (None: every picture), best place first.

    A region recalls more, see view.py. Returns ids int64 and cosines float32 in the view that ranks a picture highest.
    """
    best: dict[int, tuple[int, float]] = {}
    left_out = np.empty(0, np.int64) if include_self else examples_of(views)
    for view in views:
        if view.weight < 0:
            continue
        wanted = None if count is None or view.scores_all else count * (REGION_FACTOR if view.region else 1)
        ids, similarities = view.recall(None if wanted is None else wanted + len(left_out))
        keep = ~np.isin(ids, left_out)
        kept = zip(ids[keep][:wanted].tolist(), similarities[keep][:wanted].tolist(), strict=True)
        for place, (content_id, similarity) in enumerate(kept):
            if content_id not in best or place < best[content_id][0]:
                best[content_id] = place, similarity
    ordered = sorted(best, key=lambda content_id: best[content_id][0])
    return np.array(ordered, np.int64), np.array([best[content_id][1] for content_id in ordered], np.float32)


def examples_of(views: Sequence[View]) -> np.ndarray:
    """The ids of the examples that are in the index, int64, ascending."""
    return np.unique(np.array([view.itself for view in views if view.itself is not None], np.int64))


def common_ids(views: Sequence[View]) -> np.ndarray:
    """The pictures that can be hits in every view, int64, ascending."""
    return reduce(np.intersect1d, (of_space[0].gallery.ids for of_space in _by_space(views)))


def score_candidates(views: Sequence[View], candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tail | None]:
    """The second stage: the candidates that every view could read, their scores, and what chance looks like.

    With several views a score is the sum over them of weight x score in units of the view's null spread: (score -
    mean) / standard deviation of its scores against the chance sample. The candidates are of the common pictures; the
    sample is of the whole collection, whatever the filters: what is like by chance is no matter of where one looks.
    """
    sample = _sample(views)
    wanted = np.concatenate([candidates, np.setdiff1d(sample, candidates)])
    by_space = _by_space(views)
    found = [score_views(of_space, wanted) for of_space in by_space]
    alone = len(views) == 1
    if alone:
        ids, (scores,) = found[0]
    else:
        ids = reduce(np.intersect1d, (ids for ids, _ in found))
        scores = np.zeros(len(ids), np.float64)
        for of_space, (read, rows) in zip(by_space, found, strict=True):
            for view, row in zip(of_space, rows, strict=True):
                scores += view.weight * _in_null_spreads(read, row, ids, sample)
        scores = scores.astype(np.float32)
    tail = fit_tail(scores[np.isin(ids, sample)], cosines=alone)
    candidate = np.isin(ids, candidates)
    return ids[candidate], scores[candidate], tail


def _by_space(views: Sequence[View]) -> list[list[View]]:
    spaces = dict.fromkeys(view.space.id for view in views)
    return [[view for view in views if view.space.id == space] for space in spaces]


def _sample(views: Sequence[View]) -> np.ndarray:
    galleries = [of_space[0].gallery for of_space in _by_space(views)]
    everywhere = reduce(np.intersect1d, (gallery.by_hash for gallery in galleries)) if len(galleries) > 1 else None
    return galleries[0].sample(NULL_SAMPLE, examples_of(views), everywhere)


def _in_null_spreads(ids: np.ndarray, scores: np.ndarray, wanted: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Scores of `wanted` (ascending) as distances from the mean of chance, in its standard deviations."""
    null = scores[np.isin(ids, sample)].astype(np.float64)
    order = np.argsort(ids)
    raw = scores[order][np.searchsorted(ids[order], wanted)]
    if not len(null):
        return raw
    standardised: np.ndarray = (raw - null.mean()) / max(float(null.std()), 1e-6)
    return standardised
