"""Answers to requests that fail: what happened, and what to do."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from federation_audit.accounts.errors import AccountError, TooManyAttempts, UserUnknown
from federation_audit.pages.guard import Turned
from federation_audit.pages.site import site_of
from federation_audit.pages.visits import (
    OWN_PASSWORD,
    Forbidden,
    MustChange,
    NotLoggedIn,
    Visit,
    login_path,
    wanted_format,
)

_TITLES: Mapping[int, str] = {
    400: "The request cannot be read",
    401: "Log in first",
    403: "Not allowed",
    404: "This is not here",
    405: "Not possible here",
    408: "Too slow",
    409: "Not possible now",
    413: "Too large",
    415: "Not a form",
    421: "Wrong address",
    422: "Something in the form is wrong",
    429: "Too many attempts",
    500: "Something broke here",
    503: "Not available now",
}
_REMEDIES: Mapping[int, str] = {
    404: "There is no such page. The address may be old or mistyped: start over, or go back.",
    405: "Open the page and use what is on it.",
    500: "Nothing you did wrong. Try again in a minute; the log of the pages says what happened.",
}


def fail(request: Request, status: int, said: str = "", *, headers: Mapping[str, str] | None = None) -> Response:
    """The answer, as a page or as JSON. `said` is a sentence for the person who asked."""
    title = _TITLES.get(status, "This did not work")
    said = said or _REMEDIES.get(status, "Go back and try again.")
    if wanted_format(request) != "html":
        return JSONResponse({"error": title, "remedy": said}, status, dict(headers or {}))
    here: Visit = getattr(request.state, "visit", None) or Visit(request, site_of(request), None)
    answer = here.page("failure.html", title, status=status, remedy=said)
    answer.headers.update(headers or {})
    return answer


def explain(request: Request, turned: Turned) -> Response:
    """The answer to a request that the guard turned away."""
    return fail(request, turned.status, str(turned))


def add_handlers(app: FastAPI) -> None:
    """Let every failure of a page end as one of these answers."""

    async def by_status(request: Request, error: Any) -> Response:
        allowed = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
        return fail(request, error.status_code, headers=allowed)

    async def not_logged_in(request: Request, error: Any) -> Response:
        if wanted_format(request) != "html":
            return fail(request, 401, "Log in at /login and send the session's cookie along.")
        answer = RedirectResponse(login_path(request), 303)
        site = site_of(request)
        if site.jar.session in request.state.arrived.cookies:
            answer.headers.append("set-cookie", site.jar.dropped(site.jar.session))
        return answer

    async def must_change(request: Request, error: Any) -> Response:
        return RedirectResponse(OWN_PASSWORD, 303)

    async def forbidden(request: Request, error: Any) -> Response:
        return fail(request, 403, f"{error} Ask an admin if you need it.")

    async def invalid(request: Request, error: Any) -> Response:
        fields = sorted({str(each["loc"][-1]) for each in error.errors()})
        return fail(request, 422, f"Missing or not valid: {', '.join(fields)}. Go back and fill it in.")

    async def account(request: Request, error: Any) -> Response:
        if isinstance(error, TooManyAttempts):
            return fail(request, 429, str(error), headers={"retry-after": str(error.retry_s)})
        return fail(request, 404 if isinstance(error, UserUnknown) else 422, str(error))

    async def broken(request: Request, error: Any) -> Response:
        return fail(request, 500)  # `app` logs it

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(HTTPException, by_status)
    app.add_exception_handler(NotLoggedIn, not_logged_in)
    app.add_exception_handler(MustChange, must_change)
    app.add_exception_handler(Forbidden, forbidden)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(AccountError, account)
