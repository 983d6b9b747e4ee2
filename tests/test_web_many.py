"""Requests that never come whole, clients that leave, and more of them than can be answered."""

import io
import os
import socket
import stat
import threading
import time
import webbrowser
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import webs
from conftest import random_picture
from indexing import build, draw
from webs import TOKEN, answers, problem

from diffsim.query.web import browser, export, guard, lanes, server

LET_IN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    draw(folder / "pictures", range(4))
    build(folder / "index", folder / "pictures")
    return folder / "index"


@pytest.fixture
def address(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(server, "_HEAD_S", 0.5)
    monkeypatch.setattr(guard, "PIECE_S", 0.5)
    with webs.served(index) as there:
        yield there


def connected(address: str) -> socket.socket:
    there = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
    there.settimeout(60)
    return there


def head(method: str, path: str, length: int, token: str = TOKEN) -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        f"Content-Length: {length}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def everything(there: socket.socket) -> bytes:
    """What the server says until it closes."""
    said = b""
    while piece := there.recv(1 << 16):
        said += piece
    return said


def test_half_requests_are_closed(address: str) -> None:
    beginnings = [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b""),
        (head("POST", "/api/uploads", 1000) + b"x" * 10, b" 408 "),
        (head("POST", "/api/search", 1000) + b"{", b" 408 "),
        (head("POST", "/api/search", 1000, "wrong") + b"{", b" 401 "),
        (head("GET", "/api/index", 1000), b" 200 "),
        (head("GET", "/static/app.css", 0) + b"GET / HT", b" 200 "),
    ]
    opened = [connected(address) for _ in beginnings]
    for there, (sent, _) in zip(opened, beginnings, strict=True):
        there.sendall(sent)
    for there, (sent, status) in zip(opened, beginnings, strict=True):
        said = everything(there)
        assert (status in said.split(b"\r\n")[0]) if status else not said, (sent, said)
        there.close()


def test_a_slow_but_steady_body_is_taken(address: str) -> None:
    data = io.BytesIO()
    random_picture(3).save(data, "PNG")
    whole = data.getvalue()
    step = -(-len(whole) // 5)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(whole), step):
            time.sleep(0.15)
            yield whole[start : start + step]

    response = httpx2.post(f"{address}/api/uploads", content=pieces(), headers=LET_IN, timeout=60)
    assert response.status_code == 201, response.text


def test_clients_that_leave_are_no_errors(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    with webs.served(index) as address:
        beginnings = (
            head("POST", "/api/uploads", 10**6) + b"x" * 1000,
            head("POST", "/api/search", 1000) + b"{",
            head("GET", "/thumbnails/1", 0),
            head("POST", "/api/search", 13) + b'{"picture":1}',
            head("POST", "/api/zip", 16) + b'{"pictures":[1]}',
        )
        for sent in beginnings * 2:
            there = connected(address)
            there.sendall(sent)
            there.close()
        assert httpx2.get(f"{address}/api/index", headers=LET_IN, timeout=60).status_code == 200
    assert [record.getMessage() for record in caplog.records] == []


def test_who_would_wait_too_long_is_told_to_come_back(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_PATIENCE_S", 0.2)
    with webs.client(index) as asker:
        engine = asker.app.state.engine
        asker.portal.call(lambda: engine.lanes.ask(lambda one: one.searcher.spaces()))
        held = threading.Event()
        count = len(engine.lanes._askers)
        assert count >= 2
        busy = [asker.portal.start_task_soon(engine.lanes.ask, lambda _: held.wait(60)) for _ in range(count)]
        asked = asker.post("/api/search", json={"picture": 1})
        assert "busy" in problem(asked, 503) and int(asked.headers["retry-after"]) > 0
        assert asker.get("/thumbnails/1").status_code == 200  # another lane
        held.set()
        assert all(one.result(60) for one in busy)
        assert len(answers(asker, picture=1)) == 2


def test_several_questions_at_once_have_the_answers_of_one(index: Path) -> None:
    with webs.client(index) as asker:
        alone = [answers(asker, picture=number)[-1]["hits"] for number in (1, 2, 3, 4)]
        found: dict[int, list] = {}

        def ask(number: int) -> None:
            found[number] = answers(asker, picture=1 + number % 4)[-1]["hits"]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(found[number] == alone[number % 4] for number in range(12))


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def no_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only browsers are those of the returned folder."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(webbrowser, "_browsers", {})
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    return tmp_path / "bin"


def test_the_token_is_not_on_a_command_line(no_window: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a browser in the foreground does not keep the page from being served."""
    told = tmp_path / "told"
    script(no_window, "look", f'echo "$@" > {told}.part; /bin/mv {told}.part {told}; read rest')
    monkeypatch.setenv("BROWSER", str(no_window / "look"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = browser.Opened("http://127.0.0.1:9/?token=secret&q=1")
    while not told.exists():
        time.sleep(0.01)
    address = told.read_text().strip()
    assert address.startswith("file://") and "secret" not in address
    page = Path(address.removeprefix("file://"))
    assert "url=http://127.0.0.1:9/?token=secret&amp;q=1" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600 and stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    opened.close()
    assert not page.parent.exists()


def test_a_text_browser_is_not_opened(no_window: Path, tmp_path: Path) -> None:
    for name in ("w3m", "lynx", "www-browser"):
        script(no_window, name, f"echo > {tmp_path}/ran")
    opened = browser.Opened("http://127.0.0.1:9/?token=secret")
    opened._thread.join()
    assert opened._folder is None
    opened.close()
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------------- archives


def test_an_archive_can_be_unpacked_anywhere(tmp_path: Path) -> None:
    names = ["x" * 251 + ".png", "ش" * 125 + ".png", "CON.png", "com1.tar.png", 'a<b>"c|d?e*.png', "می\u200cخواهم.png"]
    for number, name in enumerate(f"{folder}/{name}" for folder in "ab" for name in names):
        place = tmp_path / "in" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        random_picture(number).save(place, "PNG")
        os.utime(place, (1_560_000_000, 1_560_000_000))
    build(tmp_path / "index", tmp_path / "in")
    with webs.client(tmp_path / "index") as asker:
        answer = asker.post("/api/zip", json={"pictures": list(range(1, 13))})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        found = archive.infolist()
        assert archive.testzip() is None and len(found) == 12
        archive.extractall(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 12
    assert {one.date_time[:3] for one in found} == {time.localtime(1_560_000_000)[:3]}
    assert all(len(one.filename.encode()) <= 240 and one.filename.endswith(".png") for one in found)
    assert not {letter for one in found for letter in one.filename} & set('<>:"|?*\\/')
    assert not {one.filename.partition(".")[0].lower() for one in found} & {"con", "com1"}
    assert sum("می\u200cخواهم" in one.filename for one in found) == 2


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"ends in a dot.", "ends in a dot"),
        (b"and a space ", "and a space"),
        (b"...", "picture"),
        (b"nul", "_nul"),
        (b"Aux .png", "_Aux.png"),
        (b"caf\xe9\xff.jpg", "caf__.jpg"),
        (b"a\nb:c\\d.png", "a_b_c_d.png"),
    ],
)
def test_names_in_an_archive(name: bytes, kept: str) -> None:
    taken: set[str] = set()
    first, second = (export._name(b"/home/" + name, taken) for _ in range(2))
    assert first == kept and second != first


@pytest.mark.parametrize("seconds", [-1e12, -1, 1e9, 1e11, 1e300, float("nan")])
def test_any_time_has_a_date_in_an_archive(seconds: float) -> None:
    assert 1980 <= zipfile.ZipInfo("a", export._date(seconds)).date_time[0] <= 2107
