"""How long the page takes, and what it holds under load.

    python benchmarks/browsing.py INDEX --uploads DIR

A real `diffsim browse` serves INDEX; one client first asks one thing at a time, then many ask at once, on the loopback
only, bounded in number and time. DIR: pictures that are not in the index, at least 60. A status of 400 or more (503
too), a broken answer and 60 s without one count as errors. Thumbnails that are made stay in the index's cache.
"""

import asyncio
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
import httpx2
import numpy as np
import psutil
import torch

REGION = (0.2, 0.2, 0.5, 0.5)
FIRST_TILES = 24
TIMES = 20


@contextmanager
def served(index: Path, stderr: IO[str] | None = None) -> Iterator[tuple[psutil.Process, str, dict[str, str]]]:
    """The server's process, its address, and the headers that let in. stderr: where its messages go."""
    command = [Path(sys.executable).with_name("diffsim"), "browse", "--index", index, "--port", "0", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        started = time.perf_counter()
        printed = re.fullmatch(r"(\S+)/\?token=(\S+)\n", process.stdout.readline())
        assert printed is not None, "diffsim browse printed no address"
        click.echo(f"address printed after {time.perf_counter() - started:.1f} s")
        yield psutil.Process(process.pid), printed[1], {"Authorization": f"Bearer {printed[2]}"}
    finally:
        process.send_signal(signal.SIGINT)
        click.echo(f"ended by Ctrl-C with {process.wait(60)}")


def held(server: psutil.Process) -> str:
    """What the server and its decoders hold."""
    family = [server, *server.children(recursive=True)]
    own, decoders = server.memory_full_info(), sum(child.memory_full_info().uss for child in family[1:])
    return (
        f"{own.uss / 2**20:.0f} MB own memory ({own.rss / 2**20:.0f} MB resident with mapped files), "
        f"{len(family) - 1} decoders with {decoders / 2**20:.0f} MB; "
        f"{server.num_fds()} file descriptors, {server.num_threads()} threads"
    )


# ------------------------------------------------------------------------------------------------ one at a time


class Asker:
    """One client that asks one thing after the other."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self.client = httpx2.Client(base_url=address, headers=headers, timeout=60)

    def get(self, path: str, **query: Any) -> httpx2.Response:
        return self.client.get(path, params=query).raise_for_status()

    def post(self, path: str, body: Any) -> httpx2.Response:
        return self.client.post(path, json=body).raise_for_status()

    def upload(self, data: bytes) -> int | str:
        picture: int | str = self.client.post("/api/uploads", content=data).raise_for_status().json()["picture"]
        return picture

    def search(self, picture: int | str, **more: Any) -> tuple[float, float, dict[str, Any]]:
        """Seconds to the first stage's order and to the last one's, and that answer."""
        started, first, last = time.perf_counter(), 0.0, b""
        with self.client.stream("POST", "/api/search", json={"picture": picture, **more}) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                first = first or time.perf_counter() - started
                last = line
        found = json.loads(last)
        assert found.get("stage") == "ranked", found
        return first, time.perf_counter() - started, found


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spent(server: psutil.Process) -> float:
    """CPU seconds of the server and its decoders, since they started."""
    times = [process.cpu_times() for process in (server, *server.children())]
    return sum(each.user + each.system for each in times)


class Table:
    """What a person waits for. CPU: of the server, which a busy machine does not change much."""

    def __init__(self, server: psutil.Process) -> None:
        self.server = server
        click.echo("\n| one client | times | median ms | 95 % ms | CPU ms |\n|---|---|---|---|---|")

    def steps(self, titles: Sequence[str], works: Sequence[Callable[[], Sequence[float]]]) -> None:
        """Each work gives seconds for each title."""
        before = spent(self.server)
        taken = np.array([work() for work in works])
        cpu = f"{1e3 * (spent(self.server) - before) / len(works):.0f}"
        for title, seconds in zip(titles, taken.T, strict=True):
            middle, high = 1e3 * np.percentile(seconds, (50, 95))
            click.echo(f"| {title} | {len(works)} | {middle:.0f} | {high:.0f} | {cpu if title == titles[-1] else ''} |")

    def row(self, title: str, works: Sequence[Callable[[], object]]) -> None:
        self.steps([title], [lambda work=work: [timed(work)] for work in works])  # type: ignore[misc]


def latency(table: Table, asker: Asker, index: Path, uploads: list[bytes], ids: list[int]) -> None:
    """One kind of request after the other."""
    few = partial(random.sample, ids, TIMES)
    table.row("the page's HTML", [lambda: asker.get("/")] * TIMES)
    table.row("first 100 of all pictures", [lambda: asker.get("/api/pictures")] * TIMES)
    middles = random.sample(range(len(ids)), TIMES)
    table.row("100 pictures from anywhere", [partial(asker.get, "/api/pictures", offset=at) for at in middles])
    thumbnails(table, asker, index, ids)
    table.row("a picture at the size of the screen", [partial(asker.get, f"/previews/{one}") for one in few()])

    def drop(data: bytes) -> list[float]:
        started = time.perf_counter()
        picture = asker.upload(data)
        before = time.perf_counter() - started
        first, last, found = asker.search(picture)
        shown = timed(lambda: [asker.get(f"/thumbnails/{hit['id']}") for hit in found["hits"][:FIRST_TILES]])
        return [before + first, before + first + shown, before + last]

    titles = ["upload: first order", f"upload: {FIRST_TILES} thumbnails of the first order", "upload: final order"]
    table.steps(titles, [partial(drop, data) for data in uploads])

    def ask(picture: int, **more: Any) -> Sequence[float]:
        return asker.search(picture, **more)[:2]

    folder = max(asker.get("/api/folders").json(), key=lambda one: one["pictures"])["folder"]
    filters = {"folders": [folder], "min_side": 200}
    questions: dict[str, dict[str, Any]] = {
        "click": {},
        "click with filters (a folder, at least 200 px)": {"filters": filters},
        "click with a region of the query": {"region": REGION},
        "click with near copies folded": {"fold": True},
    }
    for title, more in questions.items():
        table.steps([f"{title}: first order", f"{title}: final order"], [partial(ask, one, **more) for one in few()])
    pairs = [random.sample(ids, 3) for _ in range(TIMES)]
    several = [partial(ask, a, examples=[{"picture": b}, {"picture": c, "weight": -0.5}]) for a, b, c in pairs]
    table.steps(["two examples and one against: first order", "two examples and one against: final order"], several)
    table.row("all pictures, filtered: first 100", [lambda: asker.post("/api/pictures", filters)] * TIMES)
    table.row("heat map of a pair", [partial(asker.get, "/api/why", a=a, b=b) for a, b, _ in pairs])
    a, b, _ = pairs[-1]
    spots = [partial(asker.get, "/api/why/attention", a=a, b=b, row=at % 4, column=at // 4) for at in range(16)]
    table.row("where the attention of a spot falls, same pair", spots)
    table.row("state of the index", [lambda: asker.get("/api/index")] * TIMES)


def warm_up(asker: Asker, data: bytes, ids: list[int]) -> None:
    """The first of each kind reads files and loads the network; once a start, so told apart."""
    first = {
        "page of all pictures": timed(lambda: asker.get("/api/pictures")),
        "click to its final order": asker.search(ids[0])[1],
        "upload to its final order": timed(lambda: asker.search(asker.upload(data))),
    }
    for title, seconds in first.items():
        click.echo(f"just started, first {title}: {seconds:.2f} s")


def thumbnails(table: Table, asker: Asker, index: Path, ids: list[int]) -> None:
    """Those that nobody has seen yet are decoded and written; then read; then the browser has them."""
    fresh: list[int] = []
    for one in random.sample(ids, len(ids)):
        version = asker.get(f"/api/pictures/{one}").json()["version"]
        if not list((index / "thumbnails" / version[:2]).glob(f"{version}*")):
            fresh.append(one)
        if len(fresh) == 5 * TIMES:
            break
    table.row("a thumbnail, made", [partial(asker.get, f"/thumbnails/{one}") for one in fresh])
    table.row("a thumbnail, made before", [partial(asker.get, f"/thumbnails/{one}") for one in fresh])
    tags = [{"If-None-Match": asker.get(f"/thumbnails/{one}").headers["etag"]} for one in fresh]
    kept = [partial(asker.client.get, f"/thumbnails/{one}", headers=tag) for one, tag in zip(fresh, tags, strict=True)]
    table.row("a thumbnail that the browser has (304)", kept)


# -------------------------------------------------------------------------------------------------------- many


@dataclass
class Tally:
    """Seconds by kind of request, and what went wrong."""

    taken: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


class Crowd:
    """Clients without a pause between their requests. limit: requests in all; seconds: after these none is begun."""

    def __init__(self, client: httpx2.AsyncClient, ids: list[int], uploads: list[bytes], limit: int, seconds: float):
        self.client, self.ids, self.uploads, self.tally = client, ids, uploads, Tally()
        self.left, self.until = itertools.count(limit, -1), time.perf_counter() + seconds
        self.kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "thumbnail": (46, lambda: self.get(f"/thumbnails/{self.one()}")),
            "click to final order": (14, lambda: self.search(self.one())),
            "100 of all pictures": (10, lambda: self.get("/api/pictures", offset=random.randrange(len(self.ids)))),
            "attention of a spot": (
                8,
                lambda: self.get("/api/why/attention", a=self.one(), b=self.one(), row=1, column=2),
            ),
            "heat map": (5, lambda: self.get("/api/why", a=self.one(), b=self.one())),
            "picture, screen size": (5, lambda: self.get(f"/previews/{self.one()}")),
            "details": (4, lambda: self.get(f"/api/pictures/{self.one()}")),
            "click with a region": (2, lambda: self.search(self.one(), region=REGION)),
            "click with a filter": (2, lambda: self.search(self.one(), filters={"min_side": 200})),
            "state of the index": (2, lambda: self.get("/api/index")),
            "upload to final order": (2, self.upload),
        }

    def one(self) -> int:
        return random.choice(self.ids)

    async def get(self, path: str, **query: Any) -> None:
        (await self.client.get(path, params=query)).raise_for_status()

    async def search(self, picture: int | str, **more: Any) -> None:
        answer = (await self.client.post("/api/search", json={"picture": picture, **more})).raise_for_status()
        assert json.loads(answer.text.splitlines()[-1]).get("stage") == "ranked", "no final order"

    async def upload(self) -> None:
        answer = await self.client.post("/api/uploads", content=random.choice(self.uploads))
        await self.search(answer.raise_for_status().json()["picture"])

    async def ask(self) -> None:
        names, weights = list(self.kinds), [weight for weight, _ in self.kinds.values()]
        while next(self.left) > 0 and time.perf_counter() < self.until:
            (kind,) = random.choices(names, weights)
            started = time.perf_counter()
            try:
                await self.kinds[kind][1]()
            except Exception as error:
                self.tally.errors.append(f"{kind}: {error!r}")
            self.tally.taken.setdefault(kind, []).append(time.perf_counter() - started)


async def crowd(
    address: str,
    headers: dict[str, str],
    ids: list[int],
    uploads: list[bytes],
    clients: int,
    limit: int,
    seconds: float,
) -> Tally:
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=60, limits=limits) as client:
        many = Crowd(client, ids, uploads, limit, seconds)
        await asyncio.gather(*(many.ask() for _ in range(clients)))
        return many.tally


def load(tally: Tally, clients: int, seconds: float) -> None:
    count = sum(map(len, tally.taken.values()))
    click.echo(
        f"\n{clients} clients: {count} requests in {seconds:.0f} s, {count / seconds:.0f}/s, {len(tally.errors)} errors"
    )
    for error in tally.errors[:10]:
        click.echo(f"  {error}")
    click.echo("\n| request | number | median ms | 95 % ms | 99 % ms |\n|---|---|---|---|---|")
    everything = list(itertools.chain(*tally.taken.values()))
    for kind, taken in [*sorted(tally.taken.items(), key=lambda one: -len(one[1])), ("all", everything)]:
        middle, high, highest = 1e3 * np.percentile(taken, (50, 95, 99))
        click.echo(f"| {kind} | {len(taken)} | {middle:.0f} | {high:.0f} | {highest:.0f} |")


@click.command()
@click.argument("index", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--uploads", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--clients", default=50, show_default=True)
@click.option("--requests", "limit", default=3000, show_default=True)
@click.option("--seconds", default=120.0, show_default=True, help="No request is begun after these.")
def main(index: Path, uploads: Path, clients: int, limit: int, seconds: float) -> None:
    """Latencies, then a bounded load."""
    random.seed(2334)
    named = (path for path in sorted(uploads.rglob("*")) if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    data = [path.read_bytes() for path in random.sample(list(named), 60)]
    click.echo(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads each, load {os.getloadavg()[0]:.1f}")
    with served(index) as (server, address, headers):
        asker = Asker(address, headers)
        total = asker.get("/api/pictures", limit=1).json()["total"]
        ids = [
            one["id"]
            for at in range(0, total, 500)
            for one in asker.get("/api/pictures", offset=at, limit=500).json()["items"]
        ]
        click.echo(f"{total} pictures")
        warm_up(asker, data[0], ids)
        latency(Table(server), asker, index, data[1 : TIMES + 1], ids)
        click.echo(f"\nbefore the load: {held(server)}; load {os.getloadavg()[0]:.1f}")
        started, before = time.perf_counter(), spent(server)
        tally = asyncio.run(crowd(address, headers, ids, data[TIMES + 1 :], clients, limit, seconds))
        load(tally, clients, time.perf_counter() - started)
        click.echo(f"CPU of the server: {spent(server) - before:.0f} s")
        time.sleep(6)  # idle connections are closed after 5
        click.echo(f"\nafter the load: {held(server)}; load {os.getloadavg()[0]:.1f}")
        click.echo(f"and a click: {1e3 * asker.search(ids[7])[1]:.0f} ms")
    sys.exit(bool(tally.errors))


if __name__ == "__main__":
    main()
