"""Whether this gateway can do its whole work, part by part."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from gateway.replies import Reply


@dataclass(frozen=True, slots=True)
class Part:
    """One thing the gateway needs. Only a `required` part that is not `ok` makes the gateway unready."""

    name: str
    required: bool
    ok: bool
    detail: str


def readiness_reply(parts: Sequence[Part]) -> Reply:
    """200 when every required part is well, else 503; the parts either way."""
    ready = all(part.ok for part in parts if part.required)
    body = {
        "ready": ready,
        "parts": {part.name: {"ok": part.ok, "required": part.required, "detail": part.detail} for part in parts},
    }
    return Reply(200 if ready else 503, orjson.dumps(body))
