"""Downloads: a file, several as a ZIP, a search as a sheet."""

import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from PIL import Image

from ...decoders import THUMBNAIL_SIDE
from ...figures.sheet import SheetExample
from ...figures.text_tile import text_tile
from ...query import Answer
from ...query import Query as SearchQuery
from .. import export, schemas
from ..engine import Engine
from ..lanes import Asker
from .common import engine_of

router = APIRouter()


_FILE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}


@router.get("/originals/{content_id}", response_class=StreamingResponse, responses=_FILE)
def original_file(content_id: schemas.Id, request: Request) -> StreamingResponse:
    """The picture's file as it is, to be saved: nothing but the guarded decoders shows what is inside."""
    name, pieces = export.original(engine_of(request), content_id)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.post("/api/zip", response_class=StreamingResponse, responses={200: {"content": {"application/zip": {}}}})
def zip_file(chosen: schemas.SelectionIn, request: Request) -> StreamingResponse:
    """The files of these pictures."""
    engine = engine_of(request)
    for content_id in chosen.pictures:
        engine.pictures.known(content_id)
    headers = {"Content-Disposition": 'attachment; filename="diffsim.zip"'}
    return StreamingResponse(export.zip_of(engine, chosen.pictures), media_type="application/zip", headers=headers)


@router.post("/api/sheet", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def sheet(asked: schemas.SheetIn, request: Request) -> Response:
    """The query and its hits as a picture, PNG, like Figure 4 of the paper."""
    engine = engine_of(request)
    queries: list[SearchQuery] = []
    for spaces in [[name] for name in asked.compare] or [asked.search.spaces]:
        queries.append(await engine.query(asked.search.model_copy(update={"spaces": spaces})))

    def search(asker: Asker) -> list[Answer]:
        return [asker.searcher.answer(query) for query in queries]

    def draw(answers: Sequence[Answer]) -> bytes:
        search = asked.search
        examples = [
            SheetExample(_picture(engine, one), one.weight, one.region)
            for one in (
                schemas.ExampleIn(picture=search.picture, text=search.text, region=search.region),
                *search.examples,
            )
        ]
        return export.sheet(examples, answers, asked.only, asked.top, engine.pictures)

    drawn = await engine.lanes.decoding.run(draw, await engine.lanes.ask(search))
    return Response(
        drawn, media_type="image/png", headers={"Content-Disposition": 'attachment; filename="diffsim.png"'}
    )


def _picture(engine: Engine, example: schemas.ExampleIn) -> Image.Image:
    """A picture of the index, one that was uploaded, or a text, for a sheet."""
    name = example.picture
    if name is None:
        return text_tile(example.text or "", THUMBNAIL_SIDE)
    if isinstance(name, int):
        return engine.pictures.drawn(name)
    return Image.open(io.BytesIO(engine.uploads.get(name).preview))
