"""The gateway's HTTP endpoints."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import orjson
import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute

from gateway import openapi
from gateway.answers import (
    Answer,
    Waiting,
    answer_reply,
    json_status,
    ledger_entry,
    pict_rs_status,
    refusal_reply,
    report_reply,
    rules_of,
    waiting_reply,
)
from gateway.bodies import Bodies
from gateway.flights import Arrival
from gateway.hashing import Hashing, pdq_reply
from gateway.heads import bearer, content_length, header, peer, prefers_async
from gateway.ledger import Ledger
from gateway.lists.errors import ListError, ListUnknown
from gateway.lists.publishing import Publishing
from gateway.metrics import Metrics
from gateway.overrides import openapi as overrides_openapi
from gateway.overrides.endpoints import OverrideEndpoints
from gateway.readiness import Part, readiness_reply
from gateway.refusals import ClientGone, Refusal, RefusalCode
from gateway.replies import Reply, Silence
from gateway.scans import Scans
from gateway.tenants import Tenants

log = structlog.get_logger("gateway.app")

Handler = Callable[[Request], Awaitable[Any]]

_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")


class _PlainRoute(APIRoute):
    """A route that FastAPI documents and leaves alone: its endpoint takes the request and gives an ASGI reply."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        return cast("Callable[[Request], Any]", self.endpoint)


class Endpoints:
    """What the endpoints share, and the endpoints themselves."""

    def __init__(
        self,
        *,
        gateway: str,
        tenants: Tenants,
        bodies: Bodies,
        scans: Scans,
        ledger: Ledger,
        metrics: Metrics,
        parts: Callable[[], Sequence[Part]],
        publishing: Publishing,
        hashing: Hashing,
    ) -> None:
        self._gateway = gateway
        self._tenants = tenants
        self._bodies = bodies
        self._scans = scans
        self._ledger = ledger
        self._metrics = metrics
        self._parts = parts
        self._publishing = publishing
        self._hashing = hashing

    async def validate(self, request: Request) -> Reply | Silence:
        """Judge an image for pict-rs, which keeps it on 200 and refuses it on anything else.

        The key is the tenant's. The word IPADDR in its place stands for the tenant of the client's network.
        """
        return await self._scan(request, request.path_params["key"], pict_rs_status)

    async def scan(self, request: Request) -> Reply | Silence:
        """Judge an image. The status is 200 whatever the decision is, 422 for what cannot be read as an image.

        With `Prefer: respond-async` an image that is not known is judged behind those that somebody waits for: 202.
        """
        try:
            key = bearer(request)
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=True)
        return await self._scan(request, key, json_status, unhurried=prefers_async(request))

    async def report(self, request: Request) -> Reply:
        """What is remembered of a recent scan. One that was answered by the deadline shows its verdict once it came."""
        scan_id = request.path_params["scan_id"]
        try:
            tenant = self._tenants.identify(bearer(request), peer(request))
            answer, judgement = self._scans.find(tenant, scan_id)
            if answer is None and judgement is None:
                raise Refusal(
                    RefusalCode.UNKNOWN_SCAN,
                    "no scan of this id is remembered",
                    field="scan_id",
                    remedy="ask soon after the scan; gateway.recent_entries says how many are kept",
                )
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=False)
        return report_reply(scan_id, answer, judgement)

    async def read_list(self, request: Request) -> Reply:
        """A known-hash list that is shared with those who have the readers' token. Its version is the ETag."""
        try:
            if not self._publishing.admits(bearer(request)):
                raise Refusal(
                    RefusalCode.UNKNOWN_KEY,
                    "lists are for those who have the readers' token",
                    field="authorization",
                    remedy="send 'Authorization: Bearer <token>', the other side's gateway.lists.reader_token",
                )
            known = header(request, b"if-none-match").removeprefix("W/").strip('"')
            name = request.path_params["name"]
            version, document = await asyncio.to_thread(self._publishing.read, name, known)
        except ListUnknown as error:
            unknown = Refusal(
                RefusalCode.UNKNOWN_LIST, str(error), field="name", remedy="gateway.lists.shared names what is shared"
            )
            return self._refuse(unknown, body_unread=False)
        except ListError as error:
            log.error("a list cannot be given to a reader", list=request.path_params["name"], error=str(error))
            failed = Refusal(RefusalCode.INTERNAL, "the list cannot be read", remedy="the gateway's log says why")
            return self._refuse(failed, body_unread=False)
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=False)
        headers = ((b"etag", f'"{version}"'.encode("ascii")), (b"cache-control", b"private, no-cache"))
        return Reply(304, b"", headers) if document is None else Reply(200, document, headers)

    async def hash_url(self, request: Request) -> Reply:
        """The PDQ hash of an image on the web, in the shape that PieFed reads. Off unless gateway.fetch.enabled."""
        try:
            key = request.path_params.get("key") or bearer(request)
            self._tenants.identify(key, peer(request))
            url = request.query_params.get("image_url", "")
            if not url:
                raise Refusal(
                    RefusalCode.BAD_REQUEST,
                    "no image is named",
                    field="image_url",
                    remedy="add ?image_url=https://... (percent-encoded)",
                )
            return pdq_reply(await self._hashing.hash_url(url))
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=False)
        except Exception:  # the edge
            log.exception("an image on the web is not hashed")
            failed = Refusal(RefusalCode.INTERNAL, "the gateway failed", remedy="its log says why; try again")
            return self._refuse(failed, body_unread=False)

    async def healthz(self, request: Request) -> Reply:
        """200 as long as the process serves at all."""
        return Reply(200, b'{"alive":true}')

    async def readyz(self, request: Request) -> Reply:
        """200 when Kafka, the verdict tail and the frame workers are there; 503 with the parts otherwise."""
        return readiness_reply(self._parts())

    async def show_metrics(self, request: Request) -> Reply:
        """Prometheus metrics."""
        return Reply(200, self._metrics.render(), media_type=b"text/plain; version=0.0.4; charset=utf-8")

    async def refuse_path(self, request: Request, error: Exception) -> Reply:
        """The typed error for a path that does not exist."""
        refusal = Refusal(
            RefusalCode.NOT_FOUND, "no such path", field="path", remedy="GET /openapi.json lists the paths"
        )
        return self._refuse(refusal, body_unread=request.method in _WITH_BODY)

    async def refuse_method(self, request: Request, error: Exception) -> Reply:
        """The typed error for a method that a path does not have."""
        refusal = Refusal(
            RefusalCode.METHOD_NOT_ALLOWED,
            f"{request.method} is not possible here",
            field="method",
            remedy="GET /openapi.json says what is",
        )
        return self._refuse(refusal, body_unread=request.method in _WITH_BODY)

    async def _scan(
        self, request: Request, key: str | None, status_of: Callable[[Answer], int], *, unhurried: bool = False
    ) -> Reply | Silence:
        arrival = Arrival.now()
        body_unread = True
        try:
            tenant = self._tenants.identify(key, peer(request))
            # pict-rs takes any refusal for a rejection: what is too much is judged later, as the tenant wants it.
            with self._scans.admit(tenant, may_defer=status_of is pict_rs_status) as over_rate:
                body = await self._bodies.read(
                    request.receive,
                    content_type=header(request, b"content-type"),
                    content_length=content_length(request),
                )
                body_unread = False
                answer = await self._scans.scan(tenant, body, arrival, unhurried=unhurried, over_rate=over_rate)
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=body_unread)
        except ClientGone:
            self._metrics.clients_gone.inc()
            return Silence()
        except Exception:  # the edge: pict-rs takes any other reply for a rejection
            log.exception("request failed")
            failed = Refusal(RefusalCode.INTERNAL, "the gateway failed", remedy="its log says why; try again")
            return self._refuse(failed, body_unread=body_unread)
        if isinstance(answer, Waiting):
            return waiting_reply(answer)
        status = status_of(answer)
        # Before the reply: a gateway that is killed now has still said what it let through.
        self._ledger.record(ledger_entry(answer, status=status, gateway=self._gateway))
        self._metrics.count_answer(
            answer.answered_by,
            answer.decision,
            arrival.milliseconds / 1000.0,
            tenant=answer.tenant,
            accepted=answer.accepted,
        )
        if not answer.accepted:
            log.info(
                "image refused",
                scan_id=answer.scan_id,
                sha256=answer.sha256.hex(),
                tenant=answer.tenant,
                decision=answer.decision.value,
                answered_by=answer.answered_by.value,
                reason=answer.reason,
                **_grounds(answer),
            )
        return answer_reply(answer, status)

    def _refuse(self, refusal: Refusal, *, body_unread: bool) -> Reply:
        self._metrics.refusals.labels(refusal.code.value).inc()
        return refusal_reply(refusal, body_unread=body_unread)


def create_app(endpoints: Endpoints, moderation: OverrideEndpoints) -> FastAPI:
    """The ASGI application that serves them, and their description at /openapi.json."""
    router = APIRouter(route_class=_PlainRoute)

    def add(path: str, endpoint: Handler, method: str, responses: openapi.Responses, **extra: Any) -> None:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_class=Response,
            response_model=None,
            responses=responses,
            openapi_extra=extra,
        )

    key = openapi.path_parameter("key", "The tenant's key, or IPADDR.")
    scan_id = openapi.path_parameter("scan_id", "As a scan's answer named it.")
    add("/api/v1/scan/{key}", endpoints.validate, "POST", openapi.PICT_RS_RESPONSES, **key, **openapi.IMAGE_BODY)
    prefer = openapi.PREFER
    add("/v1/scans", endpoints.scan, "POST", openapi.SCAN_RESPONSES, **prefer, **openapi.BEARER, **openapi.IMAGE_BODY)
    add("/v1/scans/{scan_id}", endpoints.report, "GET", openapi.REPORT_RESPONSES, **scan_id, **openapi.BEARER)
    add("/v1/overrides", moderation.show, "GET", overrides_openapi.LIST_RESPONSES, **overrides_openapi.ADMIN)
    add(
        "/v1/overrides",
        moderation.put,
        "POST",
        overrides_openapi.SET_RESPONSES,
        **overrides_openapi.ADMIN,
        **overrides_openapi.REQUEST_BODY,
    )
    add(
        "/v1/overrides/{override_id}",
        moderation.remove,
        "DELETE",
        overrides_openapi.REMOVE_RESPONSES,
        **openapi.path_parameter("override_id", "As GET /v1/overrides lists it."),
        **overrides_openapi.ADMIN,
    )
    name = openapi.path_parameter("name", "The list's name.")
    add("/v1/lists/{name}", endpoints.read_list, "GET", openapi.LIST_RESPONSES, **name, **openapi.READER)
    add("/v1/pdq", endpoints.hash_url, "GET", openapi.PDQ_RESPONSES, **openapi.IMAGE_URL, **openapi.BEARER)
    add("/v1/pdq/{key}", endpoints.hash_url, "GET", openapi.PDQ_RESPONSES, **openapi.KEY_AND_IMAGE_URL)
    add("/healthz", endpoints.healthz, "GET", {200: {"description": "Alive.", "content": {"application/json": {}}}})
    add("/readyz", endpoints.readyz, "GET", openapi.READY_RESPONSES)
    add("/metrics", endpoints.show_metrics, "GET", {200: {"description": "Metrics.", "content": {"text/plain": {}}}})

    # They give ASGI replies, which is all that starlette needs, but not all that its types allow.
    handlers: dict[int | type[Exception], Any] = {404: endpoints.refuse_path, 405: endpoints.refuse_method}
    # No documentation pages: FastAPI's fetch scripts from elsewhere.
    app = FastAPI(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers,
    )
    app.include_router(router)
    described = app.openapi()
    components = described.setdefault("components", {})
    components["schemas"].update(overrides_openapi.SCHEMAS)
    components["securitySchemes"] = openapi.SECURITY_SCHEMES | overrides_openapi.SECURITY_SCHEMES
    return app


def _grounds(answer: Answer) -> dict[str, object]:
    """What an answer rests on, for the log."""
    grounds: dict[str, object] = {"rules": [rule["name"] for rule in rules_of(answer)]}
    if answer.judgement is not None:
        grounds["scores"] = orjson.loads(answer.judgement.scores)
    return grounds if grounds["rules"] or answer.judgement is not None else {}
