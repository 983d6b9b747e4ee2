"""The token of the page, kept from one start to the next, for bookmarks to go on working: a file of its owner alone."""

import os
import re
import secrets
import stat
from pathlib import Path

from diffsim.retrieval.durable import put_in_place
from diffsim.retrieval.regular_files import open_regular
from diffsim.retrieval.user_folders import user_data

from ..errors import QueryError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{24,200}")


class BadToken(QueryError):
    """The kept token cannot be used."""


def kept_token(*, renew: bool = False) -> str:
    """The token of this user, made if there is none yet. renew: a new one takes its place, and the old one opens
    nothing any more. Raises BadToken, NoHome."""
    path = user_data() / "browse-token"
    try:
        if not renew and os.path.lexists(path):
            return _read(path)
        return _write(path)
    except OSError as problem:
        raise BadToken(
            f"The token {path} cannot be kept ({problem.strerror or problem}); start the page without --keep-token."
        ) from problem


def _read(path: Path) -> str:
    with open_regular(path) as file:
        about = os.fstat(file.fileno())
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
            raise BadToken(
                f"Others than you can read or change the token {path}; make a new one with "
                "`diffsim browse --new-token`."
            )
        token = file.read(1000).decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(token):
        raise BadToken(f"The token {path} is damaged; make a new one with `diffsim browse --new-token`.")
    return token


def _write(path: Path) -> str:
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    token = secrets.token_urlsafe(24)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    put_in_place(part, path)
    return token
