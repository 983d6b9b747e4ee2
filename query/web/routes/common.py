"""What the routes share."""

from typing import Any

from fastapi import Request

from ...decoders import MEDIA_TYPE
from ..engine import Engine

WEBP: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {}}}, 304: {"description": "Not modified"}}


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine
