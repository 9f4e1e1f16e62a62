"""The words and examples of the OpenAPI description of /v1/overrides."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.openapi import ErrorBody, Responses
from gateway.overrides.editor import OverrideRequest
from gateway.refusals import RefusalCode
from schemas.messages import DISTANCE_MOST, OverrideEffect, OverrideKind


class OverrideBody(BaseModel):
    """One override. `tenant` is ``*`` where it holds for all; times are ISO 8601 in UTC; hashes are hexadecimal."""

    id: str = Field(pattern="^[0-9a-f]{16}$")
    effect: OverrideEffect
    kind: OverrideKind
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    distance: int = Field(ge=0, le=DISTANCE_MOST)
    tenant: str
    set_by: str
    reason: str
    set_at: str
    until: str | None
    scan_id: str | None
    expired: bool


class OverridesBody(BaseModel):
    """Overrides: all there are, or those that a request set or took back."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    overrides: list[OverrideBody]


_SCAN_ID = "0199c2f4e1aa5d0c8a41b7e2f09c3d11"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
_BY_BYTES = {
    "id": "3f2a9c0d11e4b7aa",
    "effect": "allow",
    "kind": "sha256",
    "hash": _SHA256,
    "distance": 0,
    "tenant": "*",
    "set_by": "alice",
    "reason": "a painting",
    "set_at": "2026-11-28T09:00:00.000Z",
    "until": "2027-11-28T09:00:00.000Z",  # FastAPI leaves out what is null
    "scan_id": _SCAN_ID,
    "expired": False,
}
_BY_LOOK = _BY_BYTES | {"id": "a01b5ce277d39e46", "kind": "pdq", "hash": _PDQ, "distance": 31}


def _content(**examples: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"examples": {name: {"value": value} for name, value in examples.items()}}}


def _refused(code: RefusalCode, field: str, message: str, remedy: str, description: str) -> dict[str, Any]:
    error = {"error": {"code": code.value, "field": field, "message": message, "remedy": remedy}}
    return {"model": ErrorBody, "description": description, "content": _content(**{code.value: error})}


_REFUSALS: Responses = {
    401: _refused(
        RefusalCode.UNKNOWN_TOKEN,
        "authorization",
        "this is not the admin's token",
        "send the header 'Authorization: Bearer <gateway.admin_token>'",
        "No token, or another.",
    ),
    403: _refused(
        RefusalCode.ADMIN_OFF,
        "authorization",
        "this gateway takes no overrides over HTTP",
        "set gateway.admin_token, or use `fediwarden overrides`",
        "The gateway has no admin token.",
    ),
}
_AWAY: Responses = {
    503: _refused(
        RefusalCode.KAFKA_AWAY,
        "",
        "Kafka does not take it now",
        "try again in a moment",
        "Kafka is away, or the gateway is full.",
    )
}

LIST_RESPONSES: Responses = {
    200: {
        "model": OverridesBody,
        "description": "Every override, the latest first.",
        "content": _content(two={"overrides": [_BY_BYTES, _BY_LOOK]}),
    },
    **_REFUSALS,
}

SET_RESPONSES: Responses = {
    200: {
        "model": OverridesBody,
        "description": "Set: one for each hash.",
        "content": _content(by_scan={"overrides": [_BY_BYTES, _BY_LOOK]}),
    },
    400: _refused(
        RefusalCode.INVALID_OVERRIDE,
        "body",
        "exactly one of sha256, pdq and scan_id says which image is meant",
        "see docs/overrides.md",
        "Not the fields that are described.",
    ),
    404: _refused(
        RefusalCode.UNKNOWN_SCAN,
        "scan_id",
        "no answer and no verdict knows this scan",
        "compare it with the reply's scan_id, or name the image by its sha256",
        "No such scan is known.",
    ),
    408: _refused(
        RefusalCode.BODY_TOO_SLOW,
        "body",
        "the body was not here after 3 s",
        "send it faster, or raise gateway.body_timeout_s and gateway.deadline_ms",
        "The body took too long to arrive.",
    ),
    413: _refused(
        RefusalCode.BODY_TOO_LARGE,
        "body",
        "the body is larger than 16384 bytes",
        "send one override at a time",
        "The body is over the limit.",
    ),
    **_REFUSALS,
    **_AWAY,
}

REMOVE_RESPONSES: Responses = {
    200: {
        "model": OverridesBody,
        "description": "Taken back.",
        "content": _content(removed={"overrides": [_BY_BYTES]}),
    },
    404: _refused(
        RefusalCode.UNKNOWN_OVERRIDE,
        "override_id",
        "there is no override of this id",
        "GET /v1/overrides lists what there is",
        "No such override.",
    ),
    **_REFUSALS,
    **_AWAY,
}

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "Who says what of which image, why, and until when.",
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/OverrideRequest"},
                "examples": {
                    "allow_a_false_positive": {
                        "value": {
                            "effect": "allow",
                            "scan_id": _SCAN_ID,
                            "set_by": "alice",
                            "reason": "a painting",
                        }
                    },
                    "deny_by_look": {
                        "value": {
                            "effect": "deny",
                            "pdq": _PDQ,
                            "distance": 20,
                            "tenant": "lemmy",
                            "set_by": "bob",
                            "reason": "report 4711",
                            "until": "2027-11-28T09:00:00Z",
                        }
                    },
                },
            }
        },
    }
}

_REQUEST = OverrideRequest.model_json_schema(ref_template="#/components/schemas/{model}")
SCHEMAS: dict[str, Any] = _REQUEST.pop("$defs") | {"OverrideRequest": _REQUEST}
"""What the request's body refers to."""

ADMIN: dict[str, Any] = {"security": [{"adminToken": []}]}
"""The admin's token as bearer token."""

SECURITY_SCHEMES: dict[str, Any] = {
    "adminToken": {"type": "http", "scheme": "bearer", "description": "The gateway's admin_token."}
}
