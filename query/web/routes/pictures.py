"""Pictures: thumbnails and previews, lists, details, uploads."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from diffsim.db.filters import NO_FILTERS

from ...decoders import FULL_SIDE, MEDIA_TYPE, PREVIEW_SIDE, THUMBNAIL_SIDE
from .. import present, schemas
from ..addresses import NOT_ALLOWED, fetch
from ..engine import Engine
from ..guard import MAX_UPLOAD
from ..picture_list import ListOrder
from ..problems import Problem
from .common import WEBP, engine_of

router = APIRouter()

_FOREVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
_Wanted = Annotated[
    str | None, Query(max_length=100, description="The content's version; the answer may then be cached forever.")
]


@router.get("/thumbnails/{content_id}", response_class=Response, responses=WEBP)
async def thumbnail(content_id: schemas.Id, request: Request, v: _Wanted = None) -> Response:
    """A small upright picture."""
    engine = engine_of(request)

    def kept() -> bytes | None:
        return engine.pictures.kept_thumbnail(content_id)

    def make() -> bytes:
        return engine.pictures.thumbnail(content_id)

    known = await run_in_threadpool(engine.pictures.known, content_id)
    headers = _caching(request, present.version(known), THUMBNAIL_SIDE, v)
    if headers is None:
        return Response(status_code=304)
    data = await run_in_threadpool(kept) or await engine.lanes.decoding.run_if_wanted(request, make)
    return Response(data, media_type=MEDIA_TYPE, headers=headers)


@router.get("/previews/{content_id}", response_class=Response, responses=WEBP)
async def preview(content_id: schemas.Id, request: Request, v: _Wanted = None) -> Response:
    """The picture as large as a screen, upright, from any format."""
    return await _decoded(request, content_id, v, PREVIEW_SIDE, engine_of(request).pictures.preview)


@router.get("/full/{content_id}", response_class=Response, responses=WEBP)
async def full(content_id: schemas.Id, request: Request, v: _Wanted = None) -> Response:
    """The picture with all its pixels, or 4,096 of its longer side, upright, from any format."""
    return await _decoded(request, content_id, v, FULL_SIDE, engine_of(request).pictures.full)


async def _decoded(
    request: Request, content_id: int, wanted: str | None, side: int, make: Callable[[int], bytes]
) -> Response:
    engine = engine_of(request)
    known = await run_in_threadpool(engine.pictures.known, content_id)
    headers = _caching(request, present.version(known), side, wanted)
    if headers is None:
        return Response(status_code=304)
    data = await engine.lanes.decoding.run_if_wanted(request, make, content_id)
    return Response(data, media_type=MEDIA_TYPE, headers=headers)


def _caching(request: Request, version: str, side: int, wanted: str | None) -> dict[str, str] | None:
    """Headers for a picture; None if the browser has it already."""
    etag = f'"{version}-{side}"'
    if etag in request.headers.get("if-none-match", ""):
        return None
    return {"ETag": etag, "Cache-Control": _FOREVER if wanted == version else _ASK_AGAIN}


@router.get("/api/pictures")
def pictures(
    request: Request,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    order: ListOrder = "path",
) -> schemas.PageOut:
    """A piece of the list of all pictures, by folder and name or in another order."""
    engine = engine_of(request)
    return present.page_out(engine.page(offset, limit, NO_FILTERS, order), engine.pictures)


@router.post("/api/pictures")
async def filtered_pictures(
    request: Request,
    filters: schemas.FiltersIn,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    order: ListOrder = "path",
) -> schemas.PageOut:
    """The same of the pictures that pass filters."""
    engine = engine_of(request)
    coloured = await engine.lanes.extracting.run(engine.coloured, filters.colours) if filters.colours else None

    def page() -> schemas.PageOut:
        found = engine.page(offset, limit, engine.filters(filters), order, coloured)
        return present.page_out(found, engine.pictures)

    return await run_in_threadpool(page)


@router.get("/api/pictures/{content_id}")
def details(content_id: schemas.Id, request: Request) -> schemas.DetailsOut:
    """Everything about one picture."""
    engine = engine_of(request)
    said = engine.catalog.metadata([content_id], set()).get(content_id)
    return present.details_out(engine.pictures.known(content_id), engine.place(content_id), said)


@router.get("/api/folders")
def folders(request: Request) -> list[schemas.FolderOut]:
    """The folders that a filter may name."""
    return present.folders_out(engine_of(request).folders())


_BYTES = {"requestBody": {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}}


@router.post("/api/uploads", status_code=201, openapi_extra=_BYTES)
async def upload(request: Request) -> schemas.UploadOut:
    """Give a picture to search with: the body is the file itself. It is kept in memory for a while, never on disk."""
    engine = engine_of(request)
    data = await request.body()
    if not data:
        raise Problem(422, f"The request has no body; send the picture's bytes, at most {MAX_UPLOAD >> 20} MB.")
    return await _uploaded(engine, data)


@router.post("/api/uploads/address", status_code=201)
async def upload_from(given: schemas.AddressIn, request: Request) -> schemas.UploadOut:
    """Give a picture of the web to search with, where the page was started with `--fetch`: the server asks public hosts
    only, for at most 64 MB and 20 s."""
    if not request.app.state.fetch:
        raise NOT_ALLOWED
    return await _uploaded(engine_of(request), await run_in_threadpool(fetch, given.address))


async def _uploaded(engine: Engine, data: bytes) -> schemas.UploadOut:
    name, kept = await engine.lanes.decoding.run(engine.uploads.add, data)
    known = await run_in_threadpool(engine.catalog.content_by_sha256, kept.sha256)
    indexed = engine.catalog.pictures([known]).get(known) if known is not None else None
    return schemas.UploadOut(picture=indexed.content_id if indexed else name, width=kept.width, height=kept.height)


@router.get("/uploads/{name}", response_class=Response, responses=WEBP)
def uploaded(name: str, request: Request) -> Response:
    """The uploaded picture, upright."""
    return Response(engine_of(request).uploads.get(name).preview, media_type=MEDIA_TYPE)
