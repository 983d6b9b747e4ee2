"""Who may ask: a token, then a cookie; no other name, no other page, nothing too large."""

from pathlib import Path

import pytest
from conftest import random_picture
from fastapi.testclient import TestClient
from indexing import build, draw
from webs import TOKEN, problem

from diffsim.query.web import guard
from diffsim.query.web.app import create_app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("guard")
    draw(folder / "pictures", range(3))
    build(folder / "index", folder / "pictures")
    return create_app(folder / "index", token=TOKEN, device="cpu")


@pytest.fixture
def stranger(app) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)


ADDRESSES = ["/api/index", "/api/pictures", "/thumbnails/1", "/previews/1", "/api/openapi.json", "/", "/index", "/none"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_without_the_token(stranger, address):
    assert "access token" in problem(stranger.get(address), 401)
    assert stranger.get(address + "?token=wrong").status_code == 401
    assert stranger.get(address, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert stranger.get(address, headers={"Cookie": "diffsim-8765=wrong"}).status_code == 401


def test_a_person_without_the_token_reads_what_to_do(stranger):
    page = stranger.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 401 and "diffsim browse" in page.text
    assert stranger.get("/static/app.css").status_code == 200  # of the locked page


def test_the_icon_that_browsers_ask_for_by_themselves_is_there_for_everybody(stranger):
    icon = stranger.get("/favicon.ico")
    assert icon.status_code == 200 and icon.headers["content-type"].startswith("image/svg+xml")


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger):
    first = stranger.get(f"/?q=2&token={TOKEN}")
    assert first.status_code == 303 and first.headers["location"] == "/?q=2"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/index").status_code == 200


def test_a_followed_link_leads_on_from_here(stranger):
    """A strict cookie is not sent where another page led here by redirection."""
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    first = stranger.get(f"/compare?q=2&by=a%22b&token={TOKEN}", headers=link)
    assert first.status_code == 200 and "SameSite=strict" in first.headers["set-cookie"]
    assert 'content="0;url=/compare?q=2&amp;by=a%22b"' in first.text and TOKEN not in first.text
    assert stranger.get("/compare?q=2").status_code == 200


def test_a_person_who_gets_lost_finds_back(stranger):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    page = stranger.get("/nosuch", headers={**headers, "Accept": "text/html"})
    assert page.status_code == 404 and 'href="/"' in page.text
    problem(stranger.get("/nosuch", headers=headers), 404)


def test_the_redirect_stays_here(stranger):
    assert (
        stranger.get(f"http://127.0.0.1:8765//elsewhere.example/?token={TOKEN}")
        .headers["location"]
        .startswith("/elsew")
    )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "", "10.0.0.7:8765"])
def test_no_other_name(stranger, host):
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}
    assert "127.0.0.1" in problem(stranger.get("/api/index", headers=headers), 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8765", "[::1]:8765", "localhost"])
def test_the_names_of_this_machine(stranger, host):
    assert stranger.get("/api/index", headers={"Host": host, "Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8765"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_other_page(stranger, headers):
    asked = {"Authorization": f"Bearer {TOKEN}", **headers}
    for response in (
        stranger.get("/thumbnails/1", headers=asked),
        stranger.post("/api/search", headers=asked, json={"picture": 1}),
    ):
        assert "other pages" in problem(response, 403)


def test_a_link_to_the_page_may_be_followed(stranger):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Authorization": f"Bearer {TOKEN}"}
    assert stranger.get("/", headers=headers).status_code == 200
    assert stranger.post("/api/runs", headers=headers, json={}).status_code == 403


@pytest.mark.parametrize("address", [*ADDRESSES, "/static/app.css", "/static/none"])
def test_every_answer_says_what_the_page_may_load(stranger, address):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for response in (stranger.get(address, headers=headers), stranger.get(address)):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_nothing_too_large(stranger, monkeypatch):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert "1 MB" in problem(stranger.post("/api/search", headers=headers, content=b" " * (guard.MAX_BODY + 1)), 413)

    def endless():
        for _ in range(guard.MAX_BODY // 2**16 + 2):
            yield b" " * 2**16

    assert "1 MB" in problem(stranger.post("/api/search", headers=headers, content=endless()), 413)
    monkeypatch.setattr(guard, "MAX_UPLOAD", 2**21)
    assert "2 MB" in problem(stranger.post("/api/uploads", headers=headers, content=b" " * (2**21 + 1)), 413)


def test_no_path_of_the_client_reaches_the_disk(stranger, app, tmp_path: Path):
    random_picture(9).save(tmp_path / "secret.png")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for kind in ("/previews/", "/thumbnails/", "/static/", "/uploads/", "/api/pictures/"):
        for name in (
            f"..{tmp_path}/secret.png",
            f"%2e%2e%2f{tmp_path}/secret.png",
            "..%2f..%2fsetup.cfg",
            "....//setup.cfg",
        ):
            assert stranger.get(kind + name, headers=headers).status_code in (404, 410, 422)
    for folder in (str(tmp_path), "/", "../..", "/etc"):
        body = {"picture": 1, "filters": {"folders": [folder]}}
        assert "no folder" in problem(stranger.post("/api/search", headers=headers, json=body), 422)


def test_no_documentation_from_elsewhere(stranger):
    for address in ("/docs", "/redoc"):
        assert stranger.get(address, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404
