"""Why two pictures are alike: the agreement of their parts, and where attention falls."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from diffsim.retrieval.region import seen_part

from ...query import ExtractedPicture
from .. import schemas
from ..engine import Engine
from .common import engine_of

router = APIRouter()

_Name = Annotated[str | None, Query(min_length=1, max_length=200)]
_Which = Annotated[str, Query(pattern="^([1-9][0-9]{0,17}|u[0-9a-f]{32})$", description="A picture's or upload's id.")]


async def _two(engine: Engine, a: str, b: str, space: str | None) -> list[int | ExtractedPicture]:
    spaces = [space] if space else []
    return [await engine.picture(int(name) if name.isdecimal() else name, spaces) for name in (a, b)]


def _size(engine: Engine, name: str) -> tuple[int, int]:
    found = engine.pictures.known(int(name)) if name.isdecimal() else engine.uploads.get(name)
    return found.width, found.height


@router.get("/api/why")
async def why(request: Request, a: _Which, b: _Which, space: _Name = None) -> schemas.WhyOut:
    """Which parts of two pictures are found in each other."""
    engine = engine_of(request)
    first, second = await _two(engine, a, b, space)

    def ask() -> schemas.WhyOut:
        chosen, pair = engine.ask_pair(first, second, space)
        found = pair.agreement()
        shape = engine.lanes.asker.kit(chosen).space
        values = [*found.a_from_b.flatten().tolist(), *found.b_from_a.flatten().tolist()]
        return schemas.WhyOut(
            score=round(found.score, 6),
            a_from_b=_rounded(found.a_from_b.tolist()),
            b_from_a=_rounded(found.b_from_a.tolist()),
            low=min(values),
            high=max(values),
            regions=[
                schemas.RegionOut(a=(region.row, region.column), b=region.peak, agreement=round(region.agreement, 4))
                for region in found.regions
            ],
            seen_a=seen_part(*_size(engine, a), shape.size, shape.fit),
            seen_b=seen_part(*_size(engine, b), shape.size, shape.fit),
            attends=pair.places,
            space=schemas.SpaceOut(fingerprint=chosen.fingerprint, name=chosen.name),
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
) -> schemas.AttentionOut:
    """Where in b the attention of one part of a falls."""
    engine = engine_of(request)
    first, second = await _two(engine, a, b, space)

    def ask() -> schemas.AttentionOut:
        _, pair = engine.ask_pair(first, second, space)
        return schemas.AttentionOut(rows=_rounded(pair.attention((row, column)).tolist(), 6))

    return await engine.lanes.asking.run(ask)


def _rounded(rows: Sequence[Sequence[float]], digits: int = 4) -> list[list[float]]:
    return [[round(value, digits) for value in row] for row in rows]
