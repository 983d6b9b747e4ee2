"""What does a query cost on 10,000 pictures, and how far does comparing every descriptor reach?

    python benchmarks/querying.py LIKE --pictures 10000 --scratch FOLDER

Also: what asking for many pictures in one go gains (`Searcher.search_many`). LIKE is a small real index; the large one
is filled, through the project's own stores, with synthetic records: blends of its pictures' tokens, so that they
cluster as real ones do. Its files hold a few bytes each, which is enough to be asked with, because an indexed picture
is known by its hash. Files are in the page cache throughout.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import torch
from PIL import Image
from printing import table

import diffsim
from diffsim.db.files import Finding
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.recall_files import refresh_recall
from diffsim.query.present import present
from diffsim.query.stages import recall, rerank
from diffsim.retrieval.chance import NULL_SAMPLE
from diffsim.retrieval.score import score
from diffsim.retrieval.shard.recall import OverBudget, build_index, search_exact, search_index
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.shard.store import Record
from diffsim.retrieval.tiers import decode_tokens, encode_tokens

Rows = Iterator[tuple[str, str]]

MEMORY = 2**30
MANY = 64
"""Pictures that are asked in one go."""


def fill(like: Path, index: Path, folder: Path, pictures: int) -> None:
    """A synthetic index of `pictures` files in `folder`, in the feature space of `like`."""
    real = diffsim.open(like)
    space = real.choose(None)
    real.collection.refresh([space])
    kit = real.collection.kit(space)
    some = np.random.default_rng(0).permutation(real.collection.ids(space.fingerprint))[:2000]
    records = [bytes(record) for _, record in real.collection.tokens(space.fingerprint, some)]
    tokens = decode_tokens(records, kit.shapes, kit.settings.tier)
    folder.mkdir(parents=True)
    target = IndexFolder.create(index)
    with target.catalog(create=True):
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
        refresh_recall(target, catalog, catalog.spaces(), MEMORY)


def timed(work: Callable[[], Any], times: int) -> float:
    """Median milliseconds, after one call that is not counted."""
    work()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def commands(index: Path, inside: Path, outside: Path) -> Rows:
    """Whole commands."""
    command = Path(sys.executable).with_name("diffsim")
    for title, picture in (("indexed picture", inside), ("other picture", outside)):
        arguments = [command, "query", picture, "--index", index]
        spent = timed(lambda arguments=arguments: subprocess.run(arguments, check=True, capture_output=True), 5)
        yield f"`diffsim query`, {title}, new process", f"{spent / 1e3:.1f} s"


def stages(index: Path, inside: list[Path], outside: Path) -> Rows:
    """Warm search from Python, as a whole and by stages."""
    searcher = diffsim.open(index)
    turn = iter(inside * 20)
    whole = timed(lambda: searcher.search(next(turn)), 20)
    other = timed(lambda: searcher.search(outside), 20)
    yield "search from Python, indexed picture, warm, median of 20", f"{whole:.0f} ms"
    yield "search from Python, other picture, warm, median of 20", f"{other:.0f} ms"
    collection = searcher.collection
    asked = searcher.encode(diffsim.Query(inside[0]))
    found = recall(collection, asked)
    ranking = rerank(collection, asked, found)
    (space,), (part,) = asked.spaces, asked.parts
    kit = collection.kit(space)
    example = np.array([part.content_id], np.int64)
    sample = collection.null_sample([space.fingerprint], NULL_SAMPLE, example)
    wanted = np.concatenate([found.ids, np.setdiff1d(sample, found.ids)])
    held = [(row, bytes(record)) for row, record in collection.tokens(space.fingerprint, wanted)]
    query = [(kit.read([part.tokens]), score)]
    with searcher.index.catalog(readonly=True) as catalog:
        parts: dict[str, Callable[[], Any]] = {
            "read its own features": lambda: searcher.encode(asked.query),
            "has the catalog changed?": lambda: collection.refresh([space]),
            f"recall {len(found.ids)}": lambda: recall(collection, asked),
            f"all of reranking {len(wanted)} records, with the null sample": lambda: rerank(collection, asked, found),
            "choose the null sample": lambda: collection.null_sample([space.fingerprint], NULL_SAMPLE, example),
            "read the token records": lambda: list(collection.tokens(space.fingerprint, wanted)),
            "score them": lambda: score_queries(kit, query, held),
            "present": lambda: present(catalog, collection, asked, found, ranking),
        }
        for name, work in parts.items():
            spent = timed(work, 20)
            yield f"of an indexed picture's search: {name}", f"{spent:.1f} ms, {100 * spent / whole:.1f} %"
    alone = timed(lambda: collection.score(asked.parts, found.ids), 20)
    yield f"rerank of {len(found.ids)} candidates alone, read and scored", f"{alone:.0f} ms"


def many(index: Path, folder: Path) -> Rows:
    """Pictures that are not indexed, asked one by one and in one go, in turn."""
    folder.mkdir()
    pictures = [folder / f"{number}.jpg" for number in range(MANY)]
    generator = np.random.default_rng(2)
    for picture in pictures:
        colours = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        colours.resize((640, 480), Image.Resampling.BICUBIC).save(picture)
    ways: dict[str, Callable[[diffsim.Searcher], Any]] = {
        "one by one": lambda searcher: [searcher.search(picture) for picture in pictures],
        "in one go": lambda searcher: searcher.search_many(pictures),
        "one by one, not reranked": lambda searcher: [searcher.search(picture, rerank=False) for picture in pictures],
        "in one go, not reranked": lambda searcher: searcher.search_many(
            [diffsim.Query(picture, rerank=False) for picture in pictures]
        ),
    }
    with diffsim.open(index) as searcher:
        for work in ways.values():
            work(searcher)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(3):
            for name, work in ways.items():
                wall, processor = time.perf_counter(), time.process_time()
                work(searcher)
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    for name, rows in taken.items():
        wall, processor = (1e3 * statistics.median(column) / MANY for column in zip(*rows, strict=True))
        yield (
            f"{MANY} pictures that are not indexed, {name}, each",
            f"{wall:.0f} ms ({processor:.0f} of CPU in this process)",
        )


def resident(index: Path, picture: Path) -> None:
    """Memory that is the process's own (what is mapped from files can be dropped), printed for the parent."""
    searcher = diffsim.open(index)
    for _ in range(3):
        searcher.search(picture)
    lines = Path("/proc/self/status").read_text().splitlines()
    own, mapped = (
        next(int(line.split()[1]) for line in lines if line.startswith(key)) for key in ("RssAnon", "RssFile")
    )
    size = searcher.embeddings().descriptors.nbytes / 2
    click.echo(f"{own / 1e3:.1f} {mapped / 1e3:.1f} {size / 1e6:.2f}")


def queries(like: Path, scratch: Path, pictures: int) -> Rows:
    """Everything about asking a filled index."""
    outside = scratch / "outside.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(outside)
    counts = (pictures // 10, pictures)
    for count in counts:
        fill(like, scratch / f"{count}.idx", scratch / f"{count}", count)
    files = sorted((scratch / f"{pictures}").iterdir())[5 : pictures // 5 : pictures // 100]
    yield from commands(scratch / f"{pictures}.idx", files[0], outside)
    yield from stages(scratch / f"{pictures}.idx", files, outside)
    yield from many(scratch / f"{pictures}.idx", scratch / "many")
    for count in counts:
        asked = ["--resident-of", str(scratch / f"{count}.idx"), str(scratch / f"{count}" / "000005.png")]
        child = [sys.executable, __file__, str(like), *asked]
        own, mapped, size = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
        yield (
            f"memory with {count:,} pictures, {size} MB of descriptors",
            f"{own} MB of its own, {mapped} MB of mapped files",
        )


def recall_stage(like: Path, sizes: tuple[int, ...]) -> Iterator[list[str]]:
    """Descriptors alone: every one compared, by lists, and within smaller memory budgets."""
    vectors = diffsim.open(like).embeddings().descriptors
    generator = np.random.default_rng(0)
    for size in sizes:
        blend = generator.uniform(0, 0.5, (size, 1)).astype(np.float32)
        first, second = generator.integers(0, len(vectors), (2, size))
        made = (1 - blend) * vectors[first] + blend * vectors[second]
        made += generator.normal(0, 0.1 / made.shape[1] ** 0.5, made.shape).astype(np.float32)
        descriptors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)
        ids, allowed = np.arange(size), np.ones(size, np.bool_)
        flat = faiss.index_factory(descriptors.shape[1], "SQfp16", faiss.METRIC_INNER_PRODUCT)
        flat.add(descriptors.astype(np.float32))
        rows = iter(np.resize(np.arange(0, size, 97), 1000))
        spent = timed(lambda: search_index(flat, descriptors[next(rows)], 200, allowed), 20)  # noqa: B023
        by_numpy = timed(lambda: search_exact(ids, descriptors, descriptors[next(rows)], 200), 5)  # noqa: B023
        yield [
            f"{size:,}",
            "",
            f"all compared, for comparison ({by_numpy:.0f} ms in the tail)",
            "",
            "",
            "0",
            f"{spent:.1f}",
        ]
        for share in (2.2, 1.1, 0.6, 0.3, 0.2):  # of a descriptor's dimensions, in bytes
            memory = int(share * size * descriptors.shape[1]) + 16 * size
            started = time.perf_counter()
            try:
                index, factory, loss = build_index(descriptors, memory)
            except OverBudget:
                yield [f"{size:,}", f"{memory / 1e6:.0f}", "refused: too little", *[""] * 4]
                continue
            took = time.perf_counter() - started
            held = len(faiss.serialize_index(index))
            spent = timed(lambda: search_index(index, descriptors[next(rows)], 200, allowed), 20)  # noqa: B023
            cells = [factory, f"{took:.1f}", f"{held / 1e6:.0f}", f"{100 * loss:.1f} %", f"{spent:.1f}"]
            yield [f"{size:,}", f"{memory / 1e6:.0f}", *cells]


@click.command()
@click.argument("like", type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", default=10_000, show_default=True, help="0 for none.")
@click.option("--recall-size", "sizes", multiple=True, type=int, help="Of the recall stage alone; repeatable.")
@click.option("--scratch", type=click.Path(exists=True, path_type=Path), help="Folder for temporary files.")
@click.option("--resident-of", type=(Path, Path), hidden=True)
def main(
    like: Path, pictures: int, sizes: tuple[int, ...], scratch: Path | None, resident_of: tuple[Path, Path] | None
) -> None:
    """Time and memory of queries."""
    if resident_of:
        resident(*resident_of)
        return
    click.echo(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}.")
    with tempfile.TemporaryDirectory(dir=scratch) as made, torch.inference_mode():
        if pictures:
            table((f"{pictures:,} pictures", "cost"), queries(like, Path(made), pictures))
        if sizes:
            head = ("pictures", "budget, MB", "FAISS index", "built, s", "file, MB", "loss", "ms a query")
            table(head, recall_stage(like, sizes))


if __name__ == "__main__":
    main()
