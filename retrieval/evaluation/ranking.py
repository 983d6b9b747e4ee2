"""Retrieval metrics by query: mean average precision, precision and recall among the first k."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bootstrap import Figure, mean_figure
from .triplets import DECIMALS, SEED, read_table

COUNTS = (1, 5, 10)


@dataclass(frozen=True)
class Labelled:
    """Pictures and their groups. lookalikes: two pictures of one lookalike group but of different groups are neither
    right nor wrong for each other; empty for a picture without one."""

    pictures: list[Path]
    groups: list[str]
    lookalikes: list[str]


@dataclass(frozen=True)
class Retrieval:
    """figures: `mAP`, `precision@k` and `recall@k` for k = 1, 5, 10, in 0..1, with intervals over the queries' groups.
    queries: those with a picture to find; alone: those without one, which are left out. groups: of the queries."""

    figures: dict[str, Figure]
    queries: int
    alone: int
    groups: int


def read_labelled(path: Path) -> Labelled:
    """Read a CSV with the columns file, group and optionally lookalike; paths are relative to the CSV's folder.

    Raises BadBenchmark.
    """
    rows = read_table(path, ("file", "group"))
    return Labelled(
        [path.parent / row["file"] for row in rows],
        [row["group"] for row in rows],
        [row.get("lookalike") or "" for row in rows],
    )


def sampled_queries(pictures: int, limit: int | None, seed: int) -> np.ndarray:
    """The query pictures, int64, ascending: all of them, or a seeded sample of `limit`."""
    if limit is None or limit >= pictures:
        return np.arange(pictures)
    return np.array(sorted(random.Random(seed).sample(range(pictures), limit)), np.int64)


def retrieval(scores: np.ndarray, queries: np.ndarray, labelled: Labelled, seed: int = SEED) -> Retrieval:
    """Metrics from scores, float [queries, pictures]; row i: the query picture `queries[i]`, which is not its own hit.

    Average precision is the mean, over the pictures to find, of the precision down to each of them. precision@k divides
    by k even if fewer than k are to be found; recall@k divides by how many are. Among equal scores (to six decimals)
    the wrong pictures come first, so that a tie never counts in favour of a method. A NaN score excludes its picture.
    """
    asked = zip(queries.tolist(), metrics_by_query(scores, queries, labelled), strict=True)
    found = [(labelled.groups[query], metrics) for query, metrics in asked if metrics is not None]
    units, rows = [unit for unit, _ in found], [metrics for _, metrics in found]
    names = ["mAP", *(f"precision@{k}" for k in COUNTS), *(f"recall@{k}" for k in COUNTS)]
    table = np.array(rows, np.float64).reshape(-1, len(names))
    columns = zip(names, table.T, strict=True) if rows else ()
    figures = {name: mean_figure(values, units, seed) for name, values in columns}
    return Retrieval(figures, len(rows), len(queries) - len(rows), len(set(units)))


def metrics_by_query(scores: np.ndarray, queries: np.ndarray, labelled: Labelled) -> list[list[float] | None]:
    """`query_metrics` of each row of `scores`, over the pictures that `retrieval` counts."""
    groups, lookalikes = np.array(labelled.groups, object), np.array(labelled.lookalikes, object)
    rows = []
    for query, row in zip(queries.tolist(), scores, strict=True):
        right = groups == groups[query]
        ignored = np.isnan(row) | ((lookalikes == lookalikes[query]) & (lookalikes != "") & ~right)
        ignored[query] = True
        rows.append(query_metrics(row[~ignored], right[~ignored]))
    return rows


def query_metrics(scores: np.ndarray, right: np.ndarray) -> list[float] | None:
    """One query's mAP, precision@1/5/10 and recall@1/5/10; None if there is nothing to find."""
    wanted = int(right.sum())
    if not wanted:
        return None
    hit = right[np.lexsort((right, -np.round(scores.astype(np.float64), DECIMALS)))]
    places = np.flatnonzero(hit) + 1
    found = [int(hit[:k].sum()) for k in COUNTS]
    precision = float(np.mean(np.arange(1, wanted + 1) / places))
    return [precision, *(n / k for n, k in zip(found, COUNTS, strict=True)), *(n / wanted for n in found)]
