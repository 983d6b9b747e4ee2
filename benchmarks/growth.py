"""What a query costs as the collection grows: CPU seconds and memory by number of pictures, in processes of their own.

    python benchmarks/growth.py make INDEX --pictures 1000000
    python benchmarks/growth.py ask INDEX ...

`make` indexes 64 drawings with the bundled network at 64 pixels, then adds synthetic contents beside them: catalog
rows, random descriptors of 256 numbers, and the token records of the drawings in turn, so that a query does all the
work that it does on real pictures. `ask` times the first query of a process, one more, one after a commit of 100
pictures, and filters that pass few and most.
"""

import hashlib
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from printing import table

import diffsim
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.drawings.gallery import STYLES, SUBJECTS, draw
from diffsim.retrieval.shard.store import FeatureStore, Record

REAL = 64
AT_ONCE = 10_000


@click.group()
def main() -> None:
    """Make a large synthetic index, or ask one."""


@main.command()
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--pictures", default=100_000, show_default=True)
def make(index: Path, pictures: int) -> None:
    """Make an index of so many pictures; takes some two minutes a million."""
    gallery = index.with_name(f"{index.name}-gallery")
    gallery.mkdir()
    names = [(subject, style) for subject in SUBJECTS for style in STYLES][:REAL]
    for subject, style in names:
        draw(subject, style, size=64).save(gallery / f"{subject}-{style}.png")
    requests = requested_spaces("mini", ["style"], size=64, tier="int8")
    index_folders(IndexFolder.create(index), [gallery], requests)
    folder = IndexFolder.open(index)
    add(folder, range(REAL + 1, pictures + 1))
    verify_index(folder, 2**31)
    click.echo(f"{pictures} pictures in {index}")


def add(folder: IndexFolder, numbers: range) -> None:
    """Synthetic contents with these ids, in one commit of the catalog for every ten thousand."""
    with folder.catalog(readonly=True) as catalog:
        (space,) = catalog.spaces()
    with diffsim.open(folder.path) as searcher:
        searcher.collection.refresh([space])
        ids = np.arange(1, REAL + 1)
        tokens = [bytes(record) for _, record in searcher.collection.tokens(space.fingerprint, ids)]
        width = searcher.collection.descriptors(space.fingerprint, ids)[1].shape[1]
    generator = np.random.default_rng(numbers.start)
    database = sqlite3.connect(folder.path / "catalog.sqlite")
    with FeatureStore(folder.shard(space.fingerprint, 0), readonly=False) as store:
        for start in range(numbers.start, numbers.stop, AT_ONCE):
            some = range(start, min(start + AT_ONCE, numbers.stop))
            vectors = generator.standard_normal((len(some), width), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            hashes = [hashlib.sha256(row.to_bytes(8, "big")).digest() for row in some]
            store.put(
                Record(row, sha256, vector, tokens[row % REAL])
                for row, sha256, vector in zip(some, hashes, vectors.astype(np.float16), strict=True)
            )
            with database:
                insert(database, space.id, list(some), hashes)
    database.close()


def insert(database: sqlite3.Connection, space: int, ids: list[int], hashes: list[bytes]) -> None:
    """The rows of contents that were indexed in one commit: every hundredth picture in a folder of its own."""
    (generation,) = database.execute("UPDATE generation SET value = value + 1 RETURNING value").fetchone()
    database.executemany(
        "INSERT INTO contents (id, sha256, size, format, width, height) VALUES (?, ?, 100000, 'JPEG', ?, 768)",
        [(row, sha256, 1024 if row % 2 else 640) for row, sha256 in zip(ids, hashes, strict=True)],
    )
    paths = [f"{row // 100:05d}/{row:08d}.jpg" for row in ids]
    database.executemany(
        "INSERT INTO files (root_id, path, display, size, mtime_ns, ctime_ns, content_id, missing) "
        "VALUES (1, ?, ?, 100000, ?, 0, ?, 0)",
        [(path.encode(), path, row * 10**9, row) for path, row in zip(paths, ids, strict=True)],
    )
    database.executemany("INSERT INTO features VALUES (?, ?, ?)", [(space, row, generation) for row in ids])


@main.command()
@click.argument("indexes", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def ask(indexes: tuple[Path, ...]) -> None:
    """Ask indexes that `make` made, each in a process of its own; figures are its CPU seconds and MB of its memory."""
    columns = []
    for index in indexes:
        done = subprocess.run([sys.executable, __file__, "child", index], capture_output=True, text=True, check=True)
        columns.append(json.loads(done.stdout.splitlines()[-1]))
    first, *_ = columns
    table(
        ("", *(f"{column['pictures']:,} pictures" for column in columns)),
        ((name, *(column[name] for column in columns)) for name in first if name != "pictures"),
    )


@main.command(hidden=True)
@click.argument("index", type=click.Path(exists=True, path_type=Path))
def child(index: Path) -> None:
    """One process that asks, and has another one commit meanwhile."""
    with tempfile.TemporaryDirectory() as scratch:
        outside = Path(scratch) / "outside.png"
        draw("cat", "neon", seed=9, size=64).save(outside)
        with diffsim.open(index) as searcher:
            extracted = searcher.extract(outside)
            before = memory()
            found: dict[str, int | str] = {}
            spent(found, "first query of a process", lambda: searcher.search(extracted))
            found["memory of the index, own MB"] = round(memory() - before)
            spent(found, "one more query", lambda: searcher.search(extracted))
            folder = IndexFolder.open(index)
            known = searcher.collection.ids(searcher.spaces()[0].fingerprint)
            found["pictures"] = len(known)
            add(folder, range(int(known.max()) + 1, int(known.max()) + 101))
            spent(found, "the next query after a commit of 100 pictures", lambda: searcher.search(extracted))
            for name, filters in (
                ("filter: a folder of 100 pictures", diffsim.Filters(folders=[gallery_of(index) / "00042"])),
                ("filter: half of all, by size", diffsim.Filters(min_side=700)),
                ("filter: nearly all", diffsim.Filters(min_side=100)),
            ):
                spent(found, f"{name}", lambda filters=filters: searcher.search(extracted, filters=filters))
                spent(found, f"{name}, again", lambda filters=filters: searcher.search(extracted, filters=filters))
    click.echo(json.dumps(found))


def gallery_of(index: Path) -> Path:
    return index.with_name(f"{index.name}-gallery").resolve()


def spent(found: dict[str, int | str], name: str, work: object) -> None:
    started, wall = time.process_time(), time.perf_counter()
    work()  # type: ignore[operator]
    found[name] = f"{time.process_time() - started:.3f} ({time.perf_counter() - wall:.3f} s of time)"


def memory() -> float:
    """Memory of this process that is not a mapped file, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
