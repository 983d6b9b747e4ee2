"""Configurations of networks: JSON files that hold one table of settings."""

import json
from pathlib import Path
from typing import Any

from .errors import COPY_AGAIN, BadNetwork


def read_table(path: Path, otherwise: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings in a file. Returns `otherwise` if it cannot be read or does not hold a table; if that is None,
    raises BadNetwork, which names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        problem = "is not a table of settings"
    except (OSError, ValueError, RecursionError) as error:
        values, problem = None, f"cannot be read ({error})"
    if isinstance(values, dict):
        return values
    if otherwise is None:
        raise BadNetwork(f"{path} {problem}; {COPY_AGAIN}")
    return otherwise
