"""The ASGI application of the pages: areas, the guard before them, answers to failures; and, beside the guard, what is
for programs, where no browser is expected: below /v1/, where a token stands in place of a session, and /metrics."""

import structlog
from fastapi import Depends, FastAPI, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from federation_audit.pages.failures import add_handlers, explain
from federation_audit.pages.guard import Guard, Turned
from federation_audit.pages.metrics import PATH as METRICS_PATH
from federation_audit.pages.metrics import AuditCollector, make_metrics_app
from federation_audit.pages.rendering import give_static
from federation_audit.pages.site import Site
from federation_audit.pages.visits import needs
from federation_audit.rescans.metrics import RescanCollector

log = structlog.get_logger("federation_audit.pages")


def make_app(site: Site, for_programs: ASGIApp | None = None) -> ASGIApp:
    """The application that serves the areas of `site`, and below /v1/ `for_programs`."""
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

    guarded = Guard(_Edge(app), site.settings, explain_here)
    programs = guarded if for_programs is None else _Edge(for_programs)
    audit = AuditCollector(site.database, site.assessor, verified_lists=site.surroundings.audit.verified_lists)
    rescans = [RescanCollector(site.rescans)] if site.rescans is not None else []
    return _Fork(guarded, programs, _Edge(make_metrics_app(audit, *rescans)))


async def _alive(request: Request) -> Response:
    return PlainTextResponse("alive")


class _Fork:
    """Programs to the one side, browsers to the other."""

    def __init__(self, browsers: ASGIApp, programs: ASGIApp, metrics: ASGIApp) -> None:
        self._browsers = browsers
        self._programs = programs
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        app = self._metrics if path == METRICS_PATH else self._browsers
        if path.startswith("/v1/"):
            app = self._programs
        await app(scope, receive, send)


class _Edge:
    """The edge of the process: what a page did not foresee is answered by the app and logged here, once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:  # whatever it is, one request fails and the others go on; the app has answered it with 500
            # The route's pattern, not the address: that may hold whatever was typed.
            log.exception("a page failed", page=getattr(scope.get("route"), "path", "none"))
