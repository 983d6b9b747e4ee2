"""What the tests of the page share: an app over a small index, and one that really serves."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.testclient import TestClient

from diffsim.query.web.app import create_app
from diffsim.query.web.server import _listen

TOKEN = "the-token-of-the-tests"


@contextmanager
def client(index: Path, **settings: Any) -> Iterator[TestClient]:
    """Somebody who may ask."""
    app = create_app(index, token=TOKEN, device="cpu")
    with TestClient(app, base_url="http://127.0.0.1:8765", **settings) as asker:
        asker.headers["Authorization"] = f"Bearer {TOKEN}"
        yield asker


@contextmanager
def served(index: Path) -> Iterator[str]:
    """The address of a real server, without the token."""
    listening = _listen(0)
    app = create_app(index, token=TOKEN, device="cpu")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3))
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
