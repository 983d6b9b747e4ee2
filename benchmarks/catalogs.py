"""What the catalog costs in a file and on a PostgreSQL server, side by side in one run.

    python benchmarks/catalogs.py --catalog postgresql://USER@HOST/DATABASE --pictures 100000

The database must be empty; nothing stays in it. Both catalogs are filled and read through the calls that an indexing
run and a query make. CPU: of this process, and of the server, which runs on this machine.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import click
import psutil
from printing import table
from sqlalchemy import create_engine, make_url

from diffsim.db.catalog import Catalog
from diffsim.db.chunks import chunks
from diffsim.db.files import Finding
from diffsim.db.filters import Filters
from diffsim.db.postgres import server_address
from diffsim.db.tables import Base

FOUND_AT_ONCE, INDEXED_AT_ONCE, SMALL = 5000, 1000, 100


class Meter:
    """Times one catalog. server: the first process of its server, if it has one here. cells: seconds by step."""

    def __init__(self, server: psutil.Process | None) -> None:
        self.server = server
        self.cells: dict[str, tuple[float, float, float]] = {}

    def __call__(self, step: str, work: Callable[[], object]) -> None:
        server, own, clock = self.server_cpu(), time.process_time(), time.perf_counter()
        work()
        self.cells[step] = (time.process_time() - own, self.server_cpu() - server, time.perf_counter() - clock)

    def server_cpu(self) -> float:
        """CPU seconds of all processes of the server, those that ended too."""
        if self.server is None:
            return 0.0
        running = (process.cpu_times() for process in [self.server, *self.server.children()])
        ended = self.server.cpu_times()
        return sum(each.user + each.system for each in running) + ended.children_user + ended.children_system


def sha(number: int) -> bytes:
    return number.to_bytes(32, "big")


def fill(catalog: Catalog, pictures: int) -> None:
    root = catalog.files.add_root(b"/pictures")
    names = (b"%05d/%08d.jpg" % (number // 100, number) for number in range(pictures))
    findings = (Finding(None, root.id, name, 10**5, n, n, sha(n), None) for n, name in enumerate(names))
    for some in chunks(findings, FOUND_AT_ONCE):
        catalog.files.write(some, [])


def extract(catalog: Catalog, space: int, at_once: int, most: int | None = None) -> None:
    for some in chunks(islice(catalog.pending([space]), most), at_once):
        catalog.mark_indexed([space], [(content.content_id, "JPEG", 1024, 768) for content in some])


def nothing_to_do(catalog: Catalog, space: int) -> None:
    """What a run reads of files that have not changed."""
    (root,) = catalog.roots()
    assert sum(1 for _ in catalog.files.below(root.id, b"")) == catalog.files.counts(root.id, b"", [space]).rows
    assert list(catalog.pending([space])) == []
    catalog.files.failures(root.id, b"")


def ask(catalog: Catalog, space: int, since: int) -> int:
    """What a query reads: what is new, and the files of its hits."""
    found = catalog.space_changes(space, since)
    catalog.files_of(range(1, 201))
    return found.generation


def measure(where: Path | str, pictures: int, server: psutil.Process | None = None) -> Meter:
    meter = Meter(server)
    small = 20 * SMALL
    with Catalog.open(where, create=True) as catalog:
        space = catalog.add_space("style", "style", "mini", "{}")
        meter(f"{pictures:,} files found, {FOUND_AT_ONCE:,} a commit", lambda: fill(catalog, pictures))
        meter(f"{small:,} indexed, {SMALL} a commit", lambda: extract(catalog, space, SMALL, small))
        meter(f"the others indexed, {INDEXED_AT_ONCE:,} a commit", lambda: extract(catalog, space, INDEXED_AT_ONCE))
    with Catalog.open(where) as catalog:
        meter("a run with nothing to do", lambda: nothing_to_do(catalog, space))
    with Catalog.open(where, readonly=True) as reader:
        meter("first question of a process", lambda: ask(reader, space, -1))
        now = reader.generation()
        meter("100 more questions", lambda: [ask(reader, space, now) for _ in range(100)])
        meter("a filter that all pass", lambda: reader.matching(Filters(folders=["/pictures"], min_side=700)))
        meter("all pictures in order", reader.picture_order)
    return meter


@contextmanager
def emptied(url: str) -> Iterator[tuple[str, psutil.Process]]:
    address = server_address(url)
    engine = create_engine(make_url(address))
    try:
        with engine.connect() as connection:
            backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            server = psutil.Process(backend).parent()
        assert server
        yield address, server
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()


@click.command()
@click.option("--catalog", required=True, help="An empty PostgreSQL database.")
@click.option("--pictures", default=100_000, show_default=True)
def main(catalog: str, pictures: int) -> None:
    """Print seconds: CPU of the process, CPU of the server, and what the clock said."""
    with tempfile.TemporaryDirectory() as folder:
        in_file = measure(Path(folder) / "catalog.sqlite", pictures).cells
    with emptied(catalog) as (address, server):
        on_server = measure(address, pictures, server).cells
    table(
        ("", "SQLite: CPU", "clock", "PostgreSQL: CPU", "server's CPU", "clock"),
        (
            (step, *(f"{seconds:.2f}" for seconds in (own, clock, *on_server[step])))
            for step, (own, _, clock) in in_file.items()
        ),
    )


if __name__ == "__main__":
    main()
