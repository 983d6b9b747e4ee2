"""Why two pictures are similar: the agreement of their parts, and where attention falls."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from diffsim.retrieval.region import checked_box

from .. import present, schemas
from ..engine import Engine, Subject
from ..lanes import Asker
from .common import engine_of

router = APIRouter()

_Name = Annotated[str, Query(min_length=1, max_length=200)]
_Names = Annotated[
    tuple[_Name, ...], Query(max_length=8, description="Feature spaces; the first is shown part by part.")
]
_Region = Annotated[str | None, Query(max_length=200, description="The box of a: X,Y,WIDTH,HEIGHT in fractions.")]
_Which = Annotated[str, Query(pattern="^([1-9][0-9]{0,17}|u[0-9a-f]{32})$", description="A picture's or upload's id.")]
_Part = Annotated[int, Query(ge=0, le=1000)]


async def _two(engine: Engine, a: str, b: str, spaces: Sequence[str]) -> list[Subject]:
    return [await engine.subject(int(name) if name.isdecimal() else name, spaces) for name in (a, b)]


@router.get("/api/why")
async def why(request: Request, a: _Which, b: _Which, space: _Names = (), region: _Region = None) -> schemas.WhyOut:
    """Which parts of two pictures are found in each other."""
    engine = engine_of(request)
    box = None if region is None else checked_box(region.split(","))  # type: ignore[arg-type]  # it takes texts too
    first, second = await _two(engine, a, b, space)

    def compare(asker: Asker) -> schemas.WhyOut:
        return present.why_out(engine.compare(asker, first, second, space, box))

    return await engine.lanes.ask(compare)


@router.get("/api/why/attention")
async def attention(
    request: Request, a: _Which, b: _Which, row: _Part, column: _Part, space: _Names = ()
) -> schemas.AttentionOut:
    """Where in b the attention of one part of a falls."""
    engine = engine_of(request)
    first, second = await _two(engine, a, b, space)

    def compare(asker: Asker) -> schemas.AttentionOut:
        return present.attention_out(engine.compare(asker, first, second, space), row, column)

    return await engine.lanes.ask(compare)
