"""What do the storage tiers cost in rank agreement, and would storing Q, K, V and the map pay?

    python benchmarks/tiers.py agreement INDEX [INDEX ...] --queries 50
    python benchmarks/tiers.py stored
    python benchmarks/tiers.py batches

agreement: each INDEX is one built with `diffsim index --tier fp32`. Its tokens are encoded again in every tier; queries
pass through the same tier. A seeded sample of its pictures asks, every picture is scored.
stored: the time of reranking 200 candidates from stored tokens (decoded and projected again), against records that
hold Q, K, V or Q, K, V and the map instead, all in fp16 and in memory. batches: from tokens, by the size of a batch.
Both for the shapes of one tap of `mini` and of Stable Diffusion 1.5.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from printing import table

import diffsim
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import AttentionFeatures, attend, score
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.tiers import decode_tokens, encode_tokens, record_bytes

TIERS = ("fp32", "fp16", "int8")
SHAPES = {"mini": (49, 224, 7), "Stable Diffusion 1.5": (256, 1280, 8)}
"""Tokens, channels, heads."""


def scores(kit: SpaceKit, records: list[tuple[int, bytes]], asking: np.ndarray) -> np.ndarray:
    """Float32 [queries, pictures]."""
    return score_queries(kit, [(kit.read([records[row][1]]), score) for row in asking], records)[1]


def without(row: np.ndarray, itself: int) -> np.ndarray:
    return np.delete(row, itself)


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau of two lists of scores: pairs in the same order minus pairs in the other, over all pairs."""
    agreed = np.count_nonzero((a[:, None] > a) == (b[:, None] > b)) - len(a)  # each pair twice, without the diagonal
    return 2 * agreed / (len(a) * (len(a) - 1)) - 1


def top(row: np.ndarray, count: int = 10) -> set[int]:
    return set(np.argsort(-row, kind="stable")[:count].tolist())


def compare(index: Path, name: str, queries: int, pictures: int | None) -> Iterator[list[str]]:
    """A row for each tier."""
    searcher = diffsim.open(index)
    space = searcher.choose(name)
    collection = searcher.collection
    collection.refresh([space])
    kit = collection.kit(space)
    if kit.settings.tier != "fp32":
        raise click.ClickException(f"{index} has the tier {kit.settings.tier}; index the pictures with --tier fp32.")
    generator = np.random.default_rng(0)
    ids = collection.ids(space.fingerprint)
    ids = ids if pictures is None else np.sort(generator.permutation(ids)[:pictures])
    asking = np.sort(generator.permutation(len(ids))[:queries])
    stored = [(content_id, bytes(record)) for content_id, record in collection.tokens(space.fingerprint, ids)]
    exact: np.ndarray | None = None
    for tier in TIERS:
        coarse = replace(kit, space=replace(kit.space, settings=replace(kit.settings, tier=tier)))
        records = []
        for content_id, record in stored:
            tokens = decode_tokens([record], kit.shapes, "fp32")
            records.append((content_id, encode_tokens([tap[0] for tap in tokens], tier)))
        found = scores(coarse, records, asking)
        exact = found if exact is None else exact
        pairs = [(without(a, i), without(b, i)) for a, b, i in zip(exact, found, asking, strict=True)]
        taus = [kendall(a, b) for a, b in pairs]
        same = [len(top(a) & top(b)) / 10 for a, b in pairs]
        first = np.mean([a.argmax() == b.argmax() for a, b in pairs])
        yield [
            f"{len(ids):,} of {index.name}",
            space.name,
            tier,
            f"{record_bytes(kit.shapes, tier):,}",
            f"{np.mean(taus):.5f} ({min(taus):.5f})",
            f"{100 * np.mean(same):.1f} % ({100 * min(same):.0f} %)",
            f"{100 * first:.0f} %",
            f"{np.abs(exact - found).max():.5f}",
        ]


def rerank_times(rounds: int, candidates: int) -> Iterator[list[str]]:
    """What the candidates cost from each kind of record."""
    for name, (tokens, channels, heads) in SHAPES.items():
        torch.manual_seed(0)
        project = Projection(heads, (torch.randn(3 * channels, channels) / channels**0.5,), (None,))
        stored = torch.randn(candidates, tokens, channels).half()
        query = project([stored[:1]])
        batch = max(1, 700_000 // (tokens * channels))  # as score_queries does it on a CPU
        parts = [project([chunk]) for chunk in stored.split(batch)]
        qkv = [torch.cat([getattr(part, which).half() for part in parts]) for which in ("query", "key", "value")]
        with_map = [*qkv, torch.cat([part.map.half() for part in parts])]

        def from_tokens(rows: slice, stored: torch.Tensor = stored, project: Projection = project) -> AttentionFeatures:
            return project([stored[rows]])

        def from_qkv(rows: slice, qkv: list[torch.Tensor] = qkv) -> AttentionFeatures:
            query, key, value = (part[rows].float() for part in qkv)
            return AttentionFeatures(query, key, value, attend(query, key, value))

        def from_map(rows: slice, with_map: list[torch.Tensor] = with_map) -> AttentionFeatures:
            return AttentionFeatures(*(part[rows].float() for part in with_map))

        kinds: dict[str, tuple[int, Callable[[slice], AttentionFeatures]]] = {
            "tokens": (1, from_tokens),
            "Q, K, V": (3, from_qkv),
            "Q, K, V, map": (4, from_map),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(rounds + 1):
            for kind, (_, load) in kinds.items():
                started = time.perf_counter()
                for start in range(0, candidates, batch):
                    score([query], [load(slice(start, start + batch))], [1.0])
                if turn:
                    taken[kind].append(time.perf_counter() - started)
        base = statistics.median(taken["tokens"])
        for kind, (numbers, _) in kinds.items():
            middle = statistics.median(taken[kind])
            size = numbers * tokens * channels * 2
            yield [name, kind, f"{size:,}", f"{1e3 * middle:.1f}", f"{middle / base:.2f}"]


def batch_times(rounds: int, most: int) -> Iterator[list[str]]:
    """What reranking from stored tokens costs by the size of a batch, all sizes in turn; the scores must not change."""
    for name, (tokens, channels, heads) in SHAPES.items():
        torch.manual_seed(0)
        candidates = min(most, 456 if name == "mini" else 48)
        project = Projection(heads, (torch.randn(3 * channels, channels) / channels**0.5,), (None,))
        records = [encode_tokens([torch.randn(tokens, channels)], "fp16") for _ in range(candidates)]
        query = project([torch.randn(1, tokens, channels)])
        sizes = sorted({max(1, int(floats) // (tokens * channels)) for floats in (7e4, 2.5e5, 7e5, 1e6, 2e6, 8e6)})
        wall: dict[int, list[float]] = {size: [] for size in sizes}
        processor: dict[int, list[float]] = {size: [] for size in sizes}
        first: torch.Tensor | None = None
        for turn in range(rounds + 1):
            for size in sizes:
                started, used = time.perf_counter(), time.process_time()
                parts = []
                for at in range(0, candidates, size):
                    stored = decode_tokens(records[at : at + size], [(tokens, channels)], "fp16")
                    parts.append(score([query], [project([stored[0]])], [1.0]))
                found = torch.cat(parts)
                if turn:
                    wall[size].append(time.perf_counter() - started)
                    processor[size].append(time.process_time() - used)
                first = found if first is None else first
                assert (found - first).abs().max() < 1e-6
        for size in sizes:
            middle, least = (1e3 * each for each in (statistics.median(wall[size]), min(wall[size])))
            numbers = size * tokens * channels
            spent = 1e3 * statistics.median(processor[size])
            yield [
                f"{name}, {candidates} records",
                f"{size}",
                f"{numbers:,}",
                f"{middle:.0f} ({least:.0f})",
                f"{spent:.0f}",
            ]


_rounds = click.option("--rounds", default=5, show_default=True, help="Of timing.")


@click.group()
def main() -> None:
    """Rank agreement of the tiers, and rerank time by what is stored."""


@main.command()
@click.argument("indexes", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--space", "spaces", multiple=True, default=("style", "look"), show_default=True)
@click.option("--queries", default=50, show_default=True)
@click.option("--pictures", type=int, help="A seeded part of each collection only.")
def agreement(indexes: tuple[Path, ...], spaces: tuple[str, ...], queries: int, pictures: int | None) -> None:
    """How far the rankings of each tier agree with those of fp32; in brackets the worst query."""
    head = (
        "collection",
        "space",
        "tier",
        "bytes/picture",
        "Kendall tau",
        "same top 10",
        "same first",
        "largest change",
    )
    with torch.inference_mode():
        table(head, (row for index in indexes for name in spaces for row in compare(index, name, queries, pictures)))


@main.command()
@_rounds
@click.option("--candidates", default=200, show_default=True)
def stored(rounds: int, candidates: int) -> None:
    """What candidates cost from records that hold more than tokens."""
    click.echo(f"{candidates} candidates, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}.")
    with torch.inference_mode():
        table(("shape", "stored", "bytes/picture", "ms", "of tokens"), rerank_times(rounds, candidates))


@main.command()
@_rounds
@click.option("--candidates", default=456, show_default=True, help="At most so many.")
def batches(rounds: int, candidates: int) -> None:
    """What candidates cost by how many are scored at once."""
    click.echo(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}.")
    with torch.inference_mode():
        table(("shape", "at once", "numbers", "wall (least), ms", "CPU, ms"), batch_times(rounds, candidates))


if __name__ == "__main__":
    main()
