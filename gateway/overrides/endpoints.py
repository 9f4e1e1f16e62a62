"""The part of the HTTP API by which moderators set overrides: under the admin's token, off without one."""

import hashlib
import hmac
import os

import orjson
import structlog
from fastapi import Request
from pydantic import SecretStr

from gateway.answers import refusal_reply
from gateway.bodies import Bodies
from gateway.heads import bearer
from gateway.metrics import Metrics
from gateway.overrides.editor import OverrideEditor, OverrideError, OverrideRequest, ScanUnknown, read_request
from gateway.overrides.memory import Overrides
from gateway.overrides.plain import as_plain
from gateway.refusals import ClientGone, Refusal, RefusalCode
from gateway.replies import Reply, Silence
from schemas.broker import BrokerError

log = structlog.get_logger("gateway.overrides")

_BODY_MOST_BYTES = 16 << 10
_KNOWN_WITHIN_S = 2.0


class OverrideEndpoints:
    """GET, POST and DELETE of /v1/overrides. A change is in force in this gateway when its reply leaves."""

    def __init__(
        self,
        token: SecretStr | None,
        *,
        bodies: Bodies,
        overrides: Overrides,
        editor: OverrideEditor,
        metrics: Metrics,
    ) -> None:
        self._token = None if token is None else _digest(token.get_secret_value())
        self._bodies = bodies
        self._overrides = overrides
        self._editor = editor
        self._metrics = metrics

    async def show(self, request: Request) -> Reply:
        """Every override there is, the latest first; the expired among them."""
        try:
            self._check(request)
        except Refusal as refusal:
            return self._refuse(refusal)
        return Reply(200, orjson.dumps({"overrides": [as_plain(each) for each in self._overrides.standing()]}))

    async def put(self, request: Request) -> Reply | Silence:
        """Allow or deny an image: by its sha256, by its look (PDQ), or by one of its scans, which stands for both.

        It takes the place of what was said before of the same hash for the same tenant, and holds in every gateway
        within a second. What is denied is removed from pict-rs, too, by the enforcer.
        """
        try:
            self._check(request)
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=True)
        body_unread = True
        try:
            wanted = await self._read(request)
            body_unread = False
            placed = await self._editor.set(wanted)
            for _, offset in placed:
                await self._overrides.reached(offset, _KNOWN_WITHIN_S)
        except Refusal as refusal:
            return self._refuse(refusal, body_unread=body_unread)
        except ClientGone:
            return Silence()
        except OverrideError as error:
            code = RefusalCode.UNKNOWN_SCAN if isinstance(error, ScanUnknown) else RefusalCode.INVALID_OVERRIDE
            return self._refuse(Refusal(code, error.message, field=error.field, remedy=error.remedy))
        except BrokerError as error:
            return self._refuse(_kafka_away(error))
        overrides = [override for override, _ in placed]
        log.info("override_set", ids=[each.override_id for each in overrides], **wanted.model_dump(mode="json"))
        return Reply(200, orjson.dumps({"overrides": [as_plain(each) for each in overrides]}))

    async def remove(self, request: Request) -> Reply:
        """Take an override back; the image is judged again as any other."""
        override_id = request.path_params["override_id"]
        try:
            self._check(request)
            override = self._overrides.get(override_id)
            if override is None:
                raise Refusal(
                    RefusalCode.UNKNOWN_OVERRIDE,
                    "there is no override of this id",
                    field="override_id",
                    remedy="GET /v1/overrides lists what there is",
                )
            await self._overrides.reached(await self._editor.remove(override_id), _KNOWN_WITHIN_S)
        except Refusal as refusal:
            return self._refuse(refusal)
        except BrokerError as error:
            return self._refuse(_kafka_away(error))
        log.info("override_removed", id=override_id)
        return Reply(200, orjson.dumps({"overrides": [as_plain(override)]}))

    async def _read(self, request: Request) -> OverrideRequest:
        body = await self._bodies.read(request.receive)
        with body:
            if body.length > _BODY_MOST_BYTES:
                raise Refusal(
                    RefusalCode.BODY_TOO_LARGE,
                    f"the body is larger than {_BODY_MOST_BYTES} bytes",
                    field="body",
                    remedy="send one override at a time",
                )
            data = os.pread(body.fd, body.length, 0)
        try:
            fields = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Refusal(
                RefusalCode.INVALID_OVERRIDE, "the body is no JSON", field="body", remedy="see docs/overrides.md"
            ) from error
        return read_request(fields)

    def _check(self, request: Request) -> None:
        """Raise `Refusal` unless the request carries the admin's token."""
        if self._token is None:
            raise Refusal(
                RefusalCode.ADMIN_OFF,
                "this gateway takes no overrides over HTTP",
                field="authorization",
                remedy="set gateway.admin_token, or use `fediwarden overrides`",
            )
        if not hmac.compare_digest(self._token, _digest(bearer(request, whose="gateway.admin_token") or "")):
            raise Refusal(
                RefusalCode.UNKNOWN_TOKEN,
                "this is not the admin's token",
                field="authorization",
                remedy="send the header 'Authorization: Bearer <gateway.admin_token>'",
            )

    def _refuse(self, refusal: Refusal, *, body_unread: bool = False) -> Reply:
        self._metrics.refusals.labels(refusal.code.value).inc()
        return refusal_reply(refusal, body_unread=body_unread)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _kafka_away(error: BrokerError) -> Refusal:
    log.warning("override not set", error=str(error))
    return Refusal(RefusalCode.KAFKA_AWAY, "Kafka does not take it now", remedy="try again in a moment")
