"""What stands in the topics and in pict-rs's store after a fault, held against the driver's own record."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from schemas.broker import BrokerSettings, Received, Tail
from schemas.messages import AnswerGiven, Decision, ImageFailed, Verdict
from schemas.topics import ANSWERS, IMAGES_DEAD, VERDICTS
from tests.faults.driver import Kind, Request, Way

UNJUDGED = frozenset({"deadline", "overload", "spooled"})
_ACCEPTED = 200
_REFUSED = 406
_NO_MORE = 5


@dataclass(slots=True)
class Evidence:
    """Records by the sha256 of their image."""

    answers: dict[bytes, list[AnswerGiven]] = field(default_factory=lambda: defaultdict(list))
    verdicts: dict[bytes, list[Verdict]] = field(default_factory=lambda: defaultdict(list))
    dead: dict[bytes, list[ImageFailed]] = field(default_factory=lambda: defaultdict(list))
    unreadable: int = 0

    def take(self, received: Received) -> None:
        """Sort in one record."""
        message = received.message
        match message:
            case AnswerGiven():
                self.answers[message.sha256].append(message)
            case Verdict():
                self.verdicts[message.sha256].append(message)
            case ImageFailed():
                self.dead[message.sha256].append(message)
            case _:
                self.unreadable += 1

    def judged(self, sha256: bytes) -> bool:
        """Whether the image came to an end: a verdict, or a dead letter that says why there is none."""
        return sha256 in self.verdicts or sha256 in self.dead


def read_evidence(kafka: BrokerSettings, *, since_s: float) -> Evidence:
    """What the topics hold of the last `since_s` seconds, read anew."""
    evidence = Evidence()

    async def read() -> None:
        topics = [ANSWERS, VERDICTS, IMAGES_DEAD]
        async with Tail(kafka, topics, since_s=since_s, on_record=evidence.take, client_id="fault-tests") as tail:
            await tail.wait_positioned()

    asyncio.run(read())
    return evidence


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one fault came to, for docs/reliability.md.

    `answered` counts by the ledger's words; `refused` are errors that a client was told (503 and the like),
    `unanswered` requests whose client heard nothing. `judged_late_s` is the longest time from an unjudged answer to its
    verdict. `let_in` are rejecting images that pict-rs kept for a while; `removed` those of them that are gone.
    """

    requests: int
    answered: dict[str, int]
    refused: int
    unanswered: int
    judged_late: int
    judged_late_s: float
    dead: int
    let_in: int
    removed: int
    lost: int
    slowest_s: float


def count(requests: Sequence[Request], evidence: Evidence, stored: Collection[bytes]) -> Numbers:
    """The numbers of `requests`."""
    answers = {
        request.sha256: evidence.answers[request.sha256][0] for request in requests if _recorded(request, evidence)
    }
    late = [
        (evidence.verdicts[sha256][0].judged_at - answer.answered_at) / 1000
        for sha256, answer in answers.items()
        if answer.answered_by in UNJUDGED and sha256 in evidence.verdicts
    ]
    let_in = [request.sha256 for request in requests if request.stored and request.kind is Kind.BAD]
    direct = [request for request in requests if request.way is Way.DIRECT]
    return Numbers(
        requests=len(requests),
        answered=dict(Counter(str(answer.answered_by) for answer in answers.values())),
        refused=sum(request.failed and not request.fault for request in requests),
        unanswered=sum(bool(request.fault) for request in requests),
        judged_late=len(late),
        judged_late_s=round(max(late, default=0.0), 1),
        dead=sum(request.sha256 in evidence.dead for request in requests),
        let_in=len(let_in),
        removed=sum(sha256 not in stored for sha256 in let_in),
        lost=len(find_lost(requests, evidence)),
        slowest_s=round(max((request.took_s for request in direct if request.status), default=0.0), 2),
    )


def find_lost(requests: Iterable[Request], evidence: Evidence) -> list[Request]:
    """Images that a gateway answered for and that came to no end."""
    return [
        request
        for request in requests
        if (request.answered or _recorded(request, evidence)) and not evidence.judged(request.sha256)
    ]


def find_open(requests: Sequence[Request], evidence: Evidence, stored: Collection[bytes]) -> list[str]:
    """What time may still mend, in sentences: images without an end, answers not recorded, bad images in the store."""
    lost = find_lost(requests, evidence)
    unrecorded = [request for request in requests if request.answered and not _recorded(request, evidence)]
    kept = [
        request
        for request in requests
        if request.kind is Kind.BAD and request.sha256 in stored and request.sha256 not in evidence.dead
    ]
    return [
        *_say("answered, but never judged", lost),
        *_say("answered, but not in the topic answers", unrecorded),
        *_say("to be rejected, but still in pict-rs", kept),
    ]


def find_wrongs(
    requests: Sequence[Request], evidence: Evidence, stored: Collection[bytes], deadline_s: float
) -> list[str]:
    """What no time mends, in sentences: late, untrue or missing answers, wrong verdicts, innocent images removed."""
    slow = [each for each in requests if each.way is Way.DIRECT and each.took_s > deadline_s]
    untrue = [each for each in requests if each.scan_id and _recorded(each, evidence) and not _agrees(each, evidence)]
    misjudged = [
        each
        for each in requests
        for verdict in evidence.verdicts.get(each.sha256, ())
        if (verdict.decision is Decision.REJECT) is not (each.kind is Kind.BAD)
    ]
    told = {"verdict", "known"}
    misled = [
        each
        for each in requests
        if each.answered_by in told and each.status != (_REFUSED if each.kind is Kind.BAD else _ACCEPTED)
    ]
    removed = [each for each in requests if each.stored and each.kind is Kind.CLEAN and each.sha256 not in stored]
    return [
        *_say(f"answered later than {deadline_s} s", slow),
        *_say("recorded otherwise than answered", untrue),
        *_say("judged wrongly", misjudged),
        *_say("judged rightly, answered wrongly", misled),
        *_say("accepted and stored, but gone from pict-rs", removed),
        *([f"{evidence.unreadable} records that nobody can read"] if evidence.unreadable else []),
    ]


def find_failed(requests: Sequence[Request]) -> list[str]:
    """Requests that a client would call failed: no answer, or an error."""
    return _say("no answer, or an error", [each for each in requests if each.failed])


def _recorded(request: Request, evidence: Evidence) -> bool:
    entries = evidence.answers.get(request.sha256, ())
    return any(entry.scan_id == request.scan_id or not request.scan_id for entry in entries)


def _agrees(request: Request, evidence: Evidence) -> bool:
    return all(
        (entry.status, entry.answered_by.value) == (request.status, request.answered_by)
        for entry in evidence.answers[request.sha256]
        if entry.scan_id == request.scan_id
    )


def _say(what: str, requests: Sequence[Request]) -> list[str]:
    if not requests:
        return []
    shown = "; ".join(_describe(request) for request in requests[:_NO_MORE])
    return [f"{len(requests)} {what}: {shown}"]


def _describe(request: Request) -> str:
    told = request.fault or f"{request.status} {request.answered_by}".strip()
    sent = f"{request.kind} {request.way} at {request.sent_at:.2f}"
    return f"{request.sha256.hex()[:12]} {sent} ({told}, {request.took_s:.2f} s)"
