"""How long the page's lists take over many pictures: all of them, filtered, the folders, the state of the index.

    python benchmarks/lists.py FOLDER [--pictures 1000000]

FOLDER, which must be new, gets an index whose catalog knows the pictures; there are no files, for a list needs none.
A real `diffsim browse` serves it. Each kind of request is sent once, then several times, then directly after each of
some commits to the catalog, as an indexing run makes one every few seconds. CPU: of the server, from the request to
two seconds after it, for it computes some things in the background; a busy machine changes it less than the time.
"""

import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx2
import numpy as np
import psutil

from diffsim.indexer.index_folder import IndexFolder

PENDING = 10_000
"""Pictures without features at first; each commit makes some of them exist."""
IN_A_COMMIT = 400
COMMITS = 8
PAUSE_S = 2.0
TIMES = 20
BROWSE = [sys.executable, "-m", "diffsim.query.cli", "browse"]


@click.command()
@click.argument("folder", type=click.Path(exists=False, path_type=Path))
@click.option("--pictures", default=1_000_000, show_default=True)
def main(folder: Path, pictures: int) -> None:
    """Make the catalog, serve it, print milliseconds."""
    random.seed(2334)
    index = make(folder.resolve(), pictures)
    click.echo(f"{pictures:,} pictures, catalog {(index.path / 'catalog.sqlite').stat().st_size / 1e6:.0f} MB")
    with served(index.path) as (server, asker):
        kinds = requests_of(asker, pictures)
        before = server.memory_full_info().uss
        first = {kind: [timed(server, ask)] for kind, ask in kinds.items()}
        again = {kind: [timed(server, ask, pause=0) for _ in range(TIMES)] for kind, ask in kinds.items()}
        after: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        with index.catalog() as catalog:
            (space,) = (space.id for space in catalog.spaces())
            rounds = range(pictures - PENDING + 1, pictures + 1, IN_A_COMMIT)[: COMMITS * len(kinds)]
            for number, start in enumerate(rounds):
                catalog.mark_indexed([space], [(start + n, "JPEG", 640, 480) for n in range(IN_A_COMMIT)])
                kind = list(kinds)[number % len(kinds)]
                after[kind].append(timed(server, kinds[kind]))
        columns = "first | CPU | again: median | worst | CPU | after a commit: median | worst | CPU"
        click.echo(f"| milliseconds | {columns} |")
        click.echo("|---|---|---|---|---|---|---|---|---|")
        for kind in kinds:
            figures = [1e3 * first[kind][0][0], 1e3 * first[kind][0][1]]
            for measured in (again, after):
                times, cpu = np.array(measured[kind]).T
                figures += [1e3 * np.median(times), 1e3 * times.max(), 1e3 * cpu.mean()]
            click.echo(f"| {kind} | " + " | ".join(f"{figure:.0f}" for figure in figures) + " |")
        held = server.memory_full_info().uss
        click.echo(f"The server holds {held / 2**20:.0f} MB, {(held - before) / 2**20:.0f} MB of them for the lists.")


def requests_of(asker: httpx2.Client, pictures: int) -> dict[str, Callable[[], Any]]:
    """What the page asks for, by what it is called in the table."""

    def page(filters: dict[str, Any] | None = None, total: int = pictures - PENDING) -> Any:
        offset = random.randrange(max(1, total // 2))
        address = f"/api/pictures?offset={offset}&limit=100"
        answer = asker.get(address) if filters is None else asker.post(address, json=filters)
        return answer.raise_for_status().json()

    def folders() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = asker.get("/api/folders").raise_for_status().json()
        return found

    return {
        "100 pictures from anywhere": page,
        "the folders": folders,
        "the state of the index": lambda: asker.get("/api/index").raise_for_status(),
        "100 of those of at least 500 px": lambda: page({"min_side": 500}, pictures // 4),
        "100 of those in a folder of a tenth": lambda: page({"folders": ["/photos/a/0"]}, pictures // 10),
    }


def timed(server: psutil.Process, work: Callable[[], object], pause: float = PAUSE_S) -> tuple[float, float]:
    """Seconds of the work, and CPU seconds of the server until the pause after it is over."""
    before, started = server.cpu_times(), time.perf_counter()
    work()
    took = time.perf_counter() - started
    time.sleep(pause)
    after = server.cpu_times()
    return took, after.user + after.system - before.user - before.system


@contextmanager
def served(index: Path) -> Iterator[tuple[psutil.Process, httpx2.Client]]:
    """The server's process and a client that may ask."""
    line = [*BROWSE, "--index", str(index), "--port", "0", "--no-open", "--device", "cpu"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address, _, token = process.stdout.readline().strip().partition("/?token=")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=address, headers=headers, timeout=120) as asker:
            yield psutil.Process(process.pid), asker
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def make(folder: Path, pictures: int) -> IndexFolder:
    """An index whose catalog alone is filled: two folders, of which the first has ten of a tenth of the pictures, with
    500 files in each folder below; one file in fifty is a copy, one in 200 is missing, one content in 500 broken."""
    index = IndexFolder.create(folder)
    index.catalog(create=True).close()
    with closing(sqlite3.connect(index.path / "catalog.sqlite")) as catalog, catalog:
        roots = [(1, b"/photos/a", "/photos/a"), (2, b"/photos/b", "/photos/b")]
        catalog.executemany("INSERT INTO roots (id, path, display) VALUES (?, ?, ?)", roots)
        space = (1, "f00d", "mini/look", "mini", "", "{}", "2026-01-01T00:00:00+00:00")
        columns = "id, fingerprint, name, network, adapter, record, created"
        catalog.execute(f"INSERT INTO spaces ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", space)
        columns = "id, sha256, size, format, width, height, failure"
        catalog.executemany(f"INSERT INTO contents ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", contents(pictures))
        columns = "root_id, path, display, size, mtime_ns, ctime_ns, content_id, missing, failure"
        catalog.executemany(f"INSERT INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", files(pictures))
        catalog.execute("INSERT INTO features (space_id, content_id, generation) SELECT 1, id, 1 FROM contents "
                        "WHERE format IS NOT NULL")  # fmt: skip
        catalog.execute("UPDATE generation SET value = 1")
    return index


def contents(pictures: int) -> Iterator[tuple[Any, ...]]:
    for number in range(1, pictures + 1):
        sha256 = hashlib.sha256(number.to_bytes(8, "big")).digest()
        if number % 500 == 0:
            yield number, sha256, 5000, None, None, None, "not a picture"
        elif number > pictures - PENDING:
            yield number, sha256, 5000, None, None, None, None
        else:
            yield number, sha256, 5000, "JPEG", 100 + number % 900, 100 + number % 700, None


def files(pictures: int) -> Iterator[tuple[Any, ...]]:
    def path(number: int) -> str:
        return f"{10 * number // pictures}/{number // 10_000:04d}/album {number // 500 % 20:02d}/IMG_{number:09d}.jpg"

    def file(root: int, name: str, number: int) -> tuple[Any, ...]:
        return root, name.encode(), name, 5000, number * 10**9, number * 10**9, number, number % 200 == 0

    yield from (file(1, path(number), number) for number in range(1, pictures + 1))
    yield from (file(2, path(number), number) for number in range(1, pictures + 1, 50))


if __name__ == "__main__":
    main()
