"""The index itself, and runs of the indexer."""

from fastapi import APIRouter, Request

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
    """Start indexing one of the index's folders, or all of them."""
    engine = engine_of(request)
    roots = {root.id: root.path for root in engine.catalog.roots()}
    if wanted.root is not None and wanted.root not in roots:
        raise Problem(404, f"The index has no folder {wanted.root}; choose one that the page lists.")
    if not roots:
        raise Problem(409, "The index has no folder yet; add one with `diffsim index FOLDER`.")
    return present.run_out(engine.runs.start(wanted.root, roots[wanted.root] if wanted.root is not None else None))


@router.delete("/api/runs/current")
def stop(request: Request) -> schemas.RunOut:
    """Stop the run that this page started, as Ctrl-C does: what is done is kept."""
    return present.run_out(engine_of(request).runs.stop())
