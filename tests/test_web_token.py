"""The token that is kept from one start of the page to the next: of its owner alone, and taken back."""

import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from indexing import build, draw

from diffsim.query.web.app import create_app
from diffsim.query.web.kept_token import BadToken, kept_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "diffsim"


def test_it_is_kept_for_its_owner_alone_and_renewed(home):
    before = os.umask(0)
    try:
        token = kept_token()
    finally:
        os.umask(before)
    file = home / "browse-token"
    assert file.stat().st_mode & 0o777 == 0o600 and home.stat().st_mode & 0o777 == 0o700
    assert len(token) >= 32 and kept_token() == token
    renewed = kept_token(renew=True)
    assert renewed != token and kept_token() == renewed and os.listdir(home) == ["browse-token"]


def test_one_that_others_may_know_is_not_used(home):
    kept_token()
    file = home / "browse-token"
    file.chmod(0o644)
    with pytest.raises(BadToken, match="Others than you"):
        kept_token()
    file.chmod(0o600)
    file.write_text("short\n")
    with pytest.raises(BadToken, match="damaged"):
        kept_token()
    other = home / "other"
    other.write_text("x" * 32)
    other.chmod(0o600)
    file.unlink()
    file.symlink_to(other)
    with pytest.raises(BadToken, match="cannot be kept"):
        kept_token()
    assert kept_token(renew=True) and not file.is_symlink() and other.read_text() == "x" * 32


def test_a_bookmark_lives_through_a_restart_until_the_token_is_taken_back(home, tmp_path):
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")
    cookies = None
    for start in range(2):
        app = create_app(tmp_path / "index", token=kept_token(), device="cpu", lasting=True)
        with TestClient(app, base_url="http://127.0.0.1:8765", cookies=cookies) as asker:
            if start == 0:
                led = asker.get(f"/?token={kept_token()}", follow_redirects=False)
                assert "Max-Age=31536000" in led.headers["set-cookie"]
            assert asker.get("/?q=1").status_code == 200
            cookies = asker.cookies
    app = create_app(tmp_path / "index", token=kept_token(renew=True), device="cpu", lasting=True)
    with TestClient(app, base_url="http://127.0.0.1:8765", cookies=cookies) as asker:
        assert asker.get("/?q=1").status_code == 401
