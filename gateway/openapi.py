"""The words and examples of the OpenAPI description: what each endpoint takes and answers."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.refusals import RefusalCode
from schemas.messages import AnsweredBy, Decision

TITLE = "fediwarden gateway"
DESCRIPTION = "Judges images before a fediverse server keeps them. Every decision comes by the gateway's deadline."

Responses = dict[int | str, dict[str, Any]]
"""What FastAPI takes as the documentation of an endpoint's answers."""

_SCAN_ID = "0199c2f4e1aa5d0c8a41b7e2f09c3d11"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_SCORES = {"safety-s/NSFL": 0.0011, "safety-s/NSFW": 0.0142, "open-nsfw/nsfw": 0.0063}
_FIRED = {"name": "sexual", "decision": "reject", "frame": 2}


class RuleBody(BaseModel):
    """A policy rule that fired, and the frame it saw worst."""

    name: str
    decision: Decision
    frame: int = Field(ge=0)


class AnswerBody(BaseModel):
    """One request's answer. `accepted` is what the tenant makes of `decision`, and what pict-rs is told.

    `hash_list` names the known-hash list that has the image, as ``name@version``.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    scan_id: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    decision: Decision
    accepted: bool
    answered_by: AnsweredBy
    reason: str
    media_type: str
    rules: list[RuleBody]
    scores: dict[str, float]
    hash_list: str
    milliseconds: float = Field(ge=0)


class WaitingBody(BaseModel):
    """The image waits to be judged; GET /v1/scans/{scan_id} shows its verdict, and the same POST then the decision."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    scan_id: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ErrorDetail(BaseModel):
    """What was wrong, with which part of the request, and what to do about it."""

    code: RefusalCode
    field: str
    message: str
    remedy: str


class ErrorBody(BaseModel):
    """A typed error."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    error: ErrorDetail


class UnreadableBody(AnswerBody):
    """The answer for what is no image, with the error beside it."""

    error: ErrorDetail


class VerdictBody(BaseModel):
    """What the scanner decided, and what it judged with. `judged_at` is in milliseconds since the epoch."""

    decision: Decision
    rules: list[RuleBody]
    scores: dict[str, float]
    models: dict[str, str]
    policy: str
    judged_at: int


class ReportBody(BaseModel):
    """What this gateway remembers of a scan: its answer (null: none, or elsewhere) and its verdict (null: not yet).

    `unjudgeable` says why one that was handed in with `Prefer: respond-async` gets no verdict.
    """

    scan_id: str
    sha256: str
    answer: AnswerBody | None
    verdict: VerdictBody | None
    unjudgeable: str


class ListBody(BaseModel):
    """A known-hash list: hashes in hexadecimal, by kind; `provenance` says of some how they came about."""

    format: str
    name: str
    version: str
    reason: str
    responsible: str
    origin: str
    fetched_at: int
    expires_at: int | None
    counts: dict[str, int]
    hashes: dict[str, list[str]]
    provenance: dict[str, dict[str, Any]]


class PdqBody(BaseModel):
    """A picture's PDQ hash, 256 binary digits, and its quality; below 50 it is not fit for matching."""

    pdq_hash_binary: str = Field(pattern="^[01]{256}$")
    quality: int = Field(ge=0, le=100)


class PartBody(BaseModel):
    """One part of the gateway's readiness."""

    ok: bool
    required: bool
    detail: str


class ReadinessBody(BaseModel):
    """Whether the gateway can do its whole work."""

    ready: bool
    parts: dict[str, PartBody]


def _answer(decision: str, answered_by: str, *, accepted: bool, reason: str = "", **more: Any) -> dict[str, Any]:
    judged = answered_by in ("verdict", "known")
    return {
        "scan_id": _SCAN_ID,
        "sha256": _SHA256,
        "decision": decision,
        "accepted": accepted,
        "answered_by": answered_by,
        "reason": reason,
        "media_type": "image/jpeg" if answered_by == "verdict" else "",
        "rules": [_FIRED] if judged and decision == "reject" else [],
        "scores": _SCORES if judged else {},
        "hash_list": "",
        "milliseconds": 41.27,
        **more,
    }


def _error(code: RefusalCode, field: str, message: str, remedy: str) -> dict[str, Any]:
    return {"error": {"code": code.value, "field": field, "message": message, "remedy": remedy}}


def _content(**examples: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"examples": {name: {"value": value} for name, value in examples.items()}}}


_ACCEPTED = _answer("accept", "verdict", accepted=True)
_REJECTED = _answer("reject", "verdict", accepted=False)
_KNOWN = _answer("accept", "known", accepted=True)
_DEADLINE = _answer("accept", "deadline", accepted=True, reason="no verdict within 3000 ms")
_LISTED = _answer(
    "reject",
    "list",
    accepted=False,
    reason="on the list partners@5c85955f7092 (fediwarden.example), 4 of 256 bits off: known elsewhere",
    rules=[{"name": "list:partners", "decision": "reject", "frame": 0}],
    hash_list="partners@5c85955f7092",
)
_REASON = "not_an_image: the content is no known image or video format"
_UNREADABLE = _answer("reject", "unreadable", accepted=False, reason=_REASON)

_RETRY_HEADERS = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}

_REFUSALS: Responses = {
    400: {
        "model": ErrorBody,
        "description": "No valid HTTP or multipart form, no file in it, or several.",
        "content": _content(
            no_file=_error(
                RefusalCode.NO_FILE,
                "body",
                "the form holds no file",
                "send one part whose Content-Disposition has a filename, or the bytes alone as the body",
            )
        ),
    },
    401: {
        "model": ErrorBody,
        "description": "No tenant has this key.",
        "content": _content(
            unknown_key=_error(
                RefusalCode.UNKNOWN_KEY,
                "key",
                "no tenant has this key",
                "compare it with tenants.<name>.key in the gateway's settings",
            )
        ),
    },
    403: {
        "model": ErrorBody,
        "description": "The client's network is not allowed.",
        "content": _content(
            network_not_allowed=_error(
                RefusalCode.NETWORK_NOT_ALLOWED,
                "client",
                "the address 203.0.113.7 is in no network that may post here",
                "add its network to tenants.<name>.networks, or give the tenant a key and send it",
            )
        ),
    },
    408: {
        "model": ErrorBody,
        "description": "The body took too long to arrive.",
        "content": _content(
            body_too_slow=_error(
                RefusalCode.BODY_TOO_SLOW,
                "body",
                "the body was not here after 3 s",
                "send it faster, or raise gateway.body_timeout_s and gateway.deadline_ms",
            )
        ),
    },
    413: {
        "model": ErrorBody,
        "description": "The body is over the limit.",
        "content": _content(
            body_too_large=_error(
                RefusalCode.BODY_TOO_LARGE,
                "body",
                "the body is larger than 67108864 bytes",
                "send a smaller file, or raise gateway.max_body_bytes",
            )
        ),
    },
    429: {
        "model": ErrorBody,
        "description": "The tenant posts more than its rate_limit. pict-rs is told so where on_timeout is reject;"
        " else the image is taken and judged later.",
        "headers": _RETRY_HEADERS,
        "content": _content(
            rate_limited=_error(
                RefusalCode.RATE_LIMITED,
                "",
                "the tenant posts more than 5 images a second",
                "post fewer, or raise tenants.example-social.rate_limit",
            )
        ),
    },
    503: {
        "model": ErrorBody,
        "description": "The gateway is stopping, or full.",
        "content": _content(
            draining=_error(RefusalCode.DRAINING, "", "this gateway is stopping", "try again, or another gateway")
        ),
    },
}

_ANSWER_HEADERS = {
    "X-Fediwarden-Scan-Id": {"schema": {"type": "string"}},
    "X-Fediwarden-Decision": {"schema": {"type": "string", "enum": [d.value for d in Decision]}},
    "X-Fediwarden-Answered-By": {"schema": {"type": "string", "enum": [a.value for a in AnsweredBy]}},
}

PICT_RS_RESPONSES: Responses = {
    200: {
        "model": AnswerBody,
        "description": "Keep the image.",
        "headers": _ANSWER_HEADERS,
        "content": _content(verdict=_ACCEPTED, known=_KNOWN, deadline=_DEADLINE),
    },
    406: {
        "model": AnswerBody,
        "description": "Refuse the image.",
        "headers": _ANSWER_HEADERS,
        "content": _content(verdict=_REJECTED, list=_LISTED, unreadable=_UNREADABLE),
    },
    **_REFUSALS,
}

SCAN_RESPONSES: Responses = {
    200: {
        "model": AnswerBody,
        "description": "The decision, whatever it is.",
        "headers": _ANSWER_HEADERS,
        "content": _content(accept=_ACCEPTED, reject=_REJECTED, known=_KNOWN, deadline=_DEADLINE),
    },
    202: {
        "model": WaitingBody,
        "description": "Asked for with Prefer: respond-async. It is not known, and is judged when there is time.",
        "headers": {
            "Location": {"schema": {"type": "string"}},
            "Preference-Applied": {"schema": {"type": "string", "enum": ["respond-async"]}},
            "X-Fediwarden-Scan-Id": _ANSWER_HEADERS["X-Fediwarden-Scan-Id"],
        },
        "content": _content(waiting={"scan_id": _SCAN_ID, "sha256": _SHA256}),
    },
    422: {
        "model": UnreadableBody,
        "description": "The body is no image.",
        "headers": _ANSWER_HEADERS,
        "content": _content(
            not_an_image=_UNREADABLE
            | _error(
                RefusalCode.NOT_AN_IMAGE,
                "body",
                f"the body cannot be read as an image ({_REASON})",
                "send a jpeg, png, apng, webp, gif, avif, jxl, mp4 or webm file that opens elsewhere",
            )
        ),
    },
    **_REFUSALS,
}

REPORT_RESPONSES: Responses = {
    200: {
        "model": ReportBody,
        "description": "What is remembered of the scan.",
        "content": _content(
            judged_after_the_deadline={
                "scan_id": _SCAN_ID,
                "sha256": _SHA256,
                "answer": _DEADLINE,
                "verdict": {
                    "decision": "reject",
                    "rules": [_FIRED],
                    "scores": _SCORES,
                    "models": {"safety-s": "fef443ed0c1d17e7", "open-nsfw": "864bb37bf8863564"},
                    "policy": "5d1c2f0e9b7a4c33",
                    "judged_at": 1795438800000,
                },
                "unjudgeable": "",
            }
        ),
    },
    401: _REFUSALS[401],
    403: _REFUSALS[403],
    404: {
        "model": ErrorBody,
        "description": "No such scan is remembered.",
        "content": _content(
            unknown_scan=_error(
                RefusalCode.UNKNOWN_SCAN,
                "scan_id",
                "no scan of this id is remembered",
                "ask soon after the scan; gateway.recent_entries says how many are kept",
            )
        ),
    },
}

_PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"

LIST_RESPONSES: Responses = {
    200: {
        "model": ListBody,
        "description": "The list. The ETag header is its version.",
        "headers": {"ETag": {"schema": {"type": "string"}}},
        "content": _content(
            own={
                "format": "fediwarden-list/1",
                "name": "own",
                "version": "5c85955f7092",
                "reason": "rejected here before",
                "responsible": "admin@fediwarden.example",
                "origin": "our own decisions",
                "fetched_at": 1795438800000,
                "expires_at": 1826974800000,
                "counts": {"pdq": 1},
                "hashes": {"pdq": [_PDQ], "sha256": [], "md5": []},
                "provenance": {
                    _PDQ: {"by": "policy", "at": 1795438800000, "rules": ["sexual"], "policy": "5d1c2f0e9b7a4c33"}
                },
            }
        ),
    },
    304: {"description": "The reader's version (If-None-Match) is the newest."},
    401: {
        "model": ErrorBody,
        "description": "No token, or another.",
        "content": _content(
            unknown_key=_error(
                RefusalCode.UNKNOWN_KEY,
                "authorization",
                "lists are for those who have the readers' token",
                "send 'Authorization: Bearer <token>', the other side's gateway.lists.reader_token",
            )
        ),
    },
    404: {
        "model": ErrorBody,
        "description": "No such list is shared.",
        "content": _content(
            unknown_list=_error(
                RefusalCode.UNKNOWN_LIST,
                "name",
                "no list 'own' is shared here",
                "gateway.lists.shared names what is shared",
            )
        ),
    },
    503: {
        "model": ErrorBody,
        "description": "The list cannot be read.",
        "content": _content(
            internal=_error(RefusalCode.INTERNAL, "", "the list cannot be read", "the gateway's log says why")
        ),
    },
}

PDQ_RESPONSES: Responses = {
    200: {
        "model": PdqBody,
        "description": "The hash.",
        "content": _content(hash={"pdq_hash_binary": f"{int(_PDQ, 16):0256b}", "quality": 100}),
    },
    400: {
        "model": ErrorBody,
        "description": "No address, or one that is not fetched from.",
        "content": _content(
            url_not_allowed=_error(
                RefusalCode.URL_NOT_ALLOWED,
                "image_url",
                "it leads into a network that is not public; gateway.fetch.networks allows some",
                "give a public http(s) address",
            )
        ),
    },
    401: _REFUSALS[401],
    403: {
        "model": ErrorBody,
        "description": "Fetching is off, or the client's network is not allowed.",
        "content": _content(
            fetching_off=_error(
                RefusalCode.FETCHING_OFF,
                "",
                "this gateway fetches nothing",
                "set gateway.fetch.enabled, once you have read what docs/security.md says of it",
            )
        ),
    },
    408: _REFUSALS[408],
    413: _REFUSALS[413],
    422: {
        "model": ErrorBody,
        "description": "The address gives no image.",
        "content": _content(
            url_not_fetched=_error(
                RefusalCode.URL_NOT_FETCHED, "image_url", "the other side answered 404", "is it there, and public?"
            )
        ),
    },
    429: {
        "model": ErrorBody,
        "description": "Too many at a time.",
        "content": _content(
            too_many_fetches=_error(
                RefusalCode.TOO_MANY_FETCHES,
                "",
                "as many images are being fetched as may be at a time",
                "try again in a moment; gateway.fetch.at_a_time is the bound",
            )
        ),
    },
    503: _REFUSALS[503],
}

READY_RESPONSES: Responses = {
    200: {"model": ReadinessBody, "description": "Ready."},
    503: {"model": ReadinessBody, "description": "A required part is not ready."},
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "The image's or video's bytes, with any Content-Type, or a form with one file.",
        "required": True,
        "content": {
            "image/*": _BINARY,
            "video/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    }
}


def path_parameter(name: str, description: str) -> dict[str, Any]:
    """One path parameter, as `openapi_extra` takes it."""
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}
        ]
    }


_IMAGE_URL = {
    "name": "image_url",
    "in": "query",
    "required": True,
    "description": "The image's address.",
    "schema": {"type": "string", "format": "uri"},
}
IMAGE_URL: dict[str, Any] = {"parameters": [_IMAGE_URL]}
KEY_AND_IMAGE_URL: dict[str, Any] = {
    "parameters": [*path_parameter("key", "The tenant's key, or IPADDR.")["parameters"], _IMAGE_URL]
}

PREFER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "description": "respond-async: do not wait, judge it behind all that somebody waits for.",
            "schema": {"type": "string", "enum": ["respond-async"]},
        }
    ]
}

READER: dict[str, Any] = {"security": [{"readerToken": []}]}
"""The token with which others read the lists that are shared."""

BEARER: dict[str, Any] = {"security": [{"tenantKey": []}, {}]}
"""A tenant's key as bearer token, or none from the tenant's networks."""

SECURITY_SCHEMES: dict[str, Any] = {
    "tenantKey": {"type": "http", "scheme": "bearer", "description": "The tenant's key."},
    "readerToken": {"type": "http", "scheme": "bearer", "description": "gateway.lists.reader_token."},
}
