"""The JSON API: pictures, searches, why, uploads, exports, the index and its runs."""

import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from PIL import Image

from query.question import Answer, ExtractedPicture
from query.question import Query as Question
from retrieval.region import seen_part

from . import export, models, problems
from .engine import Engine
from .guard import MAX_UPLOAD
from .pictures import MEDIA_TYPE, THUMBNAIL_SIDE
from .problems import Problem
from .state import index_out

router = APIRouter()

_FOREVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


_Wanted = Annotated[
    str | None, Query(max_length=100, description="The content's version; then it may be kept forever.")
]
_WEBP: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {}}}, 304: {"description": "Not modified"}}


@router.get("/thumbnails/{content_id}", response_class=Response, responses=_WEBP)
async def thumbnail(content_id: models.Id, request: Request, v: _Wanted = None) -> Response:
    """A small upright picture."""
    engine = _engine(request)

    def kept() -> bytes | None:
        return engine.pictures.kept_thumbnail(content_id)

    def make() -> bytes:
        return engine.pictures.thumbnail(content_id)

    known = await run_in_threadpool(engine.pictures.known, content_id)
    headers = _caching(request, f"{known.sha256.hex()[:16]}-{THUMBNAIL_SIDE}", v == known.sha256.hex()[:16])
    if headers is None:
        return Response(status_code=304)
    data = await run_in_threadpool(kept) or await engine.lanes.pictures.run_if_wanted(request, make)
    return Response(data, media_type=MEDIA_TYPE, headers=headers)


@router.get("/pictures/{content_id}", response_class=Response, responses=_WEBP)
async def picture(content_id: models.Id, request: Request, v: _Wanted = None) -> Response:
    """The picture as large as a screen, upright, whatever its format."""
    engine = _engine(request)
    known = await run_in_threadpool(engine.pictures.known, content_id)
    headers = _caching(request, f"{known.sha256.hex()[:16]}-view", v == known.sha256.hex()[:16])
    if headers is None:
        return Response(status_code=304)
    data = await engine.lanes.pictures.run_if_wanted(request, engine.pictures.view, content_id)
    return Response(data, media_type=MEDIA_TYPE, headers=headers)


def _caching(request: Request, tag: str, forever: bool) -> dict[str, str] | None:
    """Headers for a picture; None where the browser has it already."""
    etag = f'"{tag}"'
    if etag in request.headers.get("if-none-match", ""):
        return None
    return {"ETag": etag, "Cache-Control": _FOREVER if forever else _ASK_AGAIN}


@router.get("/api/pictures")
def pictures(
    request: Request,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> models.PageOut:
    """A piece of all pictures, by folder and name."""
    engine = _engine(request)
    return engine.page(offset, limit, engine.filters(models.FiltersIn()))


@router.post("/api/pictures")
def filtered_pictures(
    request: Request,
    filters: models.FiltersIn,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> models.PageOut:
    """The same of those that pass filters."""
    engine = _engine(request)
    return engine.page(offset, limit, engine.filters(filters))


@router.get("/api/pictures/{content_id}")
def details(content_id: models.Id, request: Request) -> models.DetailsOut:
    """Everything about one picture."""
    return _engine(request).details(content_id)


@router.get("/api/folders")
def folders(request: Request) -> list[models.FolderOut]:
    """The folders that a filter may name."""
    known = _engine(request).folders()
    return [models.FolderOut(folder=name, pictures=files) for name, (_, files) in known.items()]


_NDJSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/AnswerOut"}}}}
}


@router.post("/api/search", response_class=StreamingResponse, responses=_NDJSON)
async def search(asked: models.SearchIn, request: Request) -> StreamingResponse:
    """Ranked neighbours, as JSON Lines: the first stage's order as soon as it is known, then that of the full score.
    A problem after the first line is a line with a `problem`."""
    engine = _engine(request)
    question = await engine.query(asked)

    def ask(put: Callable[[models.AnswerOut], None]) -> None:
        engine.ask(question, put)

    answers = engine.lanes.asking.stream(ask)
    first = await anext(answers)  # what goes wrong before it is the status of the answer

    async def lines() -> AsyncIterator[str]:
        async with aclosing(answers):
            yield first.model_dump_json() + "\n"
            try:
                async for answer in answers:
                    yield answer.model_dump_json() + "\n"
            except Exception as error:
                yield _problem_line(error)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _problem_line(error: Exception) -> str:
    found = problems.of(error) if str(error).endswith(".") else Problem(500, "The search broke off.")
    detail = models.Problem.model_validate(problems.body(found.status, found.detail))
    return '{"problem":' + detail.model_dump_json() + "}\n"


_Name = Annotated[str | None, Query(min_length=1, max_length=200)]
_Which = Annotated[str, Query(pattern="^([1-9][0-9]{0,17}|u[0-9a-f]{32})$", description="A picture's or upload's id.")]


async def _two(engine: Engine, a: str, b: str, space: str | None) -> list[int | ExtractedPicture]:
    spaces = [space] if space else []
    return [await engine.picture(int(name) if name.isdecimal() else name, spaces) for name in (a, b)]


def _size(engine: Engine, name: str) -> tuple[int, int]:
    found = engine.pictures.known(int(name)) if name.isdecimal() else engine.uploads.get(name)
    return found.width, found.height


@router.get("/api/why")
async def why(request: Request, a: _Which, b: _Which, space: _Name = None) -> models.WhyOut:
    """Which parts of two pictures are found in each other."""
    engine = _engine(request)
    first, second = await _two(engine, a, b, space)

    def ask() -> models.WhyOut:
        chosen, pair = engine.ask_pair(first, second, space)
        found = pair.agreement()
        shape = engine.lanes.asker.kit(chosen).space
        values = [*found.a_from_b.flatten().tolist(), *found.b_from_a.flatten().tolist()]
        return models.WhyOut(
            score=round(found.score, 6),
            a_from_b=_rounded(found.a_from_b.tolist()),
            b_from_a=_rounded(found.b_from_a.tolist()),
            low=min(values),
            high=max(values),
            regions=[
                models.RegionOut(a=(region.row, region.column), b=region.peak, agreement=round(region.agreement, 4))
                for region in found.regions
            ],
            seen_a=seen_part(*_size(engine, a), shape.size, shape.fit),
            seen_b=seen_part(*_size(engine, b), shape.size, shape.fit),
            attends=pair.places,
            space=models.SpaceOut(fingerprint=chosen.fingerprint, name=chosen.name),
        )

    return await engine.lanes.asking.run(ask)


@router.get("/api/why/attention")
async def attention(
    request: Request,
    a: _Which,
    b: _Which,
    row: Annotated[int, Query(ge=0, le=1000)],
    column: Annotated[int, Query(ge=0, le=1000)],
    space: _Name = None,
) -> models.AttentionOut:
    """Where in b the attention of one part of a falls."""
    engine = _engine(request)
    first, second = await _two(engine, a, b, space)

    def ask() -> models.AttentionOut:
        _, pair = engine.ask_pair(first, second, space)
        return models.AttentionOut(rows=_rounded(pair.attention((row, column)).tolist(), 6))

    return await engine.lanes.asking.run(ask)


def _rounded(rows: Sequence[Sequence[float]], digits: int = 4) -> list[list[float]]:
    return [[round(value, digits) for value in row] for row in rows]


_BYTES = {"requestBody": {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}}


@router.post("/api/uploads", status_code=201, openapi_extra=_BYTES)
async def upload(request: Request) -> models.UploadOut:
    """Give a picture to ask with: the body is the file itself. It stays in memory for a while, never on disk."""
    engine = _engine(request)
    data = await request.body()
    if not data:
        raise Problem(422, f"Nothing came; send the picture's bytes as the body, at most {MAX_UPLOAD >> 20} MB.")
    name, kept = await engine.lanes.pictures.run(engine.uploads.add, data)
    known = await run_in_threadpool(engine.catalog.content_by_sha256, kept.sha256)
    indexed = engine.catalog.pictures([known]).get(known) if known is not None else None
    return models.UploadOut(picture=indexed.content_id if indexed else name, width=kept.width, height=kept.height)


@router.get("/uploads/{name}", response_class=Response, responses=_WEBP)
def uploaded(name: str, request: Request) -> Response:
    """The uploaded picture, upright."""
    return Response(_engine(request).uploads.get(name).view, media_type=MEDIA_TYPE)


@router.post("/api/zip", response_class=StreamingResponse, responses={200: {"content": {"application/zip": {}}}})
def zip_file(chosen: models.SelectionIn, request: Request) -> StreamingResponse:
    """The files of these pictures."""
    engine = _engine(request)
    for content_id in chosen.pictures:
        engine.pictures.known(content_id)
    headers = {"Content-Disposition": 'attachment; filename="diffsim.zip"'}
    return StreamingResponse(export.zip_of(engine, chosen.pictures), media_type="application/zip", headers=headers)


@router.post("/api/sheet", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def sheet(asked: models.SheetIn, request: Request) -> Response:
    """The Figure-4 sheet of a search as PNG."""
    engine = _engine(request)
    questions: list[Question] = []
    for spaces in [[name] for name in asked.compare] or [asked.search.spaces]:
        questions.append(await engine.query(asked.search.model_copy(update={"spaces": spaces})))

    def ask() -> list[Answer]:
        return [engine.lanes.asker.answer(question) for question in questions]

    def draw(answers: Sequence[Answer]) -> bytes:
        name = asked.search.picture
        if isinstance(name, int):
            asked_with = export.thumbnail(engine.pictures, name)
        else:
            asked_with = Image.open(io.BytesIO(engine.uploads.get(name).view))
        return export.sheet(asked_with, answers, asked.only, asked.top, engine.pictures)

    drawn = await engine.lanes.pictures.run(draw, await engine.lanes.asking.run(ask))
    return Response(
        drawn, media_type="image/png", headers={"Content-Disposition": 'attachment; filename="diffsim.png"'}
    )


@router.get("/api/index")
def index(request: Request) -> models.IndexOut:
    """What is in the index, what failed and why, what is offline, and who is writing."""
    return index_out(_engine(request))


@router.post("/api/runs", status_code=201)
def start(wanted: models.RunIn, request: Request) -> models.RunOut:
    """Start indexing a folder that the index knows, or all of them."""
    engine = _engine(request)
    roots = {root.id: root.path for root in engine.catalog.roots()}
    if wanted.root is not None and wanted.root not in roots:
        raise Problem(404, f"The index has no folder {wanted.root}; choose one that the page lists.")
    if not roots:
        raise Problem(409, "The index has no folder yet; add one with `diffsim index FOLDER`.")
    return engine.runs.start(wanted.root, roots.get(wanted.root) if wanted.root is not None else None)


@router.delete("/api/runs/current")
def stop(request: Request) -> models.RunOut:
    """Stop the run that this page started, as Ctrl-C does: what is done is kept."""
    return _engine(request).runs.stop()
