"""The ledger: every answer of a time range, and what became of the images that were let through or refused unjudged.

It is drawn up from four topics in two passes: first `answers`, then what followed them (`verdicts`, `images.dead`,
`enforcements`), read up to now. Only the unjudged are kept one by one; every other request costs eight bytes.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from fediwarden.scan_ids import HIGHEST_CODE, ScanIds
from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.clock import now_ms
from schemas.messages import (
    AnsweredBy,
    AnswerGiven,
    Decision,
    EnforcementOutcome,
    EnforcementReported,
    ImageFailed,
    Message,
    Stage,
    Verdict,
)
from schemas.topics import ANSWERS, ENFORCEMENTS, IMAGES_DEAD, VERDICTS

UNJUDGED = (AnsweredBy.DEADLINE, AnsweredBy.OVERLOAD, AnsweredBy.SPOOLED)
"""How an answer came about that says nothing about the image: the tenant's policy spoke, the image is judged later."""

CLOCKS_APART_MS = 5_000
"""How far the clocks of gateways, scanners and enforcers may be apart before the ledger takes one event for another."""

_READ_FROM_MS = 600_000  # as early as the longest deadline: an image may be judged before its own answer is given
_PENDING = 1 << 16
_KEPT_APART = 0  # the lowest: where the entries of one scan id differ, the unjudged one counts
_OTHERS = tuple(
    (answered_by, accepted) for answered_by in AnsweredBy if answered_by not in UNJUDGED for accepted in (True, False)
)
_CODES = {each: code for code, each in enumerate(_OTHERS, _KEPT_APART + 1)}
_COVERS = HIGHEST_CODE  # no request of the range, but a scan id that has an answer
_STRICTNESS = {Decision.ACCEPT: 0, Decision.REVIEW: 1, Decision.REJECT: 2}


class Removal(StrEnum):
    """What the enforcer has made of a rejected image that was answered unjudged."""

    REMOVED = "removed"
    WOULD_REMOVE = "would_remove"
    ABSENT = "absent"
    ALLOWED = "allowed"
    """An override keeps the image, whatever the verdict says."""
    FAILING = "failing"
    """The latest look failed: whether the image is still stored is not known."""
    LOOKING = "looking"
    """A look has succeeded, and the last is still to come: pict-rs may have been storing the image."""
    WAITING = "waiting"
    """The tenant has a pict-rs, and nobody has looked yet."""
    NOT_LOOKED_AT = "not_looked_at"
    """The tenant has no pict-rs that the enforcer may ask."""


UNCONFIRMED = (Removal.FAILING, Removal.LOOKING, Removal.WAITING)
"""Where the enforcer still has something to do; nothing else stays open."""

_FOUND = {
    EnforcementOutcome.ABSENT: Removal.ABSENT,
    EnforcementOutcome.ALLOWED: Removal.ALLOWED,
    EnforcementOutcome.WOULD_REMOVE: Removal.WOULD_REMOVE,
    EnforcementOutcome.REMOVED: Removal.REMOVED,
}
_WEIGHT = {removal: weight for weight, removal in enumerate(_FOUND.values())}


@dataclass(frozen=True, slots=True)
class Period:
    """Which requests: those answered from `since_ms` until before `until_ms`, of one tenant or ("") of all."""

    since_ms: int
    until_ms: int
    tenant: str = ""

    def holds(self, at_ms: int) -> bool:
        """Whether this moment lies in it."""
        return self.since_ms <= at_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class House:
    """What the ledger must know of the settings.

    `refuses` says whether a tenant refuses images of a decision; `enforced` are the tenants whose pict-rs the enforcer
    may ask; `in_flight_ms` is how long after its arrival a request may go without an entry in `answers`.
    """

    refuses: Callable[[str, Decision], bool] = lambda tenant, decision: decision is Decision.REJECT
    enforced: frozenset[str] = frozenset()
    in_flight_ms: int = 0


@dataclass(slots=True, eq=False)
class Unjudged:
    """One request that was answered without a judgement, and what is known of its image since.

    `judged_at` is the earliest verdict's time, `decision` the strictest; `refused_at` is when the first verdict came
    that the tenant refuses. `dead` is the reason in images.dead. `found` is the gravest of what the enforcer's looks
    found, and `settled` says that the last of them has succeeded.
    """

    scan_id: str
    tenant: str
    sha256: bytes
    answered_by: AnsweredBy
    accepted: bool
    reason: str
    answered_at: int
    arrived_at: int
    carrier: str
    judged_at: int | None = None
    decision: Decision | None = None
    refused_at: int | None = None
    dead: str | None = None
    found: Removal | None = None
    failing: bool = False
    settled: bool = False
    looked_at: int = 0

    @property
    def is_open(self) -> bool:
        """Whether there is neither a verdict nor a reason why there will be none."""
        return self.judged_at is None and self.dead is None

    @property
    def judged_after_ms(self) -> int:
        """Milliseconds from the answer to the first verdict, 0 where that was under way already."""
        return max(0, (self.judged_at or 0) - self.answered_at)

    def removal(self, enforced: frozenset[str]) -> Removal:
        """Where the removal stands; of a request whose image is refused now."""
        if self.failing:
            return Removal.FAILING
        if self.found is not None:
            return self.found if self.settled else Removal.LOOKING
        return Removal.WAITING if self.tenant in enforced else Removal.NOT_LOOKED_AT

    def follows(self, at_ms: int) -> bool:
        """Whether something of `at_ms` can have come about after this request arrived."""
        return at_ms >= self.arrived_at - CLOCKS_APART_MS

    def take_verdict(self, verdict: Verdict, *, refused: bool) -> None:
        """Note a judgement of this image, or of the same bytes since the request arrived."""
        if not self._is_ours(verdict):
            return
        self.judged_at = verdict.judged_at if self.judged_at is None else min(self.judged_at, verdict.judged_at)
        if self.decision is None or _STRICTNESS[verdict.decision] > _STRICTNESS[self.decision]:
            self.decision = verdict.decision
        if refused:
            self.refused_at = verdict.judged_at if self.refused_at is None else min(self.refused_at, verdict.judged_at)

    def take_look(self, report: EnforcementReported) -> None:
        """Note what the enforcer found since the request arrived."""
        if not self.follows(report.enforced_at):
            return
        if report.enforced_at >= self.looked_at:
            self.looked_at, self.failing = report.enforced_at, report.outcome is EnforcementOutcome.FAILED
        is_last = report.final and report.outcome is not EnforcementOutcome.FAILED
        # Looks for an upload of the same bytes before this one may end while pict-rs is still storing this one.
        self.settled = self.settled or (is_last and self._is_ours(report))
        removal = _FOUND.get(report.outcome)
        if removal is not None and (self.found is None or _WEIGHT[removal] > _WEIGHT[self.found]):
            self.found = removal

    def _is_ours(self, judged: Verdict | EnforcementReported) -> bool:
        """Whether it is about a judgement of this image, or of the same bytes since the request arrived."""
        return judged.scan_id == self.carrier or self.follows(judged.judged_at)


@dataclass(slots=True)
class Count:
    """Requests by what the client was told."""

    accepted: int = 0
    refused: int = 0

    @property
    def all(self) -> int:
        """Both."""
        return self.accepted + self.refused


@dataclass(frozen=True, slots=True)
class Statement:
    """What the ledger says of a period, as of `read_at`.

    Each request is counted once in `answered`. Those of `UNJUDGED` are in `unjudged`, each of them in exactly one of
    `judged`, `dead` and `open`. `judged_without_answer` are scans, not requests: their verdicts came, and no answer is
    recorded. `unreadable` counts records that could not be read, by topic; `dead_unnamed` counts entries of images.dead
    that cannot say which image they are about.
    """

    period: Period
    read_at: int
    answered: dict[AnsweredBy, Count]
    unjudged: list[Unjudged]
    judged: list[Unjudged]
    dead: list[Unjudged]
    open: list[Unjudged]
    removals: dict[Removal, list[Unjudged]]
    judged_without_answer: int
    unreadable: dict[str, int]
    dead_unnamed: int

    @property
    def requests(self) -> int:
        """Requests of the period."""
        return sum(count.all for count in self.answered.values())

    @property
    def rejected(self) -> list[Unjudged]:
        """Those judged later whose tenant refuses what the verdict says."""
        return [each for each in self.judged if each.refused_at is not None]

    @property
    def unconfirmed(self) -> list[Unjudged]:
        """Those rejected later that the enforcer has to remove, and whose last look has not yet succeeded."""
        return [each for removal in UNCONFIRMED for each in self.removals[removal]]

    def overdue(self, after_ms: int) -> list[Unjudged]:
        """What is open, or rejected and not confirmed as removed, for more than `after_ms`; the oldest first."""
        open_ = [(each.answered_at, each) for each in self.open]
        unconfirmed = [(each.refused_at or 0, each) for each in self.unconfirmed]
        late = [pair for pair in open_ + unconfirmed if self.read_at - pair[0] > after_ms]
        return [each for _, each in sorted(late, key=lambda pair: pair[0])]


class Tally:
    """Adds up records: all of `answers` by `take_answer`, then `close_answers`, then the others by `take_outcome`."""

    def __init__(self, period: Period, house: House, *, read_at: int) -> None:
        self._period = period
        self._house = house
        self._read_at = read_at
        self._ids = ScanIds()
        self._unjudged: dict[str, Unjudged] = {}
        self._by_image: dict[tuple[str, bytes], list[Unjudged]] = {}
        self._dead: dict[str, str] = {}
        self._dead_unnamed = 0
        self._unreadable: Counter[str] = Counter()
        self._verdicts: list[str] = []
        self._without_answer: set[int] = set()

    def take_answer(self, received: Received) -> None:
        """Take in one record of `answers`."""
        answer = self._message_of(received, AnswerGiven)
        if not isinstance(answer, AnswerGiven) or not self._concerns(answer.tenant):
            return
        arrived_at = answer.answered_at - int(answer.milliseconds)
        if arrived_at >= self._period.until_ms + CLOCKS_APART_MS:
            return  # written since; no verdict of the period can be this request's
        if answer.carried_by not in ("", answer.scan_id):
            self._ids.add(answer.carried_by, _COVERS)
        if not self._period.holds(answer.answered_at):
            self._ids.add(answer.scan_id, _COVERS)
        elif answer.answered_by in UNJUDGED:
            self._ids.add(answer.scan_id, _KEPT_APART)
            self._keep(answer, arrived_at)
        else:
            self._ids.add(answer.scan_id, _CODES[answer.answered_by, _was_accepted(answer)])

    def close_answers(self) -> None:
        """All answers were taken in."""
        self._ids.close()

    def take_outcome(self, received: Received) -> None:
        """Take in one record of `verdicts`, `images.dead` or `enforcements`."""
        match self._message_of(received, Verdict, ImageFailed, EnforcementReported):
            case Verdict(stage=Stage.RESCAN):
                pass  # it judges again what was judged, and says nothing about how a request was answered
            case Verdict() as verdict if self._concerns(verdict.tenant):
                refused = self._house.refuses(verdict.tenant, verdict.decision)
                for each in self._by_image.get((verdict.tenant, verdict.sha256), ()):
                    each.take_verdict(verdict, refused=refused)
                self._match_answer(verdict)
            case ImageFailed(tenant="") | ImageFailed(sha256=b""):
                self._dead_unnamed += 1
            case ImageFailed() as failed if self._concerns(failed.tenant):
                self._dead.setdefault(failed.scan_id, failed.reason)
            case EnforcementReported() as report:
                for each in self._by_image.get((report.tenant, report.sha256), ()):
                    each.take_look(report)

    def statement(self) -> Statement:
        """What all of it comes to."""
        self._match_pending()
        answered = {answered_by: Count() for answered_by in AnsweredBy}
        for code, count in self._ids.count().items():
            if _KEPT_APART < code < _COVERS:
                answered_by, accepted = _OTHERS[code - 1]
                _add(answered[answered_by], count, accepted=accepted)
        unjudged = sorted(self._unjudged.values(), key=lambda each: each.answered_at)
        for each in unjudged:
            _add(answered[each.answered_by], 1, accepted=each.accepted)
            each.dead = self._dead.get(each.carrier)
        removals: dict[Removal, list[Unjudged]] = {removal: [] for removal in Removal}
        judged = [each for each in unjudged if each.judged_at is not None]
        for each in judged:
            if each.refused_at is not None:
                removals[each.removal(self._house.enforced)].append(each)
        return Statement(
            period=self._period,
            read_at=self._read_at,
            answered=answered,
            unjudged=unjudged,
            judged=judged,
            dead=[each for each in unjudged if each.judged_at is None and each.dead is not None],
            open=[each for each in unjudged if each.is_open],
            removals=removals,
            judged_without_answer=len(self._without_answer),
            unreadable=dict(sorted(self._unreadable.items())),
            dead_unnamed=self._dead_unnamed,
        )

    def _message_of(self, received: Received, *expected: type[Message]) -> Message | None:
        """The record's message; None for tombstones, and counted as unreadable what is no message of the topic's."""
        if isinstance(received.message, expected):
            return received.message
        if received.message is not None or received.fault is not None:
            self._unreadable[received.topic.name] += 1
        return None

    def _concerns(self, tenant: str) -> bool:
        return self._period.tenant in ("", tenant)

    def _keep(self, answer: AnswerGiven, arrived_at: int) -> None:
        if answer.scan_id in self._unjudged:
            return  # written twice
        entry = Unjudged(
            scan_id=answer.scan_id,
            tenant=sys.intern(answer.tenant),
            sha256=answer.sha256,
            answered_by=answer.answered_by,
            accepted=_was_accepted(answer),
            reason=sys.intern(answer.reason),
            answered_at=answer.answered_at,
            arrived_at=arrived_at,
            carrier=answer.scan_id if answer.carried_by in ("", answer.scan_id) else answer.carried_by,
        )
        self._unjudged[answer.scan_id] = entry
        self._by_image.setdefault((entry.tenant, answer.sha256), []).append(entry)

    def _match_answer(self, verdict: Verdict) -> None:
        """Note a verdict of the period whose request must have its answer recorded by now."""
        if self._period.holds(verdict.received_at) and verdict.received_at < self._read_at - self._house.in_flight_ms:
            self._verdicts.append(verdict.scan_id)
            if len(self._verdicts) >= _PENDING:
                self._match_pending()

    def _match_pending(self) -> None:
        self._without_answer |= self._ids.find_missing(self._verdicts)
        self._verdicts.clear()


def _was_accepted(answer: AnswerGiven) -> bool:
    """What the client was told; of an older entry that does not say, as status and decision have it."""
    if answer.accepted is not None:
        return answer.accepted
    return answer.status < 400 and answer.decision is not Decision.REJECT


def _add(count: Count, number: int, *, accepted: bool) -> None:
    if accepted:
        count.accepted += number
    else:
        count.refused += number


async def read_statement(
    settings: BrokerSettings,
    period: Period,
    house: House,
    *,
    on_progress: Callable[[str, int, int], None] = lambda what, passed, of: None,
) -> Statement:
    """The statement of `period` as the topics have it now. `on_progress` gets what is read, records passed, and of all.

    Raises `BrokerUnavailable`, `BrokerRefused`, or `TopicsNotReady` where one of the four topics is missing.
    """
    await check_topics(settings, (ANSWERS, VERDICTS, IMAGES_DEAD, ENFORCEMENTS))
    tally = Tally(period, house, read_at=now_ms())
    read = partial(
        read_history, settings, since_ms=max(0, period.since_ms - _READ_FROM_MS), client_id="fediwarden-ledger"
    )
    await read((ANSWERS,), on_record=tally.take_answer, on_progress=partial(on_progress, "answers"))
    tally.close_answers()
    await read(
        (VERDICTS, IMAGES_DEAD, ENFORCEMENTS),
        on_record=tally.take_outcome,
        on_progress=partial(on_progress, "verdicts"),
    )
    return tally.statement()
