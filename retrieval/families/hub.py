"""Files of a repository on the Hugging Face hub: listed with their checksums, continued where a download stopped.

The hub's own client gives addresses, account and errors. Its downloads are not used: they are not checked, begin a file
anew after an interruption, and take a half-filled folder for the whole when there is no connection.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .preset import Source

_TRIES, _PAUSE = 3, 1
"""How often in a row a download may stop without a new byte, and the seconds between."""

_SILENCE = 20
"""Seconds without an answer after which a connection counts as lost."""


class WrongBytes(Exception):
    """What arrived does not have the checksum that the hub declares."""


class WrongRepository(Exception):
    """The repository does not hold what it should."""


@dataclass(frozen=True)
class HubFile:
    """there: its path in the repository. here: where it belongs. size: bytes. checksum: SHA-256 of a large file, git's
    SHA-1 of a small one."""

    source: Source
    there: str
    here: Path
    size: int
    checksum: str

    @property
    def partial(self) -> Path:
        return self.here.with_name(f"{self.here.name}.incomplete")

    @property
    def arrived(self) -> int:
        """Bytes on disk."""
        return next((path.stat().st_size for path in (self.here, self.partial) if path.exists()), 0)

    @property
    def complete(self) -> bool:
        return self.here.exists() and self._checks(self.here)

    def download(self, on_progress: Callable[[int], None]) -> None:
        """Download what is missing, check the whole, and only then give it its name.

        on_progress: called with the bytes on disk. Raises WrongBytes, OSError for the disk, and the client's errors.
        """
        self.here.unlink(missing_ok=True)
        self.here.parent.mkdir(parents=True, exist_ok=True)
        self.partial.touch()
        stops = 0
        while (start := self.arrived) < self.size:
            try:
                self._continue(start, on_progress)
            except Exception as problem:
                stops = 1 if self.arrived > start else stops + 1
                if stops == _TRIES or not _may_pass(problem):
                    raise
                time.sleep(_PAUSE)
        if not self._checks(self.partial):
            self.partial.unlink()
            raise WrongBytes(f"{self.there} arrived without the checksum {self.checksum[:12]}... that the hub declares")
        os.replace(self.partial, self.here)

    def _continue(self, start: int, on_progress: Callable[[int], None]) -> None:
        """Append from the byte `start` on, until the end or until the connection is cut."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        address = hf_hub_url(self.source.repository, self.there, revision=self.source.revision)
        with get_session().stream("GET", address, headers=headers, timeout=_SILENCE) as response:
            hf_raise_for_status(response)
            with self.partial.open("ab" if response.status_code == 206 else "wb") as file:
                for block in response.iter_bytes():
                    file.write(block)
                    on_progress(file.tell())
                os.fsync(file.fileno())  # else a power cut could leave the name and not the bytes
                if file.tell() < self.size:
                    raise EOFError("the connection was cut")

    def _checks(self, path: Path) -> bool:
        if path.stat().st_size != self.size:
            return False
        large = len(self.checksum) == 64
        digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == self.checksum


def listed(source: Source, folder: Path) -> list[HubFile]:
    """The source's files that belong into the folder; one request. Raises WrongRepository if one that is named is not
    there, and the client's errors."""
    from huggingface_hub import HfApi

    # The client's other ways to list try again for half a minute when there is no connection, two lines for each try.
    found = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True, timeout=_SILENCE)
    files = []
    for entry in found.siblings or ():
        if any(fnmatchcase(entry.rfilename, pattern) for pattern in source.files):
            here = folder / _moved(entry.rfilename, source.moves)
            if ".." in here.parts or not here.is_relative_to(folder):
                raise WrongRepository(f"it has a file named {entry.rfilename!r}")
            checksum = (entry.lfs.sha256 if entry.lfs else entry.blob_id) or ""
            files.append(HubFile(source, entry.rfilename, here, entry.size or 0, checksum))
    for wanted in source.files:
        if "*" not in wanted and wanted not in [file.there for file in files]:
            raise WrongRepository(f"it has no {wanted}")
    return files


def _moved(path: str, moves: tuple[tuple[str, str], ...]) -> str:
    for there, here in moves:
        if path == there or path.startswith(f"{there}/"):
            return here + path.removeprefix(there)
    return path


def of_the_disk(problem: Exception) -> bool:
    """Whether a download failed on this machine's disk. The client's own errors are OSErrors too."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    return isinstance(problem, OSError) and not isinstance(problem, (HfHubHTTPError, OfflineModeIsEnabled))


def status_of(problem: Exception) -> int:
    """The HTTP status of the hub's refusal; 0 for any other problem."""
    from huggingface_hub.errors import HfHubHTTPError

    return problem.response.status_code if isinstance(problem, HfHubHTTPError) else 0


def _may_pass(problem: Exception) -> bool:
    """Whether to try again: after a lost connection or a busy hub, not after a refusal or on a full disk."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if status := status_of(problem):
        return status in (408, 429) or status >= 500
    return not of_the_disk(problem) and not isinstance(problem, OfflineModeIsEnabled)
