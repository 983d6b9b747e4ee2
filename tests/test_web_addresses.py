"""Pictures at addresses: which hosts may be asked, and how long and how much is read; with real servers on this
machine, which a test permits where the page never would."""

import ipaddress
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import random_picture
from indexing import build, draw
from webs import TOKEN, client, problem, served

from diffsim.query.web import addresses
from diffsim.query.web.addresses import fetch, is_public
from diffsim.query.web.problems import Problem


@contextmanager
def serving(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A server of these paths; `/slow` sends a byte now and then for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                except OSError:
                    return
            status, headers, body = answers[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *parts: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def refusal(address: str, permitted=is_public) -> str:
    with pytest.raises(Problem) as raised:
        fetch(address, permitted)
    assert raised.value.detail.endswith(".") and "\n" not in raised.value.detail
    return raised.value.detail


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::80ff:fffe",
    ],
)
def test_hosts_that_are_not_of_the_internet(ip):
    assert not is_public(ipaddress.ip_address(ip))


@pytest.mark.parametrize("ip", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_hosts_of_the_internet(ip):
    assert is_public(ipaddress.ip_address(ip))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254"]
)
def test_this_machine_is_never_asked_whatever_it_is_called(host):
    with serving({"/a.png": (200, {}, b"secret")}) as there:
        port = there.rsplit(":", 1)[1]
        detail = refusal(f"http://{host}:{port}/a.png")
    assert "not a public host" in detail


def test_a_redirection_is_checked_again():
    moved = {
        "/a": (302, {"Location": "/b"}, b""),
        "/b": (200, {}, b"picture"),
        "/round": (301, {"Location": "/round"}, b""),
    }
    with serving(moved) as there:
        known = []

        def once(ip) -> bool:
            known.append(ip)
            return len(known) == 1

        assert fetch(f"{there}/a", lambda ip: True) == b"picture"
        assert "not a public host" in refusal(f"{there}/a", once)  # the second look-up is judged by itself
        assert "leads on more than" in refusal(f"{there}/round", lambda ip: True)
        moved["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
        assert "Only addresses of the web" in refusal(f"{there}/file", lambda ip: True)


def test_limits_of_time_and_size(monkeypatch):
    monkeypatch.setattr(addresses, "_TIME_S", 0.6)
    monkeypatch.setattr(addresses, "MOST_BYTES", 1000)
    answers = {"/large": (200, {}, bytes(5000)), "/none": (404, {}, b""), "/cut": (200, {"Content-Length": "99"}, b"x")}
    with serving(answers) as there:
        assert "took longer" in refusal(f"{there}/slow", lambda ip: True)
        assert "larger than" in refusal(f"{there}/large", lambda ip: True)
        assert "answered 404" in refusal(f"{there}/none", lambda ip: True)
        assert "broke off" in refusal(f"{there}/cut", lambda ip: True)


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://1.1.1.1/a",
        "http://",
        "http://a:b@1.1.1.1/",
        "http://1.1.1.1:99999/",
        "cat.png",
        "http://a b/",
    ],
)
def test_what_is_no_address_of_the_web(address):
    assert "Only addresses of the web" in refusal(address)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("addresses")
    draw(folder / "pictures", range(4))
    build(folder / "index", folder / "pictures")
    return folder / "index"


def test_the_page_fetches_only_where_it_may(index, tmp_path, monkeypatch):
    random_picture(50).save(tmp_path / "a.png")
    with serving({"/a.png": (200, {}, (tmp_path / "a.png").read_bytes()), "/text": (200, {}, b"words")}) as there:
        with client(index) as asker:
            asked = asker.post("/api/uploads/address", json={"address": f"{there}/a.png"})
            assert "--fetch" in problem(asked, 403)
        with client(index, fetch=True) as asker:
            asked = asker.post("/api/uploads/address", json={"address": f"{there}/a.png"})
            assert "not a public host" in problem(asked, 403)
            monkeypatch.setattr(addresses.fetch, "__defaults__", (lambda ip: True,))
            found = asker.post("/api/uploads/address", json={"address": f"{there}/a.png"})
            assert found.status_code == 201 and found.json()["picture"].startswith("u")
            assert "not a picture" in problem(
                asker.post("/api/uploads/address", json={"address": f"{there}/text"}), 422
            )


def test_an_address_on_the_page_gets_one_sentence(index):
    from pages import Page, browser

    give = """
      const data = new DataTransfer(); data.setData(arguments[1], arguments[2]);
      document.body.dispatchEvent(arguments[0] === 'paste'
        ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));"""
    with served(index) as address, browser() as driver:
        page = Page(driver, address)
        page.open(f"/?token={TOKEN}")
        for how, kind in (("paste", "text/plain"), ("drop", "text/uri-list")):
            page.js(give, how, kind, "https://example.org/cat.png")
            page.until(lambda: page.texts(".toast.problem span"), "silence")
            assert "--fetch" in page.one(".toast.problem").text
            page.click(".toast button")
        page.js(give, "paste", "text/plain", "just words")
        assert "neither a picture" in page.one(".toast.problem").text
        own = page.one(".tile .pick").get_attribute("href")
        page.does(lambda: page.js(give, "drop", "text/uri-list", own))  # a tile that was dragged is known
        assert page.driver.current_url == own
