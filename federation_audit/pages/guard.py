"""What every request passes before a page sees it: host, size, origin and token; and the headers of every answer."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation_audit.pages.cookies import Jar, check_token, read_cookies
from federation_audit.pages.settings import LOOPBACK_NAMES, PagesSettings

TOKEN_FIELD = "csrf"  # noqa: S105  # a field's name
_BODY_WITHIN_S = 20.0
_DRAINED_MOST = 4 << 20
_FIELDS_MOST = 5_000
_FORM = "application/x-www-form-urlencoded"
_SAFE = frozenset({"GET", "HEAD"})

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with that, browsers send forms with the origin null, which tells us nothing.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
    "x-robots-tag": "noindex, nofollow",
}


class Turned(Exception):
    """A request that is turned away, with its status and what to do."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@dataclass(slots=True)
class Arrived:
    """What the guard knows of a request; pages find it as ``request.state.arrived``."""

    cookies: dict[str, str]
    key: str
    new_visit: bool
    set_cookies: list[str] = field(default_factory=list)


class Guard:
    """ASGI middleware. `explain` makes the answer to a request that is turned away."""

    def __init__(self, app: ASGIApp, settings: PagesSettings, explain: Callable[[Request, Turned], Response]) -> None:
        self._app = app
        self._explain = explain
        self._jar = Jar(settings.secure)
        self._most = settings.max_body_kb * 1024
        public = urlsplit(settings.public_url or "")
        self._origins = {settings.public_url} if settings.public_url else set()
        self._hosts = {public.hostname} if public.hostname else set()
        if settings.on_loopback:
            # Whatever the port: the pages may be reached through a tunnel. A name from elsewhere that resolves to
            # this machine (DNS rebinding) is not among them.
            self._hosts |= LOOPBACK_NAMES | {settings.host}
        self._strict_transport = settings.secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = read_cookies(headers.get("cookie", ""))
        key = cookies.get(self._jar.session) or cookies.get(self._jar.visit) or ""
        arrived = Arrived(cookies, key or secrets.token_urlsafe(24), new_visit=not key)
        scope.setdefault("state", {})["arrived"] = arrived
        app, unread = self._app, scope["method"] not in _SAFE
        try:
            body = await self._read(headers, receive) if unread else None  # first: who still sends reads no refusal
            unread = False
            self._check_host(headers)
            if body is not None:
                self._check_origin(headers)
                self._check_form(headers, body, key)
                receive = _replay(body, receive)
        except Turned as turned:
            app = self._explain(Request(scope), turned)
        await app(scope, receive, self._with_headers(scope, send, arrived, close=unread))

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in self._hosts:
            raise Turned(
                421,
                "These pages are not served under this name. Open them by their own address; if this is their"
                " address, set audit.pages.public_url to it.",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if origin is not None:
            own = self._origins | {f"{scheme}://{headers.get('host', '').lower()}" for scheme in ("http", "https")}
            foreign = foreign or origin.lower() not in own
        if foreign:
            raise Turned(
                403, "This form was sent from another site, so nothing was done. Open the page here and try again."
            )

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """The body. What is too large is read a while and thrown away: a browser that still sends reads no answer."""
        declared = headers.get("content-length", "0")
        size, body = 0, bytearray()
        if declared.isdecimal() and int(declared) > self._most + _DRAINED_MOST:
            raise self._too_large()
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                while size <= self._most + _DRAINED_MOST:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    size += len(message.get("body", b""))
                    if size <= self._most:
                        body += message.get("body", b"")
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise Turned(408, "The form did not arrive in time. Check the connection and send it again.") from error
        if size > self._most:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> Turned:
        return Turned(
            413,
            f"The form is larger than {self._most // 1024} KiB. Send less at a time, or raise audit.pages.max_body_kb.",
        )

    def _check_form(self, headers: Headers, body: bytes, key: str) -> None:
        if body and headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise Turned(415, f"Forms are sent as {_FORM}. Send this one from the page.")
        try:
            sent = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS_MOST)
        except ValueError as error:
            raise Turned(422, f"The form cannot be read: it is no UTF-8, or has over {_FIELDS_MOST} fields.") from error
        if not check_token(key, sent.get(TOKEN_FIELD, [""])[0]):
            raise Turned(
                403,
                "This form is out of date, so nothing was done: you logged in or out since it was opened, or cookies"
                " are blocked. Go back, reload the page and try again.",
            )

    def _with_headers(self, scope: Scope, send: Send, arrived: Arrived, *, close: bool) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if self._strict_transport:
                    headers["strict-transport-security"] = "max-age=31536000"
                if close:  # the rest of the body is not read
                    headers["connection"] = "close"
                cookies = list(arrived.set_cookies)
                if arrived.new_visit and headers.get("content-type", "").startswith("text/html"):
                    cookies.append(self._jar.written(self._jar.visit, arrived.key))
                for cookie in cookies:
                    headers.append("set-cookie", cookie)
            await send(message)

        return send_with_headers


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that gives the body that was read, then goes on as before."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
