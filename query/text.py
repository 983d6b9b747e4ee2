"""Text for people: names, sizes, durations, and similarity against chance."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

SURE, LIKELY = 0.05, 1.0
"""Up to so many pictures by chance, a hit is surely, or likely, related to the query (docs/chance.md)."""


def chance_text(by_chance: float) -> str:
    """At most two significant digits, and a bound for tiny figures: the null sample supports no more precision."""
    if by_chance < 0.001:
        return "< 0.001"
    by_chance = float(f"{by_chance:.1e}")
    if by_chance < 10:
        return f"{by_chance:#.2g}" if by_chance < 1 else f"{by_chance:.1f}"
    return f"{by_chance:,.0f}" if by_chance < 1e6 else f"{by_chance:.0e}"


def standing_text(score: float, likeness: float | None) -> str:
    """How alike a hit is: its likeness, or its score where that is all that is known."""
    return f"{score:.4f}" if likeness is None else f"{likeness:.1f}"


def certainty(by_chance: float | None) -> str:
    """A hit in one word: `sure`, `likely` or `weak`; nothing where chance was not estimated."""
    if by_chance is None:
        return ""
    return "sure" if by_chance <= SURE else "likely" if by_chance <= LIKELY else "weak"


def likeness_ended(by_chance: float | None) -> bool:
    """Whether chance alone explains a hit: more than one picture would be expected to score as high."""
    return certainty(by_chance) == "weak"


def printable(name: str) -> str:
    """A file name on one line of a terminal: control characters and undecodable bytes as escapes."""
    return "".join(
        _escape(char) if unicodedata.category(char) in ("Cc", "Cs", "Cf", "Zl", "Zp") else char for char in name
    )


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode() if code > 31 or char in "\n\r\t" else f"\\x{code:02x}"


def telling(paths: Sequence[str]) -> list[str]:
    """As much of the end of each path as tells it from the others: its name, or its last folders too."""
    parts = {path: PurePath(path).parts for path in paths}
    kept = dict.fromkeys(parts, 1)
    while True:
        tails = {path: os.path.join("", *parts[path][-kept[path] :]) for path in parts}
        alike: dict[str, list[str]] = {}
        for path, tail in tails.items():
            alike.setdefault(tail, []).append(path)
        unclear = [path for some in alike.values() if len(some) > 1 for path in some if kept[path] < len(parts[path])]
        if not unclear:
            return [tails[path] for path in paths]
        for path in unclear:
            kept[path] += 1


def size_text(count: float) -> str:
    """Bytes in plain units."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """A duration in everyday units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
