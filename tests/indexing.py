"""What the tests of whole runs share: a small index, the real command, children that may be killed."""

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import DATA, TINY, random_picture

from benchmarks.kills import in_child
from diffsim.indexer.build import IndexOptions, IndexReport, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Searcher
from diffsim.retrieval.drawings.gallery import draw as drawing

NOBODY = 65534
FAST = IndexOptions(workers=1, batch_size=4, device="cpu")


def build(
    index: Path, folder: Path, *, size: int = 64, tier: str = "fp32", options: IndexOptions = FAST, **more: object
) -> IndexReport:
    """Index a folder with the tiny network."""
    requests = requested_spaces(str(TINY), ["look"], size=size, tier=tier)
    return index_folders(IndexFolder.create(index), [folder], requests, options, **more)  # type: ignore[arg-type]


def draw(folder: Path, numbers: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        random_picture(number).save(folder / f"{number:02d}.png")


def lay_out_styles(folder: Path) -> Path:
    """Three subjects in three styles as Sref is laid out, and a CSV of their styles."""
    rows = ["file,group"]
    for style in ("neon", "pencil", "glass"):
        (folder / "Sref" / style).mkdir(parents=True)
        for subject in ("cat", "house", "tree"):
            drawing(subject, style, size=64).save(folder / "Sref" / style / f"{subject}.png")
            rows.append(f"Sref/{style}/{subject}.png,{style}")
    (folder / "styles.csv").write_text("\n".join(rows) + "\n")
    return folder


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: bytes
    err: str


def diffsim(*arguments: str | bytes | Path, uid: int | None = None, before: Callable[[], object] = lambda: None) -> Ran:
    """The real command with real files for stdout and stderr, in a forked child (which saves importing torch again).

    uid: who runs it, where root runs the tests. before: called in the child first.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

        def work() -> None:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)
            before()
            if uid is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            from diffsim.query.cli import main

            sys.argv = ["diffsim", *(os.fsdecode(argument) for argument in arguments)]
            try:
                main()
            except SystemExit as ending:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ending.code if isinstance(ending.code, int) else 1 if ending.code else 0)

        child = in_child(work)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return Ran(os.waitstatus_to_exitcode(status), out.read(), err.read().decode("utf-8", "replace"))


def problem(ran: Ran) -> str:
    """The one sentence of a command that ended with a named problem."""
    assert ran.code == 1, ran
    assert ran.out == b"" and "Traceback" not in ran.err, ran
    lines = [line for line in ran.err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("Error: "), ran
    assert lines[0].endswith("."), lines
    return lines[0].removeprefix("Error: ")


def block_sizes(searcher: Searcher) -> list[int]:
    """How many pictures are in the blocks of the first space: the snapshot's first, then what came since."""
    space = searcher.choose(None)
    searcher.collection.refresh([space])
    return [len(block) for part in searcher.collection.parts(space.fingerprint) for block in part.blocks]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and modification time."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def unpack_nasty(folder: Path) -> Path:
    """The folder of hostile and odd files."""
    with tarfile.open(DATA / "nasty.tar", encoding="utf-8", errors="surrogateescape") as archive:
        archive.extractall(folder, filter="tar")
    return folder / "nasty"


def copy_index(index: Path, to: Path) -> Path:
    shutil.copytree(index, to)
    return to
