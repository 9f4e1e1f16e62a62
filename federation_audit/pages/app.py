"""The ASGI application of the pages: areas, the guard before them, answers to failures."""

import structlog
from fastapi import Depends, FastAPI, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from federation_audit.pages.failures import add_handlers, explain
from federation_audit.pages.guard import Guard, Turned
from federation_audit.pages.rendering import give_static
from federation_audit.pages.site import Site
from federation_audit.pages.visits import needs

log = structlog.get_logger("federation_audit.pages")


def make_app(site: Site) -> ASGIApp:
    """The application that serves the areas of `site`."""
    # No description and no documentation pages: these are pages for people, and FastAPI's fetch scripts from elsewhere.
    app = FastAPI(title="fediwarden", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.site = site
    add_handlers(app)
    for area in site.areas:
        app.include_router(area.router, dependencies=[Depends(needs(area))])
    app.add_route("/static/{digest}/{name}", give_static, methods=["GET"])
    app.add_route("/healthz", _alive, methods=["GET"])

    def explain_here(request: Request, turned: Turned) -> Response:
        request.scope["app"] = app
        return explain(request, turned)

    return Guard(_Edge(app), site.settings, explain_here)


async def _alive(request: Request) -> Response:
    return PlainTextResponse("alive")


class _Edge:
    """The edge of the process: what a page did not foresee is answered by the app and logged here, once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            # The route's pattern, not the address: that may hold whatever was typed.
            log.exception("a page failed", page=getattr(scope.get("route"), "path", "none"))
