"""What do the storage tiers cost in rank agreement, and would storing Q, K, V and the map pay?

    python benchmarks/tiers.py INDEX [INDEX ...] --queries 50

Each INDEX is one built with `diffsim index --tier fp32`. Its tokens are encoded again in every tier; queries pass
through the same tier. A seeded sample of its pictures asks, every picture is scored. Then the time of reranking 200
candidates from stored tokens (decoded and projected again), against records that hold Q, K, V or Q, K, V and the map
instead, all in fp16 and in memory, for the shapes of `mini` and of Stable Diffusion 1.5; and by the size of a batch.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

import diffsim
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import AttentionFeatures, attend, score
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.tiers import decode_tokens, encode_tokens, record_bytes

TIERS = ("fp32", "fp16", "int8")
SHAPES = {"mini": (64, 128, 4), "Stable Diffusion 1.5": (256, 1280, 8)}
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


def compare(index: Path, queries: int, pictures: int | None) -> None:
    """Print one line per tier."""
    searcher = diffsim.open(index)
    space = searcher.choose(None)
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
    click.echo(f"\n{index.name}: {space.name}, {len(stored)} pictures, {len(asking)} queries, shapes {kit.shapes}")
    click.echo("tier  bytes/picture  Kendall tau (lowest)  same top 10 (lowest)  same first  largest difference")
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
        click.echo(
            f"{tier:5} {record_bytes(kit.shapes, tier):13,d}  {np.mean(taus):.5f} ({min(taus):.5f})     "
            f"{100 * np.mean(same):5.1f}% ({100 * min(same):.0f}%)          {100 * first:5.1f}%     "
            f"{np.abs(exact - found).max():.1e}"
        )


def rerank_times(rounds: int, candidates: int) -> None:
    """What a candidate costs from each kind of record."""
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
        click.echo(f"\n{name} ({tokens} tokens, {channels} channels, {heads} heads), {candidates} candidates")
        base = statistics.median(taken["tokens"])
        for kind, (numbers, _) in kinds.items():
            middle = statistics.median(taken[kind])
            size = numbers * tokens * channels * 2
            click.echo(f"{kind:13} {size:10,d} bytes/picture  {1e3 * middle:8.1f} ms  ({middle / base:.2f} of tokens)")


def batch_times(rounds: int, most: int) -> None:
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
        click.echo(f"\n{name}, {candidates} candidates by batch: pictures, numbers, wall ms (least), CPU ms")
        for size in sizes:
            middle = 1e3 * statistics.median(wall[size])
            spent = 1e3 * statistics.median(processor[size])
            numbers = size * tokens * channels
            click.echo(f"{size:5} {numbers:10,d} {middle:9.1f} ({1e3 * min(wall[size]):.1f}) {spent:9.1f}")


@click.command()
@click.argument("indexes", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--queries", default=50, show_default=True)
@click.option("--pictures", type=int, help="A seeded part of each collection only.")
@click.option("--rounds", default=5, show_default=True, help="Of timing.")
@click.option("--candidates", default=456, show_default=True, help="At most so many are timed.")
def main(indexes: tuple[Path, ...], queries: int, pictures: int | None, rounds: int, candidates: int) -> None:
    """Rank agreement of the tiers, and rerank time by what is stored."""
    click.echo(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    with torch.inference_mode():
        for index in indexes:
            compare(index, queries, pictures)
        rerank_times(rounds, min(200, candidates))
        batch_times(rounds, candidates)


if __name__ == "__main__":
    main()
