"""Access: the page is for the person who started it, not for other pages or other users of the machine.

Every user of this machine, and every page in a browser on it, can reach 127.0.0.1. Hence a token, which is part of the
printed address and is then kept in a cookie; a check of Host, against names that point to 127.0.0.1 (DNS rebinding); of
Origin and Sec-Fetch-Site, against other pages; and a policy that lets the page load nothing from other servers. Bodies
are limited before anything reads them.
"""

import asyncio
import html
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import problems

HOSTS = ("127.0.0.1", "localhost", "[::1]")
MAX_UPLOAD = 64 * 2**20
MAX_BODY = 2**20
UPLOADS = "/api/uploads"
ICON = "/favicon.ico"
"""Browsers ask for it by themselves where a document names none: pictures, JSON, a page that leads on."""

PIECE_S = 20.0
BODY_S = 300.0
"""Within these times the next piece of a body, and all of it, must be there."""

_CLOSING = {"Connection": "close"}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_LEADS_ON = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0;url={address}">
<title>diffsim browse</title>
"""


class Guard:
    """ASGI middleware around the whole app. cookie_s: how long the browser keeps the token; None until it is closed."""

    def __init__(self, app: ASGIApp, token: str, locked_page: str, cookie_s: int | None = None) -> None:
        self._app = app
        self._token = token
        self._cookie_s = cookie_s
        self._locked_page = locked_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, _limited(scope, receive), send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """The response that refuses the request; None if it may pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in HOSTS:
            return problems.response(403, f"This page is served under {HOSTS[0]} only, not under another name.")
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return problems.response(403, "Requests from other pages are not answered.")
        navigates = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigates:
            return problems.response(403, "Requests from other pages are not answered.")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > _limit(scope):
            return problems.response(413, _too_large(scope))
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if "token" in query and scope["method"] in ("GET", "HEAD") and self._is_token(query["token"]):
            return self._signed_in(scope, query)
        if self._is_open(scope, headers):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return Response(self._locked_page, 401, media_type="text/html")
        return problems.response(
            401,
            "Open the address printed by `diffsim browse`; it contains the access token.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _signed_in(self, scope: Scope, query: dict[str, str]) -> Response:
        """Lead to the same address without the token, which then neither stays in the history nor is shared."""
        rest = urlencode([(name, value) for name, value in query.items() if name != "token"])
        # A path of two slashes would lead to another machine.
        answer: Response = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), 303)
        if Headers(scope=scope).get("sec-fetch-site") in ("cross-site", "same-site"):
            # Somebody followed a link. Where another page led here by redirection, a strict cookie is not sent; where
            # this page leads on, it is.
            answer = HTMLResponse(_LEADS_ON.format(address=html.escape(answer.headers["location"])))
        answer.set_cookie(_cookie_name(scope), self._token, self._cookie_s, path="/", httponly=True, samesite="strict")
        return answer

    def _is_open(self, scope: Scope, headers: Headers) -> bool:
        if scope["path"] == ICON or scope["path"].startswith("/static/"):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(scope))
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Count the body's bytes, which Content-Length may state wrongly, and do not wait for them for ever."""
    limit = _limit(scope)
    taken, more = 0, True
    end = time.monotonic() + BODY_S

    async def limited() -> Message:
        nonlocal taken, more
        if not more:
            return await receive()  # that the client leaves
        try:
            async with asyncio.timeout(min(PIECE_S, end - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "The rest of the request did not come; send it again.", _CLOSING) from None
        more = message.get("more_body", False)
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(413, _too_large(scope), _CLOSING)
        return message

    return limited


def _limit(scope: Scope) -> int:
    return MAX_UPLOAD if scope["path"] == UPLOADS else MAX_BODY


def _too_large(scope: Scope) -> str:
    return f"The body is larger than {_limit(scope) >> 20} MB, the limit at this address."


def _name(host: str) -> str:
    """A Host header without its port."""
    name, _, port = host.rpartition(":")
    return name if port.isdecimal() and name else host


def _cookie_name(scope: Scope) -> str:
    """Cookies are shared by all ports: several pages of one machine must not overwrite each other's."""
    return f"diffsim-{(scope.get('server') or ('', 0))[1]}"
