"""Which pooling brings the exhaustive top 10 into the first stage's candidates?

    python benchmarks/pooling.py INDEX --space style --space look --queries 200 [--pictures 2000]

INDEX holds the collection, indexed with `diffsim index`. A seeded sample of its pictures asks; every query is scored
against every other picture with the full token-level score, and each pooling is judged by the share of that top 10 that
it ranks among its own first 50, 100, 200 and 400. The last rows add a middle stage: the first 800 by the kept pooling
are ordered by the score of 16 tokens a tap, merged or picked. Of a space with several taps, each is pooled, and the
unit vectors are joined as they are in the index. Intervals are 95 %, by bootstrap over the queries.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from printing import share, table
from torch import Tensor

import diffsim
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.score import AttentionFeatures, score
from diffsim.retrieval.tiers import decode_tokens

Records = Callable[[np.ndarray], list[bytes]]
"""Token records of ids, in their order."""

COUNTS = (50, 100, 200, 400)
KEPT = "map: mean + std"
MIDDLE = 800
"""Candidates that the middle stage takes from the first."""
FEWER = 4
"""The middle stage has a grid of 4 x 4 tokens."""


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def _mean_std(x: Tensor, share: float = 1.0) -> Tensor:
    """share: what the standard deviation is multiplied with."""
    deviation, mean = torch.std_mean(x, dim=2, correction=0)
    return torch.cat([mean, share * deviation], dim=2)


def _cells(x: Tensor, side: int) -> Tensor:
    pictures, heads, tokens, channels = x.shape
    grid = round(tokens**0.5)
    image = x.permute(0, 1, 3, 2).reshape(pictures, heads * channels, grid, grid)
    return F.adaptive_avg_pool2d(image, side)


def _gem(x: Tensor, power: float = 3.0) -> Tensor:
    mean = (x.sign() * x.abs() ** power).mean(dim=2)
    return mean.sign() * mean.abs() ** (1 / power)


POOLINGS: dict[str, Callable[[AttentionFeatures], Tensor]] = {
    "map: mean": lambda tap: _flat(tap.map.mean(2)),
    "map: mean, per head": lambda tap: _flat(F.normalize(tap.map.mean(2), dim=2)),
    "map: standard deviation": lambda tap: _flat(tap.map.std(2, correction=0)),
    KEPT: lambda tap: _flat(_mean_std(tap.map)),
    "map: mean + 0.7 std": lambda tap: _flat(_mean_std(tap.map, 0.7)),
    "map: mean + 1.5 std": lambda tap: _flat(_mean_std(tap.map, 1.5)),
    "map: mean + std, per head": lambda tap: _flat(F.normalize(_mean_std(tap.map), dim=2)),
    "map: GeM 3": lambda tap: _flat(_gem(tap.map)),
    "map: 2 x 2 cells": lambda tap: _flat(_cells(tap.map, 2)),
    "map: 4 x 4 cells": lambda tap: _flat(_cells(tap.map, 4)),
    "value: mean": lambda tap: _flat(tap.value.mean(2)),
    "value: mean + std": lambda tap: _flat(_mean_std(tap.value)),
    "value mean + map mean": lambda tap: torch.cat(
        [F.normalize(_flat(part.mean(2)), dim=1) for part in (tap.value, tap.map)], dim=1
    ),
}


Taps = tuple[AttentionFeatures, ...]


def chunks(records: Records, kit: SpaceKit, ids: np.ndarray, size: int = 64) -> Iterator[Taps]:
    """Attention features of the pictures, a few at a time."""
    for start in range(0, len(ids), size):
        yield kit.read(records(ids[start : start + size]))


def taken(taps: Taps, rows: slice | Tensor) -> Taps:
    """Those of some of the pictures."""
    return tuple(AttentionFeatures(*(part[rows] for part in (tap.query, tap.key, tap.value, tap.map))) for tap in taps)


def joined(taps: Taps, weights: Sequence[float], pooling: Callable[[AttentionFeatures], Tensor]) -> Tensor:
    """Unit vectors [pictures, dimensions] of all taps together."""
    parts = [F.normalize(pooling(tap), dim=1) * weight**0.5 for tap, weight in zip(taps, weights, strict=True)]
    return F.normalize(torch.cat(parts, dim=1), dim=1)


def exhaustive(
    records: Records, kit: SpaceKit, ids: np.ndarray, asking: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores [queries, pictures] of `asking` (positions) against all, and every pooling's unit vectors."""
    asked = list(chunks(records, kit, ids[asking], 1))
    scores = np.empty((len(asking), len(ids)), np.float32)
    pooled: dict[str, list[Tensor]] = {name: [] for name in POOLINGS}
    done = 0
    with click.progressbar(length=len(ids), label="Scoring every picture", file=sys.stderr) as bar:
        for taps in chunks(records, kit, ids):
            count = len(taps[0])
            for row, one in enumerate(asked):
                scores[row, done : done + count] = score(one, taps, kit.weights).numpy()
            for name, pooling in POOLINGS.items():
                pooled[name].append(joined(taps, kit.weights, pooling))
            done += count
            bar.update(count)
    return scores, {name: torch.cat(vectors).numpy() for name, vectors in pooled.items()}


def reduced(vectors: np.ndarray, dimensions: int, whiten: bool) -> np.ndarray:
    """The leading principal components of unit vectors, renormalised."""
    centred = vectors - vectors.mean(0)
    _, deviations, axes = np.linalg.svd(centred[:: max(1, len(centred) // 4000)], full_matrices=False)
    projected = centred @ axes[:dimensions].T
    if whiten:
        projected = projected / deviations[:dimensions]
    return projected / np.linalg.norm(projected, axis=1, keepdims=True)


def fewer_tokens(records: Records, kit: SpaceKit, ids: np.ndarray, merge: bool) -> Taps:
    """Attention features of all the pictures on a 4 x 4 grid: their tokens averaged over its cells, or one of each."""
    parts: list[list[Tensor]] = [[] for _ in kit.shapes]
    for start in range(0, len(ids), 256):
        matrices = decode_tokens(records(ids[start : start + 256]), kit.shapes, kit.settings.tier)
        for tokens, part in zip(matrices, parts, strict=True):
            side = round(tokens.shape[1] ** 0.5)
            grid = tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
            small = F.adaptive_avg_pool2d(grid, FEWER) if merge else F.interpolate(grid, FEWER, mode="nearest-exact")
            part.append(small.flatten(2).transpose(1, 2))
    return kit.attention([torch.cat(part) for part in parts])


def middle_stage(taps: Taps, weights: Sequence[float], similarities: np.ndarray, asking: np.ndarray) -> np.ndarray:
    """The pooled similarities [queries, pictures] with the first MIDDLE of each row put in the order of the fewer
    tokens' score, before all others."""
    ordered = similarities.copy()
    for row, itself in enumerate(asking):
        first = torch.from_numpy(np.argsort(-similarities[row])[:MIDDLE].copy())
        asked = taken(taps, slice(int(itself), int(itself) + 1))
        ordered[row, first] = 10 + score(asked, taken(taps, first), weights).numpy()
    return ordered


def brought_in(scores: np.ndarray, similarities: np.ndarray, asking: np.ndarray, top: int = 10) -> np.ndarray:
    """Share of each query's exhaustive top that is among the first by similarity, [queries, COUNTS]."""
    shares = np.empty((len(asking), len(COUNTS)))
    for row, itself in enumerate(asking):
        exact, pooled = scores[row].copy(), similarities[row].copy()
        exact[itself] = pooled[itself] = -2
        wanted = np.argsort(-exact)[:top]
        place = np.argsort(np.argsort(-pooled))[wanted]
        shares[row] = [(place < count).mean() for count in COUNTS]
    return shares


def agreement(scores: np.ndarray, similarities: np.ndarray, asking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each query's two rankings, by the full score and by descriptors: Kendall's tau, and the share of the top 10
    that both have. [queries]; nobody finds itself."""
    taus, shares = [], []
    for row, itself in enumerate(asking):
        full, pooled = np.delete(scores[row], itself), np.delete(similarities[row], itself)
        later = np.triu_indices(len(full), 1)
        signs = [np.sign(order[later[0]] - order[later[1]]) for order in (full, pooled)]
        taus.append(float((signs[0] * signs[1]).mean()))
        shares.append(len(set(np.argsort(-full)[:10]) & set(np.argsort(-pooled)[:10])) / 10)
    return np.array(taus), np.array(shares)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of bootstrap means over the queries."""
    picks = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


@click.command()
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.option("--space", "spaces", multiple=True, required=True, help="Feature space by name or fingerprint.")
@click.option("--queries", default=200, show_default=True)
@click.option("--pictures", type=int, help="A seeded part of the collection only.")
@click.option("--seed", default=0, show_default=True)
def main(index: Path, spaces: tuple[str, ...], queries: int, pictures: int | None, seed: int) -> None:
    """Compare poolings on an index."""
    searcher = diffsim.open(index)
    head = ("space", "pooling", "bytes", *(f"within {count}" for count in COUNTS))
    agreements: list[list[str]] = []
    table(head, (row for name in spaces for row in measured(searcher, name, queries, pictures, seed, agreements)))
    table(("space", f"{KEPT} and the full score: Kendall's tau", "same top 10, %"), agreements)


def measured(
    searcher: diffsim.Searcher, name: str, queries: int, pictures: int | None, seed: int, agreements: list[list[str]]
) -> Iterator[list[str]]:
    """A row for each pooling; adds a row to `agreements`."""
    known = searcher.choose(name)
    collection = searcher.collection
    collection.refresh([known])
    kit = collection.kit(known)
    generator = np.random.default_rng(seed)
    ids = collection.ids(known.fingerprint)
    ids = ids if pictures is None else np.sort(generator.choice(ids, min(pictures, len(ids)), replace=False))

    def records(wanted: np.ndarray) -> list[bytes]:
        found = {row: bytes(record) for row, record in collection.tokens(known.fingerprint, wanted)}
        return [found[row] for row in wanted.tolist()]

    asking = np.sort(generator.choice(len(ids), min(queries, len(ids)), replace=False))
    with torch.inference_mode():
        scores, vectors = exhaustive(records, kit, ids, asking)
    best = vectors[KEPT]
    for dimensions in (64, 128, 256):
        if dimensions < best.shape[1]:
            vectors[f"{KEPT}, PCA {dimensions}"] = reduced(best, dimensions, whiten=False)
            vectors[f"{KEPT}, PCA {dimensions} whitened"] = reduced(best, dimensions, whiten=True)
    orders = {title: (2 * matrix.shape[1], matrix[asking] @ matrix.T) for title, matrix in vectors.items()}
    if min(tokens for tokens, _ in kit.shapes) > FEWER**2:
        size, similarities = orders[KEPT]
        for title, merge in (("merged", True), ("picked", False)):
            with torch.inference_mode():
                fewer = fewer_tokens(records, kit, ids, merge)
                ordered = middle_stage(fewer, kit.weights, similarities, asking)
            more = 2 * FEWER**2 * sum(channels for _, channels in kit.shapes)
            orders[f"{KEPT}, then 16 {title} tokens"] = (size + more, ordered)
    for title, (size, similarities) in orders.items():
        shares = brought_in(scores, similarities, asking)
        cells = [share(column.mean(), *interval(column)) for column in shares.T]
        yield [known.name, title, f"{size}", *cells]
    taus, tops = agreement(scores, orders[KEPT][1], asking)
    low, high = interval(taus)
    agreements.append([known.name, f"{taus.mean():.3f} ({low:.3f}-{high:.3f})", share(tops.mean(), *interval(tops))])


if __name__ == "__main__":
    main()
