"""Errors as the API reports them: RFC 9457 problem details with one plain sentence."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from diffsim.errors import Error
from diffsim.indexer.index_folder import IndexBusy

from ..picture_cache import NoPicture
from ..text import printable

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Wrong media type",
    422: "Not understood",
    503: "Busy",
}


class Problem(Error):
    """A response other than the one that was requested. detail: one sentence. retry_s: when to ask again."""

    def __init__(self, status: int, detail: str, retry_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {} if retry_s is None else {"Retry-After": str(retry_s)}


def body(status: int, detail: str) -> dict[str, str | int]:
    text = detail.encode("utf-8", "backslashreplace").decode()
    return {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": text}


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body(status, detail), status, dict(headers or {}), MEDIA_TYPE)


def of(error: Exception) -> Problem:
    """The problem for an error: our own are sentences already; any other only says that there was one."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, NoPicture):
        return Problem(404, str(error))
    if isinstance(error, Error):
        return Problem(409 if isinstance(error, IndexBusy) else 422, str(error))
    return Problem(500, "Something went wrong on the server; its terminal says what.")


def install(app: FastAPI, missing_page: str) -> None:
    """Every error that leaves the app is a problem. missing_page: what a person sees at an address without anything."""

    @app.exception_handler(Error)
    async def known(request: Request, error: Error) -> JSONResponse:
        found = of(error)
        return response(found.status, found.detail, found.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # to nobody: it left before its request was whole

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(missing_page, 404)
        details = {404: "There is nothing at this address.", 405: f"{request.method} is not possible at this address."}
        return response(
            error.status_code, details.get(error.status_code, error.detail.rstrip(".") + "."), error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return response(422, _sentence(error))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # The traceback goes to the log of the server, never to the page.
        found = of(error)
        return response(found.status, found.detail)


def _sentence(error: RequestValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(printable(str(part)) for part in first["loc"] if part not in ("body", "query", "path"))
    what = str(first["msg"]).rstrip(".")
    return f"{where}: {what}." if where else f"{what}."
