"""What does a query cost on 10,000 pictures, and how far does comparing every descriptor reach?

    python benchmarks/querying.py LIKE --pictures 10000 --scratch FOLDER

LIKE is a small real index; the large one is filled, through the project's own stores, with synthetic records: blends of
its pictures' tokens, so that they cluster as real ones do. Its files hold a few bytes each, which is enough to be asked
with, because an indexed picture is known by its hash. Files are in the page cache throughout.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import torch
from PIL import Image

import diffsim
from diffsim.db.files import Finding
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.recall_files import refresh_recall
from diffsim.retrieval.chance import NULL_SAMPLE
from diffsim.retrieval.shard.recall import (
    EXACT_LIMIT,
    OverBudget,
    build_recall_file,
    open_recall_file,
    search_exact,
    search_file,
)
from diffsim.retrieval.shard.rerank import score_records
from diffsim.retrieval.shard.store import Record
from diffsim.retrieval.tiers import decode_tokens, encode_tokens

MEMORY = 2**30


def fill(like: Path, index: Path, folder: Path, pictures: int) -> None:
    """A synthetic index of `pictures` files in `folder`, in the feature space of `like`."""
    real = diffsim.open(like)
    space = real.choose(None)
    gallery, kit = real.gallery(space), real.kit(space)
    some = gallery.ids[np.random.default_rng(0).permutation(len(gallery.ids))[:2000]]
    records = [bytes(record) for _, record in gallery.tokens(some)]
    tokens = decode_tokens(records, kit.shapes, kit.settings.tier)
    folder.mkdir(parents=True)
    target = IndexFolder.create(index)
    kit.save(target.space(space.fingerprint))
    with target.catalog(create=True) as catalog, target.store(space.fingerprint, 0, readonly=False) as store:
        space_id = catalog.add_space(space.fingerprint, space.name, space.network, space.record, adapter=space.adapter)
        root = catalog.files.add_root(os.fsencode(folder))
        generator = torch.Generator().manual_seed(0)
        for start in range(0, pictures, 500):
            names = [f"{number:06d}.png" for number in range(start, min(start + 500, pictures))]
            findings = []
            for name in names:
                (folder / name).write_text(name)
                sha = hashlib.sha256(name.encode()).digest()
                stat = (folder / name).stat()
                times = (stat.st_mtime_ns, stat.st_ctime_ns)
                findings.append(Finding(None, root.id, name.encode(), stat.st_size, *times, sha, None))
            catalog.files.write(findings, [])
            held = catalog.files.holders([finding.sha256 for finding in findings if finding.sha256])
            pairs = torch.randint(len(records), (2, len(names)), generator=generator)
            share = torch.rand(len(names), 1, 1, generator=generator) * 0.5
            blends = [(1 - share) * tap[pairs[0]] + share * tap[pairs[1]] for tap in tokens]
            coded = [encode_tokens([tap[row] for tap in blends], kit.settings.tier) for row in range(len(names))]
            descriptors = kit.descriptors(kit.attention(blends)).half().numpy()
            ids = [held[finding.sha256].content_id for finding in findings if finding.sha256]
            shas = [finding.sha256 for finding in findings if finding.sha256]
            store.put(Record(*row) for row in zip(ids, shas, descriptors, coded, strict=True))
            catalog.mark_indexed([space_id], [(row, "PNG", 128, 128) for row in ids])
        (known,) = catalog.spaces()
        refresh_recall(target, catalog, [known], MEMORY)


def timed(work: Callable[[], Any], times: int) -> float:
    """Median milliseconds, after one call that is not counted."""
    work()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def commands(index: Path, inside: Path, outside: Path) -> None:
    command = Path(sys.executable).with_name("diffsim")
    for title, picture in (("indexed picture", inside), ("other picture", outside)):
        arguments = [command, "query", picture, "--index", index]
        spent = timed(lambda arguments=arguments: subprocess.run(arguments, check=True, capture_output=True), 5)
        click.echo(f"diffsim query, {title:16} {spent / 1e3:7.2f} s (new process)")


def stages(index: Path, inside: list[Path], outside: Path) -> None:
    """Warm search from Python, as a whole and by stages."""
    searcher = diffsim.open(index)
    turn = iter(inside * 20)
    whole = timed(lambda: searcher.search(next(turn)), 20)
    other = timed(lambda: searcher.search(outside), 20)
    click.echo(f"search, indexed picture         {whole:7.1f} ms (warm, median of 20)")
    click.echo(f"search, other picture           {other:7.1f} ms (warm, median of 20; decodes and extracts it)")
    space = searcher.choose(None)
    gallery, kit = searcher.gallery(space), searcher.kit(space)
    content_id = int(gallery.ids[5])
    descriptor, record = gallery.record(content_id) or (np.empty(0), b"")
    query = kit.attention(decode_tokens([record], kit.shapes, kit.settings.tier))
    recalled, _ = gallery.recall(descriptor, 200)
    sample = gallery.sample(NULL_SAMPLE, np.array([content_id]))
    wanted = np.concatenate([recalled, np.setdiff1d(sample, recalled)])
    held = list(gallery.tokens(wanted))
    parts: dict[str, Callable[[], Any]] = {
        "catalog (has anything changed?)": lambda: searcher.gallery(searcher.choose(None)),
        "recall of 200": lambda: gallery.recall(descriptor, 200),
        "choose the null sample": lambda: gallery.sample(NULL_SAMPLE, np.array([content_id])),
        f"read {len(wanted)} token records": lambda: list(gallery.tokens(wanted)),
        f"score {len(wanted)} records": lambda: score_records(kit, query, held),
    }
    spent = {name: timed(work, 20) for name, work in parts.items()}
    spent["the rest (hash, own record, files of the hits)"] = whole - sum(spent.values())
    for name, each in spent.items():
        click.echo(f"  {name:46} {each:7.1f} ms  {100 * each / whole:5.1f}%")
    rerank = timed(lambda: score_records(kit, query, gallery.tokens(recalled)), 20)
    click.echo(f"rerank of 200 candidates alone  {rerank:7.1f} ms (read and scored)")


def resident(index: Path, picture: Path) -> None:
    """Memory that is the process's own (what is mapped from files can be dropped), printed for the parent."""
    searcher = diffsim.open(index)
    for _ in range(3):
        searcher.search(picture)
    lines = Path("/proc/self/status").read_text().splitlines()
    own, mapped = (
        next(int(line.split()[1]) for line in lines if line.startswith(key)) for key in ("RssAnon", "RssFile")
    )
    gallery = searcher.gallery(searcher.choose(None))
    click.echo(f"{own / 1e3:.1f} {mapped / 1e3:.1f} {gallery.all_descriptors()[1].nbytes / 1e6:.2f}")


def queries(like: Path, scratch: Path, pictures: int) -> None:
    """Everything about asking a filled index."""
    outside = scratch / "outside.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(outside)
    counts = (pictures // 10, pictures)
    for count in counts:
        fill(like, scratch / f"{count}.idx", scratch / f"{count}", count)
    files = sorted((scratch / f"{pictures}").iterdir())[5 : pictures // 5 : pictures // 100]
    commands(scratch / f"{pictures}.idx", files[0], outside)
    stages(scratch / f"{pictures}.idx", files, outside)
    for count in counts:
        asked = ["--resident-of", str(scratch / f"{count}.idx"), str(scratch / f"{count}" / "000005.png")]
        child = [sys.executable, __file__, str(like), *asked]
        own, mapped, size = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
        click.echo(f"{count:6d} pictures: {own} MB resident, {mapped} MB mapped files; descriptors {size} MB")


def recall_stage(like: Path, scratch: Path, sizes: tuple[int, ...]) -> None:
    """Descriptors alone: every one compared, by lists, and within smaller memory budgets."""
    real = diffsim.open(like)
    vectors = real.gallery(real.choose(None)).all_descriptors()[1].astype(np.float32)
    generator = np.random.default_rng(0)
    click.echo(f"\nrecall of 200 alone, {vectors.shape[1]} dimensions; exact up to {EXACT_LIMIT:,} numbers")
    click.echo("pictures   budget MB  index             built s   file MB   loss    ms a query")
    for size in sizes:
        blend = generator.uniform(0, 0.5, (size, 1)).astype(np.float32)
        first, second = generator.integers(0, len(vectors), (2, size))
        made = (1 - blend) * vectors[first] + blend * vectors[second]
        made += generator.normal(0, 0.1 / made.shape[1] ** 0.5, made.shape).astype(np.float32)
        descriptors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)
        ids = np.arange(1, size + 1)
        path = scratch / "recall.faiss"
        flat = faiss.IndexIDMap(faiss.index_factory(descriptors.shape[1], "SQfp16", faiss.METRIC_INNER_PRODUCT))
        flat.add_with_ids(descriptors.astype(np.float32), ids)
        rows = iter(np.resize(np.arange(0, size, 97), 1000))
        spent = timed(lambda: search_file(flat, descriptors[next(rows)], 200, ids), 20)  # noqa: B023
        by_numpy = timed(lambda: search_exact(ids, descriptors, descriptors[next(rows)], 200), 5)  # noqa: B023
        click.echo(
            f"{size:9,d} {'':10} all, SQfp16       {'':8} {'':9} 0      {spent:7.1f}   (tail code: {by_numpy:.0f})"
        )
        for share in (2.2, 1.1, 0.6, 0.3, 0.2):  # of a descriptor's dimensions, in bytes
            memory = int(share * size * descriptors.shape[1]) + 16 * size
            started = time.perf_counter()
            try:
                built = build_recall_file(path, ids, descriptors, memory)
            except OverBudget:
                click.echo(f"{size:9,d} {memory / 1e6:10.0f} over budget")
                continue
            took = time.perf_counter() - started
            index = open_recall_file(path, built.digest)
            spent = timed(lambda: search_file(index, descriptors[next(rows)], 200, ids), 20)  # noqa: B023
            line = (
                f"{built.factory:17} {took:8.1f} {path.stat().st_size / 1e6:9.1f} {100 * built.loss:5.1f}% {spent:9.1f}"
            )
            click.echo(f"{size:9,d} {memory / 1e6:10.0f} {line}")


@click.command()
@click.argument("like", type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", default=10_000, show_default=True, help="0 for the recall stage alone.")
@click.option("--recall-size", "sizes", multiple=True, type=int, default=(10_000, 100_000, 200_000))
@click.option("--scratch", type=click.Path(exists=True, path_type=Path), help="Folder for temporary files.")
@click.option("--resident-of", type=(Path, Path), hidden=True)
def main(
    like: Path, pictures: int, sizes: tuple[int, ...], scratch: Path | None, resident_of: tuple[Path, Path] | None
) -> None:
    """Time and memory of queries."""
    if resident_of:
        resident(*resident_of)
        return
    click.echo(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=scratch) as made, torch.inference_mode():
        if pictures:
            queries(like, Path(made), pictures)
        recall_stage(like, Path(made), sizes)


if __name__ == "__main__":
    main()
