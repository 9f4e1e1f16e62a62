"""Rescans for tests: a job, what it judged, and the verdicts around it, as records of their topics."""

from dataclasses import dataclass, field

from fediwarden.rescan.outcome import Image, Outcome, Tally
from gateway.overrides.memory import Overrides
from schemas.broker import Received
from schemas.messages import (
    Decision,
    OverrideSet,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanState,
    RescanTier,
    RuleFired,
    Stage,
    Verdict,
)
from schemas.topics import OVERRIDES, RESCANS, VERDICTS
from tests.unit.schemas import samples

ACCEPT, REVIEW, REJECT = Decision.ACCEPT, Decision.REVIEW, Decision.REJECT
ORDERED_AT = 1_795_000_000_000
UNTIL = ORDERED_AT - 1
JUDGED_AT = ORDERED_AT + 60_000
RESCAN = "20261128-171251-ab12"


def sha(image: int) -> bytes:
    return bytes([image]) * 32


def job(
    tier: RescanTier = RescanTier.SCORES, state: RescanState = RescanState.FINISHED, **more: object
) -> RescanOrdered:
    fields = {
        "rescan": RESCAN,
        "tier": tier,
        "state": state,
        "since": ORDERED_AT - 3_600_000,
        "until": UNTIL,
        "spans": (),
        "ordered_at": ORDERED_AT,
        "changed_at": ORDERED_AT,
    }
    return RescanOrdered.model_validate(fields | more)


def live(image: int, decision: Decision, **more: object) -> Verdict:
    rules = () if decision is ACCEPT else (RuleFired(name="old", decision=decision, frame=0),)
    fields = {
        "scan_id": f"scan-{image}",
        "sha256": sha(image),
        "decision": decision,
        "rules": rules,
        "scores": {"m/nsfw": 0.25, "m/gore": 0.5},
        "models": {"m": "m:1"},
        "policy": "p:1",
        "judged_at": ORDERED_AT - 1_000,
    }
    return samples.verdict(**(fields | more))


def again(image: int, after: Decision | None, *, at: int, **more: object) -> Rejudged:
    rules = () if after in (ACCEPT, None) else (RuleFired(name="new", decision=after, frame=0),)
    fields = {
        "offset": at,
        "scan_id": f"scan-{image}",
        "tenant": "default",
        "sha256": sha(image),
        "after": after,
        "rules": rules,
        "policy": "p:2",
    }
    return Rejudged.model_validate(fields | more)


@dataclass
class Log:
    """What stands in one partition of verdicts, and a tally that has read it."""

    tally: Tally
    records: list[Received] = field(default_factory=list)

    def add(self, *verdicts: Verdict, timestamp: int = UNTIL) -> None:
        for each in verdicts:
            record = Received(VERDICTS, 0, len(self.records), timestamp, each.sha256, each, None, 1)
            self.records.append(record)
            self.tally.take_verdict(record)

    def image(self, number: int) -> Image:
        return self.tally.images["default", sha(number)]

    def verdict_at(self, offset: int) -> Verdict:
        message = self.records[offset].message
        assert isinstance(message, Verdict)
        return message

    def outcome(self) -> Outcome:
        return self.tally.outcome()


def refuses(tenant: str, decision: Decision) -> bool:
    return decision is REJECT


def judged(*images: Rejudged, of: RescanOrdered | None = None, overrides: tuple[OverrideSet, ...] = ()) -> Log:
    """A log whose tally has read that a rescan judged these images."""
    given = of or job()
    known = Overrides()
    for each in overrides:
        known.observe(Received(OVERRIDES, 0, 0, 0, each.override_id.encode(), each, None, 1))
    tally = Tally(given, known, refuses=refuses)
    message = RescanJudged(
        rescan=given.rescan,
        topic="verdicts",
        partition=0,
        begin=0,
        end=100,
        models={"m": "m:2"},
        images=images,
        judged_at=JUDGED_AT,
    )
    tally.take_judged(Received(RESCANS, 0, 0, 0, b"", message, None, 1))
    return Log(tally)


def rescan_stage(verdict: Verdict, **changes: object) -> Verdict:
    return verdict.model_copy(update={"stage": Stage.RESCAN, "rescan": RESCAN, **changes})
