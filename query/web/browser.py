"""Opens the page in the person's browser, without showing its token to other users of the machine."""

import html
import os
import tempfile
import threading
import webbrowser
from pathlib import Path

LEADS = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={address}">
<title>diffsim browse</title>
<a href="{address}">Open the page</a>
"""


class Opened:
    """An address that a browser was told to open.

    Everybody on a machine can read the command lines of its programs, so the browser is given the path of a file that
    only its owner can read, and that leads there. All in a thread: some browsers run in the foreground.
    """

    def __init__(self, address: str) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._thread = threading.Thread(target=self._open, args=(address,), daemon=True)
        self._thread.start()

    def _open(self, address: str) -> None:
        browser = _browser()
        if browser is None:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="diffsim-")  # for its owner alone
        page = Path(self._folder.name) / "open.html"
        page.touch(0o600)
        page.write_text(LEADS.format(address=html.escape(address)), encoding="utf-8")
        browser.open(page.as_uri())

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _browser() -> webbrowser.BaseBrowser | None:
    """The one that $BROWSER names, or one with a window; the page needs more than a text browser, which would also take
    the terminal."""
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return None
    in_a_terminal = type(found) is webbrowser.GenericBrowser and not os.environ.get("BROWSER")
    return None if in_a_terminal else found
