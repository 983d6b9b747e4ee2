"""The app: one index behind a guard, its API and its page."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, select_autoescape

from diffsim.indexer.index_folder import IndexFolder

from ..text import printable
from . import problems, routes, schemas
from .engine import Engine
from .guard import ICON, Guard

_HERE = Path(__file__).parent
_YEAR_S = 365 * 86_400
_PAGES = ("/", "/compare", "/why", "/index")


def create_app(
    index: Path, *, token: str | None = None, device: str = "auto", fetch: bool = False, lasting: bool = False
) -> FastAPI:
    """The page over an index. token: the secret that gives access, as `?token=`, as a cookie or as a bearer token; by
    default a random one, `app.state.token`. fetch: whether pictures at addresses are fetched. lasting: the browser
    keeps the token for a year, not only until it is closed. Raises NoIndex, ..."""
    token = token or secrets.token_urlsafe(24)
    engine = Engine(IndexFolder.open(index), device)
    templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=select_autoescape())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    refusals: dict[int | str, dict[str, Any]] = {
        "4XX": {
            "model": schemas.Problem,
            "content": {problems.MEDIA_TYPE: {}},
            "description": "Why, in a sentence.",
        },
        422: {
            "model": schemas.Problem,
            "content": {problems.MEDIA_TYPE: {}},
            "description": "Not understood.",
        },
        503: {
            "model": schemas.Problem,
            "content": {problems.MEDIA_TYPE: {}},
            "description": "Busy; Retry-After says in how many seconds to ask again.",
        },
    }
    app = FastAPI(
        title="diffsim browse",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,  # its scripts would come from another server
        redoc_url=None,
        lifespan=lifespan,
        responses=refusals,
    )
    app.state.engine = engine
    app.state.token = token
    app.state.fetch = fetch
    problems.install(app, templates.get_template("missing.html").render())
    app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    page = templates.get_template("page.html")

    async def show(request: Request) -> HTMLResponse:
        return HTMLResponse(page.render(index=printable(engine.index.path.absolute().name)))

    for path in _PAGES:
        app.add_api_route(path, show, include_in_schema=False, response_class=HTMLResponse)

    async def show_icon() -> FileResponse:
        return FileResponse(_HERE / "static" / "icon.svg")

    app.add_api_route(ICON, show_icon, include_in_schema=False)
    locked_page = templates.get_template("locked.html").render()
    app.add_middleware(Guard, token=token, locked_page=locked_page, cookie_s=_YEAR_S if lasting else None)
    return app
