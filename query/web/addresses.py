"""Pictures at an address of the web, fetched for the page where that is allowed.

The address comes from outside, and this machine reaches places that others do not. So only public hosts are asked: each
name is looked up once, all its addresses must be public, and the connection goes to the one that was checked. Every
redirection is checked in the same way. No cookies, passwords or proxies are used.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ..text import printable, size_text
from .problems import Problem

MOST_BYTES = 64 * 2**20
_HOPS = 4
_TIME_S = 20.0
"""For everything: looking up, redirections and bytes."""
_PIECE = 2**16
_PLAIN = "%/:;=@!$&'()*+,~?"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SAVE = "save the picture and drop its file instead."

NOT_ALLOWED = Problem(
    403,
    "This page fetches nothing from addresses; save the picture and drop its file, or start the page with "
    "`diffsim browse --fetch`.",
)

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(ip: IP) -> bool:
    """Whether it is an address of the internet: not private, of this machine, of the link, of many, or one of these in
    the clothes of IPv6."""
    inner: list[IP | None] = []
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    ordinary = ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)
    return (ordinary or any(inner)) and all(is_public(one) for one in inner if one is not None)


def fetch(address: str, permitted: Callable[[IP], bool] = is_public) -> bytes:
    """The bytes behind an address, at most 64 MB, within 20 s. permitted: which hosts may be asked. Raises Problem."""
    end = time.monotonic() + _TIME_S
    for _ in range(_HOPS):
        parts = _checked(address)
        connection = _connection(parts, _permitted_ip(parts, permitted), end)
        watch = threading.Timer(max(0.0, end - time.monotonic()), _end, [connection])
        watch.daemon = True
        watch.start()
        try:
            connection.request("GET", _target(parts), headers={"User-Agent": "diffsim", "Accept": "image/*"})
            with connection.getresponse() as response:
                if response.status not in (301, 302, 303, 307, 308):
                    return _body(response, parts, end)
                address = urljoin(address, response.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as problem:
            late = time.monotonic() >= end
            reason = f"it took longer than {_TIME_S:.0f} s" if late else _reason(problem)
            raise Problem(422, f"{_shown(parts)} did not give a picture: {reason}; {_SAVE}") from None
        finally:
            watch.cancel()
            connection.close()
            if connection.wire is not None:
                connection.wire.close()
    raise Problem(422, f"The address leads on more than {_HOPS} times; {_SAVE}")


def _checked(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        parts.port  # noqa: B018  # raises for a number that is none
    except ValueError:
        usable = False
    if not usable or not address.isprintable() or " " in address:
        raise Problem(422, "Only addresses of the web can be fetched, https://HOST/PICTURE; " + _SAVE)
    return parts


def _permitted_ip(parts: SplitResult, permitted: Callable[[IP], bool]) -> str:
    try:
        found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Problem(422, f"There is no host {printable(parts.hostname or '')}; check the address.") from None
    ips = [str(place[0]).partition("%")[0] for *_, place in found]
    if not ips or not all(permitted(ipaddress.ip_address(ip)) for ip in ips):
        raise Problem(
            403,
            f"{printable(parts.hostname or '')} is not a public host, and only these are asked; {_SAVE}",
        )
    return ips[0]


class _Pinned(http.client.HTTPConnection):
    """To the address that was checked, whatever the name means by now."""

    def __init__(self, parts: SplitResult, ip: str, timeout: float) -> None:
        super().__init__(parts.hostname or "", _port(parts), timeout=timeout)
        self._ip = ip
        self.wire: socket.socket | None = None
        self._secure = parts.scheme == "https"

    def connect(self) -> None:
        self.sock = self.wire = socket.create_connection((self._ip, self.port), self.timeout)
        if self._secure:
            self.sock = self.wire = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _connection(parts: SplitResult, ip: str, end: float) -> _Pinned:
    return _Pinned(parts, ip, max(0.1, end - time.monotonic()))


def _end(connection: _Pinned) -> None:
    """A server that sends a byte now and then does not get more time by that."""
    if connection.wire is not None:
        with suppress(OSError):  # it has ended by itself
            connection.wire.shutdown(socket.SHUT_RDWR)


def _body(response: http.client.HTTPResponse, parts: SplitResult, end: float) -> bytes:
    if response.status != 200:
        raise Problem(422, f"{_shown(parts)} answered {response.status}; check the address.")
    taken = bytearray()
    while piece := response.read(_PIECE):
        taken += piece
        if len(taken) > MOST_BYTES:
            raise Problem(422, f"The file is larger than {size_text(MOST_BYTES)}; {_SAVE}")
    if response.length or time.monotonic() >= end:  # what was announced did not come, or it was cut off
        raise http.client.IncompleteRead(b"")
    return bytes(taken)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _target(parts: SplitResult) -> str:
    return quote(parts.path or "/", safe=_PLAIN) + (f"?{quote(parts.query, safe=_PLAIN)}" if parts.query else "")


def _shown(parts: SplitResult) -> str:
    return printable(parts.hostname or "")


def _reason(problem: Exception) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return "its certificate is not valid"
    if isinstance(problem, TimeoutError):
        return "it did not answer in time"
    return getattr(problem, "strerror", None) or "its answer broke off"
