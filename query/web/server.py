"""Serve the page on 127.0.0.1 until Ctrl-C."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import QueryError
from .app import create_app
from .browser import Opened

_HEAD_S = 10.0
"""A connection is closed if the head of a request does not come within this time; the guard limits bodies."""


class PortInUse(QueryError):
    """The page cannot be served at this port."""


def serve(
    index: Path,
    port: int,
    *,
    device: str,
    open_browser: bool,
    announce: Callable[[str], None],
    fetch: bool = False,
    token: str | None = None,
) -> None:
    """Announce the address, with its token, and serve. port: 0 means any free one. fetch: see `create_app`. token: one
    that was kept from an earlier start. Raises PortInUse."""
    app = create_app(index, device=device, fetch=fetch, token=token, lasting=token is not None)
    listening = listen(port)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/?token={app.state.token}"
    announce(address)
    with suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        Server(app, address if open_browser else None).run([listening])


class Server(uvicorn.Server):
    """address: opened in the browser as soon as it is served."""

    def __init__(self, app: FastAPI, address: str | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        super().__init__(config)
        self._address = address
        self._opened: Opened | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._address is not None and self.started:
            self._opened = Opened(self._address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._opened is not None:
            self._opened.close()
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """uvicorn itself waits for ever for the rest of a request."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        """Between requests, or after an answer whose request is still coming, the clock runs."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._patience is None:
            self._patience = self.loop.call_later(_HEAD_S, self.transport.close)

    def _stop_watching(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def listen(port: int) -> socket.socket:
    """A listening socket of this machine only. Raises PortInUse."""
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
