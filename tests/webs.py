"""What the tests of the page share: an app over a small index, one that really serves, and a long list of pictures."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from diffsim.indexer.index_folder import IndexFolder
from diffsim.query.web.app import create_app
from diffsim.query.web.server import Server, listen

TOKEN = "the-token-of-the-tests"


@contextmanager
def client(index: Path, *, fetch: bool = False, **settings: Any) -> Iterator[TestClient]:
    """Somebody who may ask."""
    app = create_app(index, token=TOKEN, device="cpu", fetch=fetch)
    with TestClient(app, base_url="http://127.0.0.1:8765", **settings) as asker:
        asker.headers["Authorization"] = f"Bearer {TOKEN}"
        yield asker


@contextmanager
def served(index: Path) -> Iterator[str]:
    """The address of a real server, without the token."""
    listening = listen(0)
    server = Server(create_app(index, token=TOKEN, device="cpu"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def answers(asker: TestClient, **asked: Any) -> list[dict[str, Any]]:
    """The lines of a search."""
    response = asker.post("/api/search", json=asked)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def problem(response: Any, status: int) -> str:
    """The one sentence of a problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == status and found["title"]
    sentence: str = found["detail"]
    assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence, sentence
    return sentence


def long_index(index: Path, count: int) -> Path:
    """An index of so many pictures by its catalog alone, without files and features: picture N is
    /nowhere/FOLDER/N.jpg, in the order of the numbers, 500 in a folder."""
    IndexFolder.create(index).catalog(create=True).close()
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
    path = "printf('%05d/%08d.jpg', n / 500, n)"
    with closing(sqlite3.connect(index / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("INSERT INTO roots (id, path, display) VALUES (1, CAST('/nowhere' AS BLOB), '/nowhere')")
        columns = "id, sha256, size, format, width, height"
        sha256 = "CAST(printf('%032d', n) AS BLOB)"
        row = f"SELECT n, {sha256}, 5000, 'JPEG', 640, 480 FROM numbers"
        catalog.execute(f"INSERT INTO contents ({columns}) {numbers} {row}", (count,))
        columns = "id, root_id, path, display, size, content_id, missing"
        row = f"SELECT n, 1, CAST({path} AS BLOB), {path}, 5000, n, 0 FROM numbers"
        catalog.execute(f"INSERT INTO files ({columns}) {numbers} {row}", (count,))
        catalog.execute("UPDATE generation SET value = value + 1")
    return index
