"""Ranked neighbours, streamed."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from .. import present, problems, schemas
from ..lanes import Asker
from .common import engine_of

router = APIRouter()

_NDJSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/AnswerOut"}}}}
}


@router.post("/api/search", response_class=StreamingResponse, responses=_NDJSON)
async def search(asked: schemas.SearchIn, request: Request) -> StreamingResponse:
    """Ranked neighbours, as JSON Lines: the order of the first stage as soon as it is known, then that of the full
    score. A problem after the first line is a line with a `problem`."""
    engine = engine_of(request)
    question = await engine.query(asked)

    def search_all(asker: Asker, put: Callable[[schemas.AnswerOut], None]) -> None:
        started = time.monotonic()
        for answer in asker.searcher.answers(question):  # the order of the first stage, then that of the full score
            put(present.answer_out(answer, question.all_examples, time.monotonic() - started, engine.pictures))

    answers = engine.lanes.asked(request, search_all)
    first = await anext(answers, None)  # a problem before it becomes the status of the response
    if first is None:
        raise ClientDisconnect

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
    found = problems.of(error)
    detail = schemas.Problem.model_validate(problems.body(found.status, found.detail))
    return '{"problem":' + detail.model_dump_json() + "}\n"
