"""How a run goes about its work."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class IndexOptions:
    """How to run. exclude: further patterns of .gitignore, each for the folders of the run, whose roots remember them.
    include_hidden: None as the roots remember it. batch_size: pictures per network pass. workers: decoding processes.
    memory: bytes that candidate recall may take when it is asked. retry_failed: try files that failed before although
    they have not changed. commit_seconds: how much work a killed run may lose. shard_pictures: how many pictures the
    newest shard takes, and each one after it; None leaves that as it is. only: absolute paths of the files to extract,
    where not all of them are wanted."""

    exclude: Sequence[str] = ()
    include_hidden: bool | None = None
    device: str = "auto"
    batch_size: int = 16
    workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    memory: int = 2**30
    retry_failed: bool = False
    file_timeout_s: float = 60.0
    decoder_memory: int = 2 * 10**9
    commit_seconds: float = 4.0
    shard_pictures: int | None = None
    only: frozenset[bytes] | None = None
