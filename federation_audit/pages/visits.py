"""A request as pages see it: who is there, what they may, and how an answer is made for them."""

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from federation_audit.accounts.actions import Actor
from federation_audit.accounts.networks import network_of
from federation_audit.accounts.roles import Role
from federation_audit.accounts.sessions import Session
from federation_audit.accounts.users import User
from federation_audit.pages.cookies import LOOKS, make_token
from federation_audit.pages.exports import export
from federation_audit.pages.guard import Arrived
from federation_audit.pages.rendering import render
from federation_audit.pages.site import Area, Site, site_of
from federation_audit.pages.table import PAGE_ROWS, Format, Links, Row, Rows, Selection, Table, select_rows
from schemas.clock import now_ms

OWN_PASSWORD = "/account"  # noqa: S105  # a path
SAID = {
    "added": "The user was added.",
    "removed": "The user was removed and logged out everywhere.",
    "role": "The role was changed. It holds at once.",
    "password": "Your password was changed. Your other sessions were ended.",
    "elsewhere": "Your other sessions were ended.",
    "look": "Saved in this browser.",
    "logout": "You are logged out.",
    "undone": "Your last answer was taken back.",
    "overrides": "The overrides are in force.",
    "decided": "The decision is written down. Nothing was blocked or sent by it.",
    "withdrawn": "The decision is over. What was blocked elsewhere may be blocked there still.",
    "kept": "Kept.",
    "cleaned": "Kept. It counts in the next assessment, within minutes.",
    "sent": "It was taken.",
    "once": "This was confirmed before, and sent once. It was not sent again.",
}
"""What a page says after a form was done; the address carries the word, never the sentence."""


class NotLoggedIn(Exception):
    """Nobody is logged in, or no more."""


class Forbidden(Exception):
    """The user's role does not include what is asked for."""

    def __init__(self, user: User, least: Role) -> None:
        super().__init__(f"This page is for the role {least.value}; you are {user.name}, {user.role.value}.")


class MustChange(Exception):
    """Somebody else knows the user's password: it is changed before anything else is done."""


class Visit:
    """One request. Made by `visit`, with whoever is logged in."""

    def __init__(self, request: Request, site: Site, session: Session | None) -> None:
        self.request = request
        self.site = site
        self.session = session
        self.now_ms = now_ms()
        self.arrived: Arrived = request.state.arrived

    @property
    def own_session(self) -> Session:
        """The session that this is part of. Raises `NotLoggedIn`."""
        if self.session is None:
            raise NotLoggedIn
        return self.session

    @property
    def user(self) -> User:
        """Who is there. Raises `NotLoggedIn`."""
        return self.own_session.user

    @property
    def network(self) -> str:
        """Where they come from."""
        return network_of(self.request.client.host if self.request.client else None)

    @property
    def actor(self) -> Actor:
        """Whoever is there, for the log of actions."""
        return Actor(self.user.name, self.network)

    @property
    def format(self) -> Format:
        """What the client wants: by ``?format=``, else by its Accept header."""
        return wanted_format(self.request)

    def page(self, template: str, title: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """The answer that `template` makes, within the layout."""
        return HTMLResponse(render(template, self._layout(title) | context), status)

    def goto(self, path: str, said: str = "") -> Response:
        """Send the browser to one of our pages, which says `SAID[said]`."""
        assert not said or said in SAID
        return RedirectResponse(f"{path}{'&' if '?' in path else '?'}said={said}" if said else path, 303)

    def select(self, table: Table[Any]) -> Selection:
        """Which rows of `table` are asked for."""
        size = PAGE_ROWS if self.format == "html" else self.site.settings.export_rows
        return select_rows(table, self.request.query_params, size=size)

    def show(self, template: str, table: Table[Row], selection: Selection, rows: Rows[Row], **context: Any) -> Response:
        """The table as it was asked for: a page by `template` (which calls the macro `table_of`), JSON or CSV."""
        links = Links(self.request.url.path, table, selection)
        if self.format != "html":
            return export(self.format, table, rows, links)
        return self.page(template, table.title, table=table, rows=rows, links=links, **context)

    def keep(self, cookie: str) -> None:
        """Send a Set-Cookie header along with the answer."""
        self.arrived.set_cookies.append(cookie)

    def _layout(self, title: str) -> dict[str, Any]:
        jar, cookies = self.site.jar, self.arrived.cookies
        look = cookies.get(jar.look, "")
        user = self.session.user if self.session else None
        path = self.request.url.path
        query = self.request.url.query
        return {
            "title": title,
            "user": user,
            "areas": self.site.open_to(user.role) if user and not user.must_change else [],
            "path": path,
            "here": f"{path}?{query}" if query and self.request.method == "GET" else path,
            "token": make_token(self.arrived.key),
            "look": look if look in LOOKS else "auto",
            "keys": cookies.get(jar.keys) != "off",
            "now_ms": self.now_ms,
            "said": SAID.get(self.request.query_params.get("said", "")),
        }


def visit(request: Request) -> Visit:
    """The visit of a request, whoever is there. Reads the database: it is called in a thread."""
    site = site_of(request)
    known: Visit | None = getattr(request.state, "visit", None)
    if known is None:
        token = request.state.arrived.cookies.get(site.jar.session)
        known = Visit(request, site, site.sessions.find(token) if token else None)
        request.state.visit = known
    return known


Here = Annotated[Visit, Depends(visit)]


def needs(area: Area) -> Callable[[Visit], None]:
    """The dependency of all routes of `area`: raises `NotLoggedIn`, `MustChange` or `Forbidden`."""

    def check(here: Here) -> None:
        if area.least is None:
            return
        if here.user.must_change and area.path != OWN_PASSWORD:
            raise MustChange
        if not here.user.role.includes(area.least):
            raise Forbidden(here.user, area.least)

    return check


def wanted_format(request: Request) -> Format:
    """JSON or CSV if the client asks for it; a browser's Accept header names HTML first."""
    match request.query_params.get("format", ""):
        case "json":
            return "json"
        case "csv":
            return "csv"
        case "html":
            return "html"
    accepted = [each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "").split(",")]
    for each in accepted:
        if each == "text/html":
            return "html"
        if each == "application/json":
            return "json"
        if each == "text/csv":
            return "csv"
    return "html"


def own_path(path: str) -> str:
    """`path` if it leads to one of our pages, else the start page: no form sends anybody elsewhere."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def login_path(request: Request) -> str:
    """The login, with the way back."""
    if request.method != "GET" or request.url.path == "/":
        return "/login"
    query = request.url.query
    return "/login?next=" + quote(request.url.path + (f"?{query}" if query else ""), safe="/")
