"""The two stages over one or several feature spaces: recall by descriptors, then the full score, judged by chance."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from retrieval.chance import NULL_SAMPLE, Tail, fit_tail

from .view import View


def recall_candidates(views: Sequence[View], count: int | None, *, include_self: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first stage: the `count` nearest of each view (None: every picture), best place first.

    Returns ids int64 and cosines float32 in the view that ranks the picture highest.
    """
    best: dict[int, tuple[int, float]] = {}
    for view in views:
        ids, similarities = view.recall(None if count is None else count + 1)
        keep = ids != (None if include_self else view.itself)
        kept = zip(ids[keep][:count].tolist(), similarities[keep][:count].tolist(), strict=True)
        for place, (content_id, similarity) in enumerate(kept):
            if content_id not in best or place < best[content_id][0]:
                best[content_id] = place, similarity
    ordered = sorted(best, key=lambda content_id: best[content_id][0])
    return np.array(ordered, np.int64), np.array([best[content_id][1] for content_id in ordered], np.float32)


def common_ids(views: Sequence[View]) -> np.ndarray:
    """The pictures that every view has, int64, ascending."""
    return reduce(np.intersect1d, (view.gallery.ids for view in views))


def score_candidates(
    views: Sequence[View], candidates: np.ndarray, common: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Tail | None]:
    """The second stage: the candidates that every view could read, their scores, and what chance looks like.

    With several views a score is the mean over them, each in units of its null spread: (score - mean) / standard
    deviation of the view's scores against the chance sample. candidates and the sample are of the `common` pictures.
    """
    alone = len(views) == 1
    sample = views[0].gallery.sample(NULL_SAMPLE, views[0].itself, None if alone else common)
    found = [view.score(np.concatenate([candidates, np.setdiff1d(sample, candidates)])) for view in views]
    if alone:
        ids, scores = found[0]
    else:
        ids = reduce(np.intersect1d, (ids for ids, _ in found))
        scores = np.stack([_in_null_spreads(*each, ids, sample) for each in found]).mean(0).astype(np.float32)
    tail = fit_tail(scores[np.isin(ids, sample)], cosines=alone)
    candidate = np.isin(ids, candidates)
    return ids[candidate], scores[candidate], tail


def _in_null_spreads(ids: np.ndarray, scores: np.ndarray, wanted: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Scores of `wanted` (ascending) as distances from the mean of chance, in its standard deviations."""
    null = scores[np.isin(ids, sample)].astype(np.float64)
    order = np.argsort(ids)
    raw = scores[order][np.searchsorted(ids[order], wanted)]
    if not len(null):
        return raw
    standardised: np.ndarray = (raw - null.mean()) / max(float(null.std()), 1e-6)
    return standardised
