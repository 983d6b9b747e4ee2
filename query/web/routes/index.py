"""The index itself, and runs of the indexer."""

import os
from pathlib import Path

from fastapi import APIRouter, Request

from ...text import printable
from .. import present, schemas
from ..problems import Problem
from .common import engine_of

router = APIRouter()


@router.get("/api/index")
def index(request: Request) -> schemas.IndexOut:
    """What is in the index, what failed and why, what is offline, and who is writing to it."""
    return present.index_out(engine_of(request).state())


@router.post("/api/runs", status_code=201)
def start(wanted: schemas.RunIn, request: Request) -> schemas.RunOut:
    """Start indexing one of the index's folders, all of them, or a further one; perhaps in further feature spaces."""
    engine = engine_of(request)
    roots = {root.id: root.path for root in engine.catalog.roots()}
    if wanted.root is not None and wanted.root not in roots:
        raise Problem(404, f"The index has no folder {wanted.root}; choose one that the page lists.")
    folder = _new_folder(wanted.folder) if wanted.folder is not None else roots.get(wanted.root or 0)
    if not roots and folder is None:
        raise Problem(409, "The index has no folder yet; add one with its path.")
    return present.run_out(engine.runs.start(wanted.root, folder, wanted.by))


@router.post("/api/runs/prune", status_code=201)
def prune(request: Request) -> schemas.RunOut:
    """Start to forget missing files, as `diffsim prune` does; no picture file is touched."""
    return present.run_out(engine_of(request).runs.start(task="prune"))


def _new_folder(path: str) -> bytes:
    """Raises Problem."""
    if "\0" in path or not Path(path).is_absolute() or not Path(path).is_dir():
        raise Problem(
            422, f"There is no folder {printable(path)} on this machine; give its whole path, as /home/me/Pictures."
        )
    return os.fsencode(path)


@router.delete("/api/runs/current")
def stop(request: Request) -> schemas.RunOut:
    """Stop the run that this page started, as Ctrl-C does: what is done is kept."""
    return present.run_out(engine_of(request).runs.stop())
