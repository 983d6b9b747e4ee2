"""How `diffsim browse` ends: by Ctrl-C or SIGTERM, with everything that it started."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from indexing import build, diffsim, draw

from diffsim.query.web.server import listen

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def index(tmp_path: Path) -> Path:
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")
    draw(tmp_path / "pictures", range(3, 90))
    return tmp_path / "index"


@pytest.fixture
def page(index: Path) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-m", "diffsim.query.cli", "browse", "--index", str(index), "--port", "0", "--no-open"]
    process = subprocess.Popen(
        [*line, "--device", "cpu"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    process.kill()
    process.communicate()


def client(page: subprocess.Popen[str]) -> httpx2.Client:
    """Of the printed address."""
    address, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)\n", page.stdout.readline()).groups()
    return httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=120)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_page_leaves_no_process_and_a_whole_index(page, index, ending):
    with client(page) as asker:
        assert asker.get("/thumbnails/1").status_code == 200  # starts a decoder
        assert asker.post("/api/runs", json={}).status_code == 201
        started = psutil.Process(page.pid).children(recursive=True)
        assert any("index" in child.cmdline() for child in started) and len(started) >= 2
    os.killpg(page.pid, ending)  # as a terminal does: to the page's whole group
    out, err = page.communicate(timeout=120)
    assert page.returncode == (0 if ending == signal.SIGINT else -signal.SIGTERM), err
    assert out == "" and err == ""
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert diffsim("index", index.parent / "pictures", "--index", index, "--device", "cpu").code == 0
    assert diffsim("verify", "--index", index).out.endswith(b"clean\n")


def test_the_address_answers_as_soon_as_it_is_printed(page):
    """A browser that is opened with it must not be refused."""
    with client(page) as asker:
        assert asker.get("/api/index").status_code == 200


def test_answers_are_sent_without_delay():
    """asyncio sets TCP_NODELAY only where the protocol is named; without it each answer takes 40 ms more."""
    with listen(0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
