"""What a scan came to, as a pict-rs status, as JSON and as the ledger's entry."""

import math
from dataclasses import dataclass

import orjson

from gateway.recognition import Recognised
from gateway.refusals import Refusal, RefusalCode
from gateway.replies import Reply
from gateway.settings import TenantSettings
from gateway.verdicts import Judgement
from schemas.messages import AnsweredBy, AnswerGiven, Decision

ACCEPTED = 200
HANDED_OVER = 202
REJECTED = 406
UNREADABLE = 422


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's answer.

    `decision` is the policy's (or, without a verdict, the tenant's); `accepted` is what the tenant makes of it and what
    pict-rs is told. `carried_by` is the scan id under which the image was published: another request's where
    the same bytes were in flight already, "" where nothing was published. `recognised` is the list that has the image,
    whatever came of that. `milliseconds` count from the arrival.
    """

    scan_id: str
    tenant: str
    sha256: bytes
    length: int
    media_type: str
    decision: Decision
    accepted: bool
    answered_by: AnsweredBy
    reason: str
    judgement: Judgement | None
    recognised: Recognised | None
    carried_by: str
    answered_at: int
    milliseconds: float


@dataclass(slots=True)
class Waiting:
    """An image that waits to be judged behind all others, for one who did not wait: no answer yet.

    `unjudgeable` says why there will be no verdict, once that is known.
    """

    scan_id: str
    tenant: str
    sha256: bytes
    unjudgeable: str = ""


def is_accepted(decision: Decision, tenant: TenantSettings) -> bool:
    """What `tenant` makes of `decision`."""
    if decision is Decision.REVIEW:
        return tenant.on_review == "accept"
    return decision is Decision.ACCEPT


def pict_rs_status(answer: Answer) -> int:
    """The status pict-rs is answered with: it keeps the image on 2xx only."""
    return ACCEPTED if answer.accepted else REJECTED


def json_status(answer: Answer) -> int:
    """The status of the JSON API: the decision is in the body, only what is no image is an error."""
    return UNREADABLE if answer.answered_by is AnsweredBy.UNREADABLE else ACCEPTED


def answer_reply(answer: Answer, status: int) -> Reply:
    """The answer as JSON with the X-Fediwarden headers. With status 422 the error stands beside it."""
    fields = _fields(answer)
    if status == UNREADABLE:
        fields["error"] = {
            "code": RefusalCode.NOT_AN_IMAGE,
            "field": "body",
            "message": f"the body cannot be read as an image ({answer.reason})",
            "remedy": "send a jpeg, png, apng, webp, gif, avif, jxl, mp4 or webm file that opens elsewhere",
        }
    return Reply(status, orjson.dumps(fields), _headers(answer))


def waiting_reply(waiting: Waiting) -> Reply:
    """Where its verdict can be asked for."""
    headers = (
        (b"location", f"/v1/scans/{waiting.scan_id}".encode("ascii")),
        (b"preference-applied", b"respond-async"),
        (b"x-fediwarden-scan-id", waiting.scan_id.encode("ascii")),
    )
    return Reply(HANDED_OVER, orjson.dumps({"scan_id": waiting.scan_id, "sha256": waiting.sha256.hex()}), headers)


def report_reply(scan_id: str, answer: Answer | Waiting | None, judgement: Judgement | None) -> Reply:
    """What is known about one scan: its answer (None: another gateway gave it) and its verdict (None: not yet)."""
    sha256 = answer.sha256 if answer is not None else judgement.sha256 if judgement is not None else b""
    verdict = None
    if judgement is not None:
        verdict = {
            "decision": judgement.decision,
            "rules": orjson.Fragment(judgement.rules),
            "scores": orjson.Fragment(judgement.scores),
            "models": dict(judgement.judge.models),
            "policy": judgement.judge.policy,
            "judged_at": judgement.judged_at,
        }
    report = {
        "scan_id": scan_id,
        "sha256": sha256.hex(),
        "answer": _fields(answer) if isinstance(answer, Answer) else None,
        "verdict": verdict,
        "unjudgeable": answer.unjudgeable if isinstance(answer, Waiting) else "",
    }
    return Reply(200, orjson.dumps(report))


def refusal_reply(refusal: Refusal, *, body_unread: bool) -> Reply:
    """A typed error: ``{"error": {"code", "field", "message", "remedy"}}``."""
    error = {
        "code": refusal.code,
        "field": refusal.field,
        "message": refusal.message,
        "remedy": refusal.remedy,
    }
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if refusal.status == 401:
        headers = ((b"www-authenticate", b"Bearer"),)
    elif refusal.status in (429, 503):
        headers = ((b"retry-after", b"%d" % math.ceil(refusal.retry_after_s)),)
    return Reply(refusal.status, orjson.dumps({"error": error}), headers, body_unread=body_unread)


def ledger_entry(answer: Answer, *, status: int, gateway: str) -> AnswerGiven:
    """The message that records `answer` in the topic answers."""
    return AnswerGiven(
        scan_id=answer.scan_id,
        tenant=answer.tenant,
        sha256=answer.sha256,
        status=status,
        decision=answer.decision,
        answered_by=answer.answered_by,
        reason=answer.reason,
        length=answer.length,
        media_type=answer.media_type,
        answered_at=answer.answered_at,
        milliseconds=answer.milliseconds,
        gateway=gateway,
        accepted=answer.accepted,
        carried_by=answer.carried_by,
    )


def rules_of(answer: Answer) -> list[dict[str, object]]:
    """What the answer rests on: the rules of the policy that fired, and the list that has the image."""
    rules: list[dict[str, object]] = orjson.loads(answer.judgement.rules) if answer.judgement is not None else []
    return rules if answer.recognised is None else [*rules, answer.recognised.rule.model_dump(mode="json")]


def _fields(answer: Answer) -> dict[str, object]:
    judgement = answer.judgement
    return {
        "scan_id": answer.scan_id,
        "sha256": answer.sha256.hex(),
        "decision": answer.decision,
        "accepted": answer.accepted,
        "answered_by": answer.answered_by,
        "reason": answer.reason,
        "media_type": answer.media_type,
        "rules": rules_of(answer),
        "scores": orjson.Fragment(judgement.scores) if judgement is not None else {},
        "hash_list": answer.recognised.hash_list if answer.recognised is not None else "",
        "milliseconds": round(answer.milliseconds, 2),
    }


def _headers(answer: Answer) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-fediwarden-scan-id", answer.scan_id.encode("ascii")),
        (b"x-fediwarden-decision", answer.decision.value.encode("ascii")),
        (b"x-fediwarden-answered-by", answer.answered_by.value.encode("ascii")),
    )
