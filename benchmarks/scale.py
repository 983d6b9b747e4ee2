"""What the catalog and the writer cost as the collection grows: CPU seconds and memory by number of pictures.

    python benchmarks/scale.py --pictures 100000 --pictures 1000000

Makes an index of synthetic pictures in four shards: catalog rows, empty files with the very stat that the rows have (so
that a run need not read them), random descriptors of 256 numbers, and token records of one byte. No network runs. Each
row of the table is a process of its own; a million pictures take some three minutes. What questions cost: `growth.py`.
"""

import hashlib
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np

from benchmarks.kills import in_child
from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.db.filters import Filters
from diffsim.indexer.account import account
from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.recall_files import refresh_recall
from diffsim.indexer.requests import requested_spaces
from diffsim.indexer.roots import offline_roots
from diffsim.indexer.scan import scan
from diffsim.indexer.spaces import Networks, resolve_spaces
from diffsim.indexer.walk import walk
from diffsim.retrieval.shard.store import FeatureStore, Record

SHARDS = 4
DIMENSIONS = 256
AT_ONCE = 10_000
A_COMMIT = 100
MEMORY = 2**31


@click.command()
@click.option("--pictures", "sizes", multiple=True, type=int, default=(100_000, 1_000_000), show_default=True)
@click.option("--scratch", type=click.Path(exists=True, path_type=Path), help="Folder for temporary files.")
def main(sizes: tuple[int, ...], scratch: Path | None) -> None:
    """Time and memory of a catalog and of runs with nothing to do."""
    click.echo("|  pictures | what | CPU s | wall s | memory MB |\n|---|---|---|---|---|")
    for pictures in sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as made:
            index, gallery = IndexFolder.create(Path(made) / "index"), Path(made) / "gallery"
            report(pictures, "make the index", partial(make, index, gallery, pictures))
            for name, work in timed(index, gallery, pictures).items():
                report(pictures, name, work)


def make(index: IndexFolder, gallery: Path, pictures: int) -> None:
    """Fill an empty index."""
    with index.writing(), index.catalog(create=True) as catalog:
        (space,) = resolve_spaces(index, catalog, requested_spaces("mini", ["style"], size=32), Networks("cpu"))
        catalog.files.add_root(os.fsencode(gallery.resolve()))
        database = sqlite3.connect(index.path / "catalog.sqlite")
        database.execute("PRAGMA synchronous=OFF")
        capacity = -(-pictures // SHARDS)
        database.execute("UPDATE shards SET capacity = ?", (capacity,))
        database.executemany("INSERT INTO shards VALUES (?, ?)", [(number, capacity) for number in range(1, SHARDS)])
        database.commit()
        for start in range(1, pictures + 1, AT_ONCE):
            add(index, space.known, gallery, range(start, min(start + AT_ONCE, pictures + 1)), capacity, database)
        database.close()
        refresh_recall(index, catalog, [space.known], MEMORY)


def add(
    index: IndexFolder,
    space: KnownSpace,
    gallery: Path,
    numbers: range,
    capacity: int,
    database: sqlite3.Connection,
) -> None:
    """Pictures with these ids, in one commit: files, features and rows."""
    generator = np.random.default_rng(numbers.start)
    vectors = generator.standard_normal((len(numbers), DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = {row: hashlib.sha256(row.to_bytes(8, "big")).digest() for row in numbers}
    shards = {row: min((row - 1) // capacity, SHARDS - 1) for row in numbers}
    records = [Record(row, hashes[row], vectors[row - numbers.start].astype(np.float16), b"-") for row in numbers]
    for shard in sorted(set(shards.values())):
        with FeatureStore(index.shard(space.fingerprint, shard), readonly=False) as store:
            store.put(record for record in records if shards[record.content_id] == shard)
    files = []
    for row in numbers:
        name = f"{row // 10_000:04d}/{row // 100 % 100:02d}/{row:08d}.jpg"
        if row % 100 == 0 or row == numbers.start:
            (gallery / name).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(gallery / name, os.O_CREAT | os.O_WRONLY)
        stat = os.fstat(descriptor)
        os.close(descriptor)
        files.append((name.encode(), name, stat.st_mtime_ns, stat.st_ctime_ns, row))
    with database:
        (generation,) = database.execute("UPDATE generation SET value = value + 1 RETURNING value").fetchone()
        database.executemany(
            "INSERT INTO contents (id, sha256, size, format, width, height, shard) VALUES (?, ?, ?, 'JPEG', ?, 768, ?)",
            [(row, hashes[row], row, 1024 if row % 2 else 640, shards[row]) for row in numbers],
        )
        database.executemany(
            "INSERT INTO files (root_id, path, display, size, mtime_ns, ctime_ns, content_id, missing) "
            "VALUES (1, ?, ?, 0, ?, ?, ?, 0)",
            files,
        )
        database.executemany("INSERT INTO features VALUES (?, ?, ?)", [(space.id, row, generation) for row in numbers])


def timed(index: IndexFolder, gallery: Path, pictures: int) -> dict[str, Callable[[], object]]:
    """What is measured, in this order: later ones see what earlier ones committed."""
    with index.catalog(readonly=True) as catalog:
        (space,) = catalog.spaces()
        before = catalog.generation()
    inside = gallery / "0000"

    def commit() -> None:
        with sqlite3.connect(index.path / "catalog.sqlite") as database:
            some = range(pictures + 1, pictures + 1 + A_COMMIT)
            add(index, space, gallery, some, -(-pictures // SHARDS), database)

    def reading(work: Callable[[Catalog], object]) -> Callable[[], object]:
        def run() -> None:
            with index.catalog(readonly=True) as catalog:
                work(catalog)

        return run

    def scanned() -> None:
        with index.writing(), index.catalog() as catalog:
            account(catalog, scan(catalog, [gallery]), [space.id])

    def refreshed() -> None:
        with index.writing(), index.catalog() as catalog:
            refresh_recall(index, catalog, [space], MEMORY)

    options = IndexOptions(device="cpu", memory=MEMORY)
    return {
        "read a space whole": reading(lambda catalog: catalog.space_changes(space.id, -1)),
        "read one shard of four": reading(lambda catalog: catalog.space_changes(space.id, -1, 1)),
        "status": reading(Catalog.status),
        "filter: all pass": reading(lambda catalog: catalog.matching(Filters(min_side=100))),
        "filter: half pass": reading(lambda catalog: catalog.matching(Filters(min_side=700))),
        "filter: a folder of 10,000": reading(lambda catalog: catalog.matching(Filters(folders=[inside]))),
        "offline roots": reading(offline_roots),
        "count what is pending": reading(lambda catalog: catalog.count_pending([space.id])),
        "refresh, nothing to do": refreshed,
        "walk alone": lambda: sum(1 for _ in walk(os.fsencode(gallery))),
        "scan and account, nothing to do": scanned,
        "a whole run, nothing to do": lambda: index_folders(index, [], (), options),
        "commit 100 pictures": commit,
        "read what that commit changed": reading(lambda catalog: catalog.space_changes(space.id, before)),
        "a whole run after it": lambda: index_folders(index, [], (), options),
    }


def report(pictures: int, name: str, work: Callable[[], object]) -> None:
    """Do it in a child, and print the row."""

    def measured() -> None:
        own, started = memory(), time.perf_counter()
        cpu = time.process_time()
        work()
        spent = time.process_time() - cpu, time.perf_counter() - started, memory() - own
        click.echo("| {:9,d} | {} | {:.3f} | {:.3f} | {:.0f} |".format(pictures, name, *spent))

    _, status = os.waitpid(in_child(measured), 0)
    if status:
        raise click.ClickException(f"{name}: the process ended with status {status}.")


def memory() -> float:
    """The most that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
