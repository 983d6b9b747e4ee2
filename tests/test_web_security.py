"""Beyond the guard's rules: every address is behind it, nothing in the page is inline, only indexed files are read."""

import hashlib
import os
import re
import secrets
import stat
import struct
import zlib
from pathlib import Path

import pytest
import webs
from conftest import random_picture
from indexing import build, draw
from starlette.testclient import TestClient
from webs import TOKEN, problem

from diffsim.indexer.index_folder import IndexFolder
from diffsim.query.web import guard
from diffsim.query.web.app import create_app

HOME = "http://127.0.0.1:8765"
LET_IN = {"Authorization": f"Bearer {TOKEN}"}
PAGES = ("/", "/compare", "/why", "/index")
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security")
    draw(folder / "pictures", range(6))
    build(folder / "index", folder / "pictures")
    return folder / "index"


@pytest.fixture(scope="module")
def client(index):
    with webs.client(index) as client:
        yield client


@pytest.fixture
def stranger(client):
    """Somebody who reaches the port, without the token."""
    return TestClient(client.app, HOME, follow_redirects=False)


def addresses(client: TestClient) -> list[tuple[str, str]]:
    """Every method and path that the app answers, the pages and the API's description included."""
    found = [("GET", page) for page in (*PAGES, "/api/openapi.json")]
    for path, methods in client.app.openapi()["paths"].items():
        place = path.replace("{content_id}", "1").replace("{name}", "u" + "0" * 32)
        found += [(method.upper(), place) for method in methods]
    assert len(found) > 18
    return found


# ---------------------------------------------------------------------------------------------------------- token


def test_without_the_token_nothing_is_answered(client, stranger):
    for method, path in addresses(client):
        problem(stranger.request(method, path), 401)


def test_a_browser_without_the_token_sees_a_locked_page_that_tells_nothing_of_the_index(client, stranger):
    for page in PAGES:
        answer = stranger.get(page, headers=HTML)
        assert answer.status_code == 401 and answer.headers["content-type"].startswith("text/html")
        assert "diffsim browse" in answer.text and TOKEN not in answer.text
        assert str(client.app.state.engine.index.path.name) not in re.sub("<[^>]*>", "", answer.text)


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9", "%00"])
def test_a_wrong_token_is_none(stranger, wrong):
    assert stranger.get("/", params={"token": wrong}).status_code == 401
    bearer = f"Bearer {wrong}".encode()
    assert stranger.get("/api/index", headers={b"Authorization": bearer}).status_code == 401
    assert stranger.get("/api/index", headers={b"Cookie": b"diffsim-8765=" + wrong.encode()}).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "//evil.example@127.0.0.1/"])
def test_signing_in_leads_to_no_other_machine(stranger, path):
    answer = stranger.get(f"{HOME}{path}?token={TOKEN}")
    assert re.match(r"/(?![/\\])", answer.headers["location"]), answer.headers["location"]


def test_the_token_is_compared_in_constant_time(client, stranger, monkeypatch):
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(secrets, "compare_digest", compare)
    stranger.get("/", params={"token": "first"})
    stranger.get("/", headers={"Authorization": "Bearer second"})
    stranger.get("/", headers={"Cookie": "diffsim-8765=third"})
    assert compared == [(each, TOKEN.encode()) for each in (b"first", b"second", b"third")]


def test_each_start_has_its_own_unguessable_token(index):
    apps = [create_app(index, device="cpu") for _ in range(2)]
    for app in apps:
        app.state.engine.close()
    first, second = (app.state.token for app in apps)
    assert first != second and min(len(first), len(second)) >= 32


# ---------------------------------------------------------------------------------------------------- Host, Origin


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1:9999", "http://127.0.0.1", "null", ""]
)
def test_another_page_s_requests_are_refused(client, origin):
    for method, path in addresses(client):
        assert "other pages" in problem(client.request(method, path, headers={"Origin": origin}), 403)


def test_a_proxy_s_words_change_nothing(client):
    """X-Forwarded-Proto from 127.0.0.1 would make https the page's own scheme."""
    headers = {"Origin": "https://127.0.0.1:8765", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    problem(client.get("/api/index", headers=headers), 403)


def test_the_page_s_own_requests_pass(client):
    assert client.post("/api/search", json={"picture": 1}, headers={"Origin": HOME}).status_code == 200


# ------------------------------------------------------------------------------------------------------------ policy


def test_every_answer_carries_the_policy(client, stranger):
    asked = [client.request(method, path) for method, path in addresses(client) if path != "/api/runs"]
    asked += [stranger.get("/"), stranger.get("/static/main.js"), client.get("/nothing/here")]
    asked += [client.get("/", headers={"Host": "evil.example"}), stranger.get("/", params={"token": TOKEN})]
    for answer in asked:
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        allowed = {word for name, words in policy.items() for word in words.split()}
        assert allowed <= {"'none'", "'self'", "blob:", "'script'"}  # no other machine, no eval, nothing inline
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers


def test_nothing_in_the_pages_is_inline_or_comes_from_elsewhere(client, stranger):
    for text in (*(client.get(page).text for page in PAGES), stranger.get("/", headers=HTML).text):
        assert all(re.search(r"\bsrc=", tag) for tag in re.findall(r"<script\b[^>]*>", text))
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
        assert all(link.startswith(("/", "#")) for link in re.findall(r'\b(?:src|href)="([^"]*)"', text))
    static = Path(guard.__file__).parent / "static"
    for script in static.rglob("*.js"):
        text = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            script
        )
        assert not re.search(r"https?://(?!www\.w3\.org/)", re.sub(r"^\s*//.*", "", text, flags=re.M)), script
    for sheet in static.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


def test_pictures_of_the_collection_stay_out_of_shared_caches(client):
    version = client.get("/api/pictures/1").json()["version"]
    for path in ("/thumbnails/1", f"/thumbnails/1?v={version}", "/previews/1"):
        assert client.get(path).headers["cache-control"].startswith("private")
    assert client.get("/api/index").headers["cache-control"] == "no-store"


# ---------------------------------------------------------------------------------------------- paths and files


def test_a_link_among_the_static_files_leads_nowhere(stranger, tmp_path, monkeypatch):
    (tmp_path / "static").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "static" / "link").symlink_to(tmp_path / "secret")
    mounted = next(route for route in stranger.app.routes if getattr(route, "name", "") == "static")
    monkeypatch.setattr(mounted.app, "all_directories", [tmp_path / "static"])
    assert stranger.get("/static/link").status_code == 404


@pytest.mark.parametrize("path", ["/etc/passwd", "../pictures/01.png", "u../../etc/passwd"])
def test_a_picture_is_never_named_by_a_path(client, path):
    problem(client.post("/api/search", json={"picture": path}), 422)
    problem(client.get("/api/why", params={"a": path, "b": "1"}), 422)
    problem(client.post("/api/zip", json={"pictures": [path]}), 422)


@pytest.fixture
def moved(tmp_path):
    """An index, and what takes the place of the indexed files after that."""
    draw(tmp_path / "home" / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "home" / "pictures")
    draw(tmp_path / "others", range(40, 43))
    return tmp_path


def assert_only_the_indexed_is_shown(client: TestClient, moved: Path) -> None:
    other = {path.read_bytes() for path in (moved / "others").iterdir()}
    for content_id in (1, 2, 3):
        for place in ("/thumbnails/", "/previews/"):
            problem(client.get(f"{place}{content_id}"), 404)
    archive = client.post("/api/zip", json={"pictures": [1, 2, 3]})
    assert archive.status_code == 200 and b"LEFT-OUT.txt" in archive.content
    assert not any(data in archive.content for data in other)


def test_a_file_replaced_by_a_link_is_not_followed(moved):
    for number in range(3):
        path = moved / "home" / "pictures" / f"{number:02d}.png"
        path.unlink()
        path.symlink_to(moved / "others" / f"{number + 40:02d}.png")
    with webs.client(moved / "index") as client:
        assert_only_the_indexed_is_shown(client, moved)


def test_a_file_replaced_by_a_link_to_the_same_bytes_is_not_followed_either(moved):
    for number in range(3):
        path = moved / "home" / "pictures" / f"{number:02d}.png"
        path.rename(moved / f"{number}.png")
        path.symlink_to(moved / f"{number}.png")
    with webs.client(moved / "index") as client:
        assert_only_the_indexed_is_shown(client, moved)


def test_a_folder_replaced_by_a_link_shows_nothing_that_was_not_indexed(moved):
    (moved / "home" / "pictures").rename(moved / "away")
    (moved / "home" / "pictures").symlink_to(moved / "others")
    for number in range(3):
        (moved / "others" / f"{number + 40:02d}.png").rename(moved / "others" / f"{number:02d}.png")
    with webs.client(moved / "index") as client:
        assert_only_the_indexed_is_shown(client, moved)


def test_thumbnails_and_what_lies_above_them_are_the_owner_s_alone(moved):
    """The pictures may be readable to nobody else; their thumbnails must not be either."""
    before = os.umask(0o022)
    try:
        with webs.client(moved / "index") as client:
            assert client.get("/thumbnails/1").status_code == 200
    finally:
        os.umask(before)
    folder = moved / "index" / "thumbnails"
    assert list(folder.rglob("*.webp"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_upload_leaves_nothing_on_disk(moved, monkeypatch):
    (moved / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(moved / "tmp"))
    data = (moved / "others" / "40.png").read_bytes()
    with webs.client(moved / "index") as client:
        found = client.post("/api/uploads", content=data).json()
        client.post("/api/search", json={"picture": found["picture"]})
        assert list((moved / "tmp").iterdir()) == []
        digest = hashlib.sha256(data).hexdigest()
        assert not [path for path in (moved / "index").rglob("*") if digest in path.name]


# --------------------------------------------------------------------------------------------------------- limits


def test_more_bytes_than_were_announced(client, monkeypatch):
    """In pieces without a Content-Length."""
    monkeypatch.setattr(guard, "MAX_UPLOAD", 2**20)
    taken = 0

    def pieces():
        nonlocal taken
        for _ in range(64):
            taken += 1
            yield bytes(2**16)

    assert "1 MB" in problem(client.post("/api/uploads", content=pieces()), 413)
    assert "Traceback" not in client.post("/api/search", content=(b" " * 2**16 for _ in range(64))).text


def test_more_pixels_than_are_decoded(client, tmp_path):
    """A file of some kilobytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    assert "pixels" in problem(client.post("/api/uploads", content=bomb), 422)
    random_picture(77).save(tmp_path / "good.png")
    assert client.post("/api/uploads", content=(tmp_path / "good.png").read_bytes()).status_code == 201


def test_old_uploads_make_room_for_new_ones(client, tmp_path, monkeypatch):
    monkeypatch.setattr("diffsim.query.web.uploads._MOST", 2)
    names = []
    for number in range(60, 63):
        random_picture(number).save(tmp_path / "one.png")
        names.append(client.post("/api/uploads", content=(tmp_path / "one.png").read_bytes()).json()["picture"])
    assert len(set(names)) == 3 and all(re.fullmatch("u[0-9a-f]{32}", name) for name in names)
    problem(client.post("/api/search", json={"picture": names[0]}), 410)
    assert client.post("/api/search", json={"picture": names[2]}).status_code == 200


def test_a_second_server_s_cookie_opens_nothing_here(index):
    """Cookies do not know ports: the browser sends both servers' to each."""
    other = create_app(index, token=secrets.token_urlsafe(24), device="cpu")
    try:
        asker = TestClient(other, "http://127.0.0.1:9000")
        cookies = {"Cookie": f"diffsim-8765={TOKEN}; diffsim-9000={TOKEN}"}
        assert asker.get("/api/index", headers=cookies).status_code == 401
        assert asker.get("/api/index", headers=LET_IN).status_code == 401
    finally:
        other.state.engine.close()


def test_the_catalog_is_only_read(index, client):
    """Asking, looking and uploading write nothing but thumbnails."""
    before = IndexFolder.open(index).catalog(readonly=True).generation()
    client.get("/previews/1")
    client.post("/api/search", json={"picture": 2, "fold": True})
    assert IndexFolder.open(index).catalog(readonly=True).generation() == before
