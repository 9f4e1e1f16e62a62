"""``POST /v1/origins``: other software says where an image came from.

It shares a port with the pages, and must not take it from them: few requests at a time, each on its own connection.

The body is JSON, ``{"origins": [...]}``, each as `Told` describes; nothing of a request is published unless all of it
can be read. Actors are named by their ActivityPub id, which is made a pseudonym at once and kept nowhere.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any, Self

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic import model_validator as check_model
from starlette.exceptions import HTTPException

from federation_audit.actors import NotAnActor, normalise_actor
from schemas.broker import BrokerError
from schemas.clock import now_ms
from schemas.domains import NotADomain, domain_of, normalise_domain
from schemas.messages import (
    Confidence,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
)
from schemas.pseudonyms import Pseudonyms

BODY_MOST_BYTES = 256 << 10
ORIGINS_MOST = 100
_BODY_WITHIN_S = 10.0
_AT_ONCE = 16
_CLOCKS_DIFFER_MS = 300_000
_CLOSE = {"connection": "close", "cache-control": "no-store"}
_AGAIN = "send all of it again in a moment"

Publish = Callable[[OriginObserved], Awaitable[None]]
"""Returns when the origin is kept; raises a `BrokerError` when it is not."""


class _Refused(Exception):
    """A request that is not taken. `field` is the part of it that is at fault, "" for none."""

    def __init__(self, status: int, code: str, message: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "field": field, "message": message, "remedy": remedy}


def _check_address(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError("an address holds no spaces and no control characters")
    try:
        domain_of(text)
    except NotADomain:
        raise ValueError("write an absolute address, such as https://example.org/image.png") from None
    return text


def _check_domain(text: str) -> str:
    try:
        return normalise_domain(text)
    except NotADomain:
        raise ValueError("write a domain, such as example.org") from None


def _check_actor(text: str) -> str:
    try:
        return normalise_actor(text)
    except NotAnActor as error:
        raise ValueError(str(error)) from None


def _check_alias(text: str) -> str:
    if not text.isprintable() or "/" in text or " " in text:
        raise ValueError("an alias is pict-rs's name of a file, without slashes and spaces")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ToldAuthor(_Part):
    """Who put the image there: the actor's ActivityPub `id`, or only the `instance`."""

    id: Annotated[str, Field(max_length=2048), AfterValidator(_check_actor)] | None = None
    instance: Annotated[str, Field(max_length=300), AfterValidator(_check_domain)] | None = None
    confidence: Confidence = Confidence.LIKELY

    @check_model(mode="after")
    def _says_whose(self) -> Self:
        if not (self.id or self.instance):
            raise ValueError("an author has an id or an instance")
        return self

    def message(self, pseudonyms: Pseudonyms, at_ms: int) -> OriginAuthor:
        """As it is published."""
        instance = domain_of(self.id) if self.id else self.instance
        assert instance is not None, "checked above"
        pseudonym = pseudonyms.pseudonym(self.id, at_ms=at_ms) if self.id else None
        if pseudonym is None:
            return OriginAuthor(instance=instance, confidence=self.confidence)
        return OriginAuthor(
            instance=instance, pseudonym=pseudonym.value, key_id=pseudonym.key_id, confidence=self.confidence
        )


class ToldCommunity(_Part):
    """Where the image was posted to: the community's ActivityPub `id`."""

    id: Annotated[str, Field(max_length=1024), AfterValidator(_check_actor)]
    confidence: Confidence = Confidence.LIKELY


class Told(_Part):
    """One origin, as its teller writes it. At least one of `sha256`, `alias` and `url` names the image.

    `post_url` is the ActivityPub id of the post or comment. What is not told stays unknown.
    """

    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    alias: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_check_alias)] | None = None
    url: Annotated[str, Field(max_length=4096), AfterValidator(_check_address)] | None = None
    place: Place = Place.UNKNOWN
    author: ToldAuthor | None = None
    community: ToldCommunity | None = None
    post_url: Annotated[str, Field(max_length=2048), AfterValidator(_check_address)] | None = None
    published_at: AwareDatetime | None = None

    @check_model(mode="after")
    def _names_an_image(self) -> Self:
        if not (self.sha256 or self.alias or self.url):
            raise ValueError("an origin names its image: by sha256, alias or url")
        return self


class _Body(_Part):
    origins: Annotated[tuple[Told, ...], Field(min_length=1, max_length=ORIGINS_MOST)]


def make_router(
    tokens: Mapping[str, SecretStr],
    publish: Publish,
    pseudonyms: Pseudonyms,
    *,
    observer: str,
    clock: Callable[[], int] = now_ms,
) -> APIRouter:
    """The route ``POST /v1/origins``, for the tenants that have a token in `tokens`, to be mounted by a FastAPI app.

    Answers: 202 ``{"accepted": n, "notes": [...]}`` when all origins are published, else
    ``{"error": {"code", "field", "message", "remedy"}}``: 404 (no tenant has a token), 401, 400 (no JSON), 408, 413,
    422 (`field` names the part that is wrong), 503 (Kafka is away, or too many requests at once; what was published
    already may be sent again: the same origin counts once). A moment in the future is left out, which a note says.
    """
    digests = [(tenant, _digest(token.get_secret_value())) for tenant, token in tokens.items()]
    router = APIRouter()
    in_hand = 0

    @router.post("/v1/origins", status_code=202)
    async def take(request: Request) -> JSONResponse:
        """Say where images came from."""
        nonlocal in_hand
        in_hand += 1
        try:
            tenant = _identify(digests, request.headers.get("authorization", ""))
            if in_hand > _AT_ONCE:
                raise _Refused(503, "busy", f"{_AT_ONCE} requests are in hand", remedy=_AGAIN)
            body = _read(await _receive(request))
            now = clock()
            notes = [
                {"field": f"origins.{number}.published_at", "message": "lies in the future; kept as unknown"}
                for number, told in enumerate(body.origins)
                if told.published_at is not None and _moment(told, now) is None
            ]
            await _all_of(publish(_message(told, tenant, pseudonyms, now, observer)) for told in body.origins)
        except _Refused as refused:
            return _answer_refused(refused)
        except BrokerError:
            return _answer_refused(_Refused(503, "kafka_away", "Kafka does not take it now", remedy=_AGAIN))
        finally:
            in_hand -= 1
        return JSONResponse({"accepted": len(body.origins), "notes": notes}, 202, _CLOSE)

    return router


def make_app(router: APIRouter) -> FastAPI:
    """An application with nothing but `router`, whose errors look like the router's own."""
    app = FastAPI(title="fediwarden", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(router)

    async def by_status(_request: Request, error: Any) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return _answer_refused(_Refused(error.status_code, code, str(error.detail), remedy="POST /v1/origins is here"))

    app.add_exception_handler(HTTPException, by_status)
    return app


async def _all_of(publishing: Iterable[Awaitable[None]]) -> None:
    for outcome in await asyncio.gather(*publishing, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _answer_refused(refused: _Refused) -> JSONResponse:
    headers = dict(_CLOSE)
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refused.status == 503:
        headers["retry-after"] = "1"
    return JSONResponse({"error": refused.error}, refused.status, headers)


def _identify(digests: list[tuple[str, bytes]], header: str) -> str:
    """The tenant whose token it is. Each is compared, in constant time."""
    if not digests:
        raise _Refused(
            404,
            "not_set_up",
            "no origins are taken here",
            remedy="set tenants.NAME.origins_token, such as FEDIWARDEN_TENANTS__DEFAULT__ORIGINS_TOKEN, and start anew",
        )
    scheme, _, token = header.partition(" ")
    offered = _digest(token.strip())
    found = [tenant for tenant, digest in digests if hmac.compare_digest(digest, offered)]
    if scheme.lower() != "bearer" or not found:
        raise _Refused(
            401,
            "unknown_token",
            "this request carries no token that we know",
            field="authorization",
            remedy="send the header 'Authorization: Bearer <token>'",
        )
    return found[0]


async def _receive(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            if not (length.isdecimal() and int(length) > BODY_MOST_BYTES):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > BODY_MOST_BYTES:
                        break
                else:
                    return bytes(body)
    except TimeoutError:
        raise _Refused(408, "body_too_slow", f"the body did not come within {_BODY_WITHIN_S:.0f} s") from None
    raise _Refused(
        413,
        "body_too_large",
        f"the body is larger than {BODY_MOST_BYTES} bytes",
        field="body",
        remedy=f"send at most {ORIGINS_MOST} origins at a time",
    )


def _read(data: bytes) -> _Body:
    try:
        return _Body.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise _Refused(400, "no_json", "the body is no JSON", field="body", remedy="see docs/lemmy.md") from None
        field = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise _Refused(422, "invalid_origin", message, field=field, remedy="see docs/lemmy.md") from None


def _message(told: Told, tenant: str, pseudonyms: Pseudonyms, now: int, observer: str) -> OriginObserved:
    community = told.community and OriginCommunity(
        instance=domain_of(told.community.id), actor_id=told.community.id, confidence=told.community.confidence
    )
    return OriginObserved(
        tenant=tenant,
        sha256=bytes.fromhex(told.sha256 or ""),
        alias=told.alias or "",
        url=told.url or "",
        place=told.place,
        method=OriginMethod.HTTP,
        host=OriginHost(domain=domain_of(told.url), confidence=Confidence.LIKELY) if told.url else None,
        author=told.author and told.author.message(pseudonyms, now),
        community=community,
        moment=_moment(told, now),
        post_url=told.post_url or "",
        observed_at=now,
        observer=observer,
    )


def _moment(told: Told, now: int) -> OriginMoment | None:
    if told.published_at is None:
        return None
    at = round(told.published_at.timestamp() * 1000)
    return OriginMoment(at=at, confidence=Confidence.LIKELY) if 0 <= at <= now + _CLOCKS_DIFFER_MS else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
