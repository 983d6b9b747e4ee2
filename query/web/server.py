"""Serve the page on 127.0.0.1 until Ctrl-C."""

import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from ..errors import QueryError
from .app import create_app


class PortInUse(QueryError):
    """The page cannot be served at this port."""


def serve(index: Path, port: int, *, device: str, open_browser: bool, announce: Callable[[str], None]) -> None:
    """Announce the address, with its token, and serve. port: 0 means any free one. Raises PortInUse."""
    app = create_app(index, device=device)
    listening = _listen(port)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/?token={app.state.token}"
    announce(address)
    if open_browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    with suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        uvicorn.Server(config).run([listening])


def _listen(port: int) -> socket.socket:
    # The protocol is named: only then does asyncio send without delay; else each answer waits 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # a browser that is opened at once then waits instead of being refused
    except OSError as problem:
        listening.close()
        raise PortInUse(
            f"The port {port} of 127.0.0.1 cannot be used ({problem.strerror}); choose another with --port N."
        ) from problem
    return listening
