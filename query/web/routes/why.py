"""Why two pictures are similar: the agreement of their parts, and where attention falls."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from .. import present, schemas
from ..engine import Engine, Subject
from .common import engine_of

router = APIRouter()

_Name = Annotated[str | None, Query(min_length=1, max_length=200)]
_Which = Annotated[str, Query(pattern="^([1-9][0-9]{0,17}|u[0-9a-f]{32})$", description="A picture's or upload's id.")]
_Part = Annotated[int, Query(ge=0, le=1000)]


async def _two(engine: Engine, a: str, b: str, space: str | None) -> list[Subject]:
    spaces = [space] if space else []
    return [await engine.subject(int(name) if name.isdecimal() else name, spaces) for name in (a, b)]


@router.get("/api/why")
async def why(request: Request, a: _Which, b: _Which, space: _Name = None) -> schemas.WhyOut:
    """Which parts of two pictures are found in each other."""
    engine = engine_of(request)
    first, second = await _two(engine, a, b, space)

    def compare() -> schemas.WhyOut:
        return present.why_out(engine.compare(first, second, space))

    return await engine.lanes.searching.run(compare)


@router.get("/api/why/attention")
async def attention(
    request: Request, a: _Which, b: _Which, row: _Part, column: _Part, space: _Name = None
) -> schemas.AttentionOut:
    """Where in b the attention of one part of a falls."""
    engine = engine_of(request)
    first, second = await _two(engine, a, b, space)

    def compare() -> schemas.AttentionOut:
        return present.attention_out(engine.compare(first, second, space), row, column)

    return await engine.lanes.searching.run(compare)
