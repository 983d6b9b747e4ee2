"""What a run leaves out of a root: patterns in the manner of .gitignore, remembered with the root."""

import os
from collections.abc import Iterable, Sequence
from functools import cache

from pathspec import GitIgnoreSpec

from .errors import IndexerError

DEFAULT_EXCLUSIONS = (
    "@eaDir/",
    "node_modules/",
    ".git/",
    "System Volume Information/",
    "$RECYCLE.BIN/",
    "$Recycle.Bin/",
    "lost+found/",
    ".Trash*/",
    "__MACOSX/",
)
"""Directories that hold thumbnails, deleted files or programs."""


class BadPattern(IndexerError, ValueError):
    """A pattern of what is to be left out cannot be understood."""


class Exclusions:
    """The default patterns, then a root's own; where several match a path, the last one decides. `matched`: those of
    the own patterns that have left something out, or taken it back in. Raises BadPattern."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = patterns
        self._spec = _spec(tuple(patterns))
        self.matched: set[str] = set()

    def reason(self, path: bytes, is_dir: bool) -> str | None:
        """Why a path, relative to the root, is left out; None if it is not."""
        if not is_dir and not self._patterns:
            return None
        found = self._spec.check_file(os.fsdecode(path) + "/" * is_dir)
        if found.index is None:
            return None
        if found.index < len(DEFAULT_EXCLUSIONS):
            return "excluded directory"
        self.matched.add(self._patterns[found.index - len(DEFAULT_EXCLUSIONS)])
        return "excluded by a pattern" if found.include else None


@cache
def _spec(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    for pattern in patterns:
        try:
            lines = [] if "\n" in pattern else [each.include for each in GitIgnoreSpec.from_lines([pattern]).patterns]
        except ValueError:
            lines = []
        if not lines or lines[0] is None:  # gitignore takes it for nothing, or for a comment
            raise BadPattern(
                f"The pattern {pattern!r} leaves nothing out; write a name, a path below the folder or a pattern of "
                ".gitignore, for example private/ or '*.gif'."
            )
    return GitIgnoreSpec.from_lines([*DEFAULT_EXCLUSIONS, *patterns])


def for_root(pattern: str, folder: bytes, also_called: Iterable[str]) -> str:
    """A pattern as a person gave it for a folder, as one for its root. folder: relative to the root, b"" for the root
    itself. also_called: absolute paths of the folder, so that a path below it may be given as such. Raises BadPattern.
    """
    sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    for name in also_called:
        if (body + "/").startswith(name.rstrip("/") + "/"):
            body = body.removeprefix(name.rstrip("/"))
    if body.startswith("./"):
        body = body[1:]
    if not body.strip("/."):
        raise BadPattern(f"The pattern {pattern!r} is empty or the whole folder; name what is to be left out of it.")
    if folder:
        anchored = "/" in body.rstrip("/")
        body = "/" + _literal(os.fsdecode(folder)) + "/" + (body.lstrip("/") if anchored else "**/" + body)
    _spec((sign + body,))
    return sign + body


def together(remembered: Sequence[str], new: Iterable[str]) -> tuple[str, ...]:
    """The patterns of a root with more of them; one with ! takes the same one without it back."""
    patterns = list(remembered)
    for pattern in new:
        opposite = pattern[1:] if pattern.startswith("!") else "!" + pattern
        taken_back = opposite in patterns
        patterns = [known for known in patterns if known not in (pattern, opposite)]
        if not (taken_back and pattern.startswith("!")):
            patterns.append(pattern)
    return tuple(patterns)


def _literal(path: str) -> str:
    return "".join("\\" + char if char in "\\*?[]! #" else char for char in path)
