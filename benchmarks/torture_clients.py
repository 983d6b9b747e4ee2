"""Many clients of the page at once, without a pause between their requests, while it serves a small index."""

import asyncio
import random
import tempfile
import time
from pathlib import Path

import httpx2
import numpy as np
from browsing import crowd, served
from kills import draw_pictures
from torture_ground import Count, Ground

_PATIENCE_S = 10.0
_LONGER_S = {"upload to final order": 130.0, "thumbnail": 32.0, "picture, screen size": 32.0}
"""Whoever waits longer must have been told to come again: the page promises 8 s to questions, and more to what needs
a network or the decoding of a picture (query/web/lanes.py)."""


def part(work: Path, ground: Ground, clients: int, seconds: float) -> Count:
    """An answer other than 200, 304 and 503, and one that took longer than the page promises, are wrong."""
    count = Count(f"{clients} clients")
    random.seed(clients)
    draw_pictures(work / "uploads", range(20_000, 20_020))
    uploads = [path.read_bytes() for path in sorted((work / "uploads").iterdir())]
    with tempfile.TemporaryFile("w+") as errors:
        with served(ground.index, stderr=errors) as (server, address, headers):
            with httpx2.Client(base_url=address, headers=headers, timeout=60) as one:
                items = one.get("/api/pictures", params={"limit": 500}).raise_for_status().json()["items"]
            started = time.monotonic()
            tally = asyncio.run(
                crowd(address, headers, [item["id"] for item in items], uploads, clients, 10**9, seconds)
            )
            took = time.monotonic() - started
            alive = server.is_running()
        errors.seek(0)
        said = errors.read()
    waits = np.array([wait for kind in tally.taken.values() for wait in kind])
    refused = [error for error in tally.errors if "503" in error]
    count.tried = len(waits)
    for error in tally.errors:
        if error not in refused:
            count.add("lost", error)
    for kind, taken in tally.taken.items():
        for wait in taken:
            if wait > _LONGER_S.get(kind, _PATIENCE_S):
                count.add("silent", f"{kind}: somebody waited {wait:.1f} s")
    if "Traceback" in said or not alive:
        count.add("tracebacks", said[-600:] or "the server ended")
    middle, high, longest = np.percentile(waits, (50, 95, 100))
    count.facts = (
        f"{len(waits) / took:.0f} requests/s, {len(refused)} of them 503; "
        f"median {1e3 * middle:.0f} ms, 95 % {high:.2f} s, longest {longest:.2f} s"
    )
    return count
