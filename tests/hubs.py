"""A hub on loopback: repositories as the Hugging Face hub serves them, and what goes wrong with a connection."""

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

from indexing import Ran

from diffsim.retrieval.families import known_families

PROJECT = Path(__file__).parent.parent
LARGE = 10_000
"""Bytes from which a file is served as large ones are: with its SHA-256, from another host."""


@dataclass
class Hub:
    """Faults are by path in the repository; "listing" is the request for a repository's files.

    repositories: by name, files by path. asked: what was sent, with the first byte. status: answers instead of a file,
    first come first served. cut: after how many bytes each of the next connections ends, `rudely` with a reset.
    instead: other bytes than those declared. sizes: other sizes than the true ones. before: called before the last
    half of a file is sent. tokens: the account's token as each host saw it.
    """

    server: ThreadingHTTPServer
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    status: dict[str, list[int]] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    rudely: bool = False
    ranges: bool = True
    instead: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    before: Callable[[str], object] = lambda path: None
    tokens: dict[str, set[str | None]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def publish(self, name: str, folder: Path | dict[str, Path]) -> None:
        """The files of a folder, or by path in the repository, under a preset's repository."""
        files = files_of(folder) if isinstance(folder, Path) else folder
        self.repositories[name] = {path: file.read_bytes() for path, file in files.items()}


def files_of(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def serving() -> Iterator[Hub]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(server)  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(hub: str | Hub, models: Path, **more: str) -> dict[str, str]:
    """For a process that knows this hub alone and has no account."""
    address = hub.address if isinstance(hub, Hub) else hub
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own |= {"HF_ENDPOINT": address, "HF_HOME": str(models.with_name("hf")), "NO_PROXY": "*", "COLUMNS": "100"}
    return own | {"DIFFSIM_MODELS": str(models), "PYTHONPATH": str(PROJECT)} | more


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "diffsim.query.cli", "models", "fetch", name]


def fetched(name: str, hub: str | Hub, models: Path, **more: str) -> Ran:
    """The real command in a process of its own, because the hub's client reads its settings when it is imported."""
    ran = subprocess.run(command(name), env=environment(hub, models, **more), capture_output=True)
    return Ran(ran.returncode, ran.stdout, ran.stderr.decode())


def _pinned(repository: str) -> set[str]:
    """The revisions at which the presets want a repository."""
    known = known_families()
    presets = [*known.presets.values(), *known.adapters.values()]
    return {source.revision for preset in presets for source in preset.sources if source.repository == repository}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api" and parts[1] != "models":  # the client also asks about itself
            self.answer(404)
            return
        host = self.headers["Host"].split(":")[0]
        self.hub.tokens.setdefault(host, set()).add(self.headers["Authorization"])
        if parts[0] == "api":
            self.list("/".join(parts[2:4]), parts[5])
        elif parts[0] == "store":
            self.send(self.hub.repositories["/".join(parts[1:3])]["/".join(parts[3:])], "/".join(parts[3:]))
        else:
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def list(self, repository: str, revision: str) -> None:
        files = self.hub.repositories.get(repository)
        if self.hub.status.get("listing"):
            self.answer(self.hub.status["listing"].pop(0))
        elif files is None:
            self.answer(401, {"X-Error-Code": "RepoNotFound"})  # as the hub says it to who has no account
        elif revision not in _pinned(repository):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [self.entry(path, content) for path, content in files.items()]
            self.answer(200, {}, {"id": repository, "sha": revision, "siblings": siblings})

    def entry(self, path: str, content: bytes) -> dict[str, object]:
        size = self.hub.sizes.get(path, len(content))
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found = {"rfilename": path, "size": size, "blobId": git}
        if len(content) < LARGE:
            return found
        large = {"size": size, "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
        return found | {"blobId": "0" * 40, "lfs": large}

    def resolve(self, repository: str, revision: str, path: str) -> None:
        content = self.hub.repositories[repository][path]
        if self.hub.status.get(path):
            self.answer(self.hub.status[path].pop(0))
        elif revision not in _pinned(repository):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif len(content) < LARGE:
            self.send(content, path)
        else:
            store = f"http://localhost:{self.server.server_address[1]}/store/{repository}/{path}"
            self.answer(302, {"Location": store})

    def send(self, content: bytes, path: str) -> None:
        """A file, from the byte that was asked for."""
        content = self.hub.instead.get(path, content)
        wanted = self.headers["Range"] if self.hub.ranges else None
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.hub.asked.append((path, first))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        content = content[first:]
        if self.hub.cut.get(path):
            self.wfile.write(content[: self.hub.cut[path].pop(0)])
            self.hang_up()
            return
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.hub.before(path)
        self.wfile.write(content[half:])

    def hang_up(self) -> None:
        self.close_connection = True
        if self.hub.rudely:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()

    def answer(self, status: int, headers: dict[str, str] | None = None, body: object = None) -> None:
        content = json.dumps(body or {"error": "so be it"}).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
