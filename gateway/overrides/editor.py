"""Setting overrides and taking them back, for whoever may: the command line, and the API under the admin's token.

Errors, all `OverrideError`::

    OverrideError
    ├── RequestInvalid     a field that is wrong, or one too many
    ├── ScanUnknown        no answer and no verdict knows the scan
    └── OverrideUnknown    there is no such override
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.overrides.history import Scanned, find_scan
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.messages import (
    DISTANCE_MOST,
    EVERY_TENANT,
    OverrideEffect,
    OverrideKind,
    OverrideSet,
)
from schemas.topics import OVERRIDES

DISTANCE = 31
"""PDQ's own bound for pictures that look the same, of 256 bits."""

_PATIENCE_S = 5.0

Hash = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]


class OverrideError(Exception):
    """What was asked cannot be done; `field` is at fault, `remedy` says what to do."""

    def __init__(self, message: str, *, field: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message = message
        self.field = field
        self.remedy = remedy


class RequestInvalid(OverrideError):
    """A field of the request is missing, wrong, or one too many."""


class ScanUnknown(OverrideError):
    """No answer and no verdict knows this scan."""


class OverrideUnknown(OverrideError):
    """There is no override of this id."""


class OverrideRequest(BaseModel):
    """What a moderator asks for. Exactly one of `sha256`, `pdq` and `scan_id` says which image is meant.

    A scan stands for its image's bytes and, unless `exact`, for the look of each of its frames. `distance` is how many
    of 256 bits a look may differ in. `tenant` is one, or ``*`` for all; without `until` it holds for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    effect: OverrideEffect
    sha256: Hash | None = None
    pdq: Hash | None = None
    scan_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    exact: bool = False
    distance: Annotated[int, Field(ge=0, le=DISTANCE_MOST)] = DISTANCE
    tenant: Annotated[str, Field(max_length=64, pattern=r"^(\*|[a-z0-9][a-z0-9_-]*)$")] = EVERY_TENANT
    set_by: Annotated[str, Field(min_length=1, max_length=100)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _names_one_image(self) -> Self:
        if sum(each is not None for each in (self.sha256, self.pdq, self.scan_id)) != 1:
            raise ValueError("exactly one of sha256, pdq and scan_id says which image is meant")
        if self.until is not None and self.until <= datetime.now(UTC):
            raise ValueError("until lies in the past")
        return self


class Placed(NamedTuple):
    """An override, and the offset of its record."""

    override: OverrideSet
    offset: int


def read_request(fields: object) -> OverrideRequest:
    """A request from plain JSON. Raises `RequestInvalid`."""
    try:
        return OverrideRequest.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "body"
        raise RequestInvalid(
            str(fault["msg"]).removeprefix("Value error, "), field=where, remedy="see docs/overrides.md"
        ) from error


class OverrideEditor:
    """Writes overrides to their topic. `recall` knows scans that need not be looked up in other topics."""

    def __init__(
        self,
        broker: BrokerSettings,
        producer: Producer,
        *,
        recall: Callable[[str], Scanned | None] = lambda scan_id: None,
    ) -> None:
        self._broker = broker
        self._producer = producer
        self._recall = recall

    async def set(self, request: OverrideRequest) -> list[Placed]:
        """Set what is asked for; one override for each hash.

        Raises `ScanUnknown`, or a `schemas.broker.BrokerError`.
        """
        common: dict[str, Any] = {
            "effect": request.effect,
            "tenant": request.tenant,
            "set_by": request.set_by,
            "reason": request.reason,
            "set_at": now_ms(),
            "until": None if request.until is None else int(request.until.timestamp() * 1000),
            "scan_id": request.scan_id or "",
        }
        overrides = [
            OverrideSet(kind=kind, hash=hash_, distance=request.distance if kind is OverrideKind.PDQ else 0, **common)
            for kind, hash_ in await self._hashes_of(request)
        ]
        return [await self._publish(each) for each in overrides]

    async def remove(self, override_id: str) -> int:
        """Take an override back; the offset of its tombstone. Raises a `schemas.broker.BrokerError`."""
        key = override_id.encode("ascii")
        return (await self._producer.publish(OVERRIDES, None, key=key, give_up_after=_PATIENCE_S)).offset

    async def _hashes_of(self, request: OverrideRequest) -> list[tuple[OverrideKind, bytes]]:
        if request.sha256 is not None:
            return [(OverrideKind.SHA256, bytes.fromhex(request.sha256))]
        if request.pdq is not None:
            return [(OverrideKind.PDQ, bytes.fromhex(request.pdq))]
        assert request.scan_id is not None, "the request names one image"
        scanned = self._recall(request.scan_id) or await find_scan(self._broker, request.scan_id)
        if scanned is None:
            raise ScanUnknown(
                "no answer and no verdict knows this scan",
                field="scan_id",
                remedy="compare it with the reply's scan_id, or name the image by its sha256",
            )
        looks = () if request.exact else scanned.looks
        return [(OverrideKind.SHA256, scanned.sha256), *((OverrideKind.PDQ, each) for each in looks)]

    async def _publish(self, override: OverrideSet) -> Placed:
        published = await self._producer.publish(
            OVERRIDES, override, key=override.override_id.encode("ascii"), give_up_after=_PATIENCE_S
        )
        return Placed(override, published.offset)
