"""The way of one request through the gateway: room? - known? - an image on its way - its outcome, or the deadline's.

What is known goes by rank: a moderator's override, a known-hash list, a verdict of judges that are still there.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from structlog.contextvars import bind_contextvars

from gateway.answers import Answer, Waiting, is_accepted
from gateway.bodies import Body
from gateway.delivery import Delivery
from gateway.flights import Arrival, Flight, Flights, Outcome, Unjudged
from gateway.frames.frame import Unreadable
from gateway.ledger import Ledger
from gateway.metrics import Metrics
from gateway.overrides.memory import Overrides, explain
from gateway.rates import Rates
from gateway.recognition import Recognised, Recognition
from gateway.refusals import Refusal, RefusalCode
from gateway.settings import GatewaySettings
from gateway.tenants import Tenant
from gateway.verdicts import Judgement, Verdicts
from schemas.clock import now_ms
from schemas.messages import AnsweredBy, Decision, OverrideEffect, OverrideSet
from schemas.telemetry import tracing

_GRACE_S = 0.4
"""How long after the deadline a request waits for the disk that its image is being written to."""

_HANDED_OVER_WITHIN_S = 60.0
"""How long one that does not wait for the verdict waits until its image is in other hands."""


class Scans:
    """Every request of this gateway, from a body to an `Answer`.

    The same bytes of one tenant are sent on their way once, however many requests carry them. An image goes on to be
    judged after its request was answered without a verdict.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        flights: Flights,
        recognition: Recognition,
        delivery: Delivery,
        verdicts: Verdicts,
        overrides: Overrides,
        ledger: Ledger,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._flights = flights
        self._recognition = recognition
        self._delivery = delivery
        self._verdicts = verdicts
        self._overrides = overrides
        self._ledger = ledger
        self._deadline_s = settings.deadline_ms / 1000
        self._metrics = metrics
        self._rates = Rates()
        self._in_flight = 0
        self._over_rate = 0
        self._recent: OrderedDict[str, Answer | Waiting] = OrderedDict()
        self._unanswered: dict[tuple[str, bytes], str] = {}
        self._unhurried = asyncio.Lock()
        self._draining = False
        metrics.watch("in_flight", lambda: self._in_flight)

    @contextmanager
    def admit(self, tenant: Tenant, *, may_defer: bool) -> Iterator[bool]:
        """Hold a place for one request of `tenant`; yields whether it is over the tenant's rate, for `scan`.

        Raises `Refusal`: draining, full, or rate_limited. What is over its rate is taken where it `may_defer` to be
        judged later and the tenant lets unjudged images in; and so many at a time as leave others half of the looks.
        """
        if self._draining:
            raise Refusal(RefusalCode.DRAINING, "this gateway is stopping", remedy="try again, or another gateway")
        if self._in_flight >= self._settings.max_in_flight:
            raise _full("as many requests as it may take at one time", "gateway.max_in_flight")
        if self._flights.carried >= self._settings.max_in_flight:
            # Requests leave at their deadline, their images stay in hand: those must be bounded, too.
            raise _full("as many images as it may hold at one time", "gateway.max_in_flight")
        if not self._flights.can_look:
            raise _full("more images than it can look at in time", "the processor, with gateway.frames.workers,")
        if self._flights.unpublished_bytes >= self._settings.max_unpublished_bytes:
            raise _full("as many frames as it may keep in memory", "gateway.max_unpublished_bytes")
        if self._delivery.full:
            raise _full("as many frames as it may keep on disk while Kafka is away", "gateway.spool_max_bytes")
        if self._ledger.full:
            raise _full("as many answers as it may keep while Kafka is away", "gateway.ledger_entries")
        over_rate = self._is_over_rate(tenant, may_defer=may_defer)
        self._in_flight += 1
        self._over_rate += over_rate
        try:
            yield over_rate
        finally:
            self._in_flight -= 1
            self._over_rate -= over_rate

    def _is_over_rate(self, tenant: Tenant, *, may_defer: bool) -> bool:
        wait_s = self._rates.take(tenant)
        if not wait_s:
            return False
        if may_defer and tenant.settings.on_timeout == "accept":
            if self._over_rate >= max(1.0, self._flights.looks_at_once / 2):
                raise _full("as many images over their tenants' rates as it looks at beside others", "rate_limit")
            self._metrics.over_rate.labels(tenant.name, "deferred").inc()
            return True
        self._metrics.over_rate.labels(tenant.name, "refused").inc()
        raise Refusal(
            RefusalCode.RATE_LIMITED,
            f"the tenant posts more than {tenant.settings.rate_limit:g} images a second",
            remedy=f"post fewer, or raise tenants.{tenant.name}.rate_limit",
            retry_after_s=wait_s,
        )

    def drain(self) -> None:
        """Take no more requests."""
        self._draining = True

    async def scan(
        self, tenant: Tenant, body: Body, arrival: Arrival, *, unhurried: bool = False, over_rate: bool = False
    ) -> Answer | Waiting:
        """The answer for `body`, by the deadline. Takes `body` over and closes it. `over_rate` is what `admit` yields.

        Who is `unhurried` gets one where the image is known or cannot be read; else `Waiting` as soon as it waits in
        the backlog, behind all that somebody waits for, and may ask again.

        Raises `Refusal` when the image can be handed on to nobody: what is not going to be judged is not let in.
        """
        scan_id = _new_scan_id(arrival.at_ms)
        bind_contextvars(scan_id=scan_id)  # of the request's task, and of those that it starts: in their log lines
        with tracing.span("scan", kind="server", scan_id=scan_id) as span:
            span.set_attribute("fediwarden.body_ms", round(arrival.milliseconds, 2))
            span.set_attribute("fediwarden.bytes", body.length)
            answer = await self._answer(scan_id, tenant, body, arrival, unhurried=unhurried, over_rate=over_rate)
            if isinstance(answer, Waiting):
                span.set_attribute("fediwarden.answered_by", "waiting")
                return answer
            span.set_attribute("fediwarden.answered_by", answer.answered_by.value)
            span.set_attribute("fediwarden.decision", answer.decision.value)
            span.set_attribute("fediwarden.accepted", answer.accepted)
            if answer.carried_by not in ("", scan_id):
                span.set_attribute("fediwarden.carried_by", answer.carried_by)
        self._remember(answer)
        return answer

    async def _answer(
        self, scan_id: str, tenant: Tenant, body: Body, arrival: Arrival, *, unhurried: bool, over_rate: bool
    ) -> Answer | Waiting:
        sha256, length = body.sha256, body.length
        flight: Flight | None = None
        carried_by = ""
        outcome, recognised = await self._recall(tenant, body)
        if outcome is not None:
            answered_by = AnsweredBy.KNOWN
            if isinstance(outcome, Recognised):
                self._flights.declare(scan_id, tenant, body, arrival, outcome)
            body.close()
            # Of a verdict that was waited for by who was unhurried, this is the answer.
            carried_by = self._unanswered.pop((tenant.name, sha256), "")
        else:
            if unhurried:
                flight = await self._hand_over(scan_id, tenant, body, arrival, recognised)
                outcome = flight.outcome.result() if flight.outcome.done() else None
                if outcome is None or isinstance(outcome, Unjudged):
                    return self._note_waiting(flight)
            else:
                flight = self._flights.find(tenant, sha256)
                if flight is None:
                    flight = self._flights.launch(scan_id, tenant, body, arrival, recognised, over_rate=over_rate)
                else:
                    flight.unhurried = False
                    body.close()
                outcome = await self._await_outcome(flight, arrival)
            carried_by = "" if isinstance(outcome, OverrideSet) else flight.scan_id
            # One that was set while the image was on its way holds for it, too.
            outcome = self._overrides.of_bytes(tenant.name, sha256) or outcome
            answered_by = AnsweredBy.VERDICT
            recognised = None if isinstance(outcome, OverrideSet) else flight.recognised or recognised
        reason = ""
        match outcome:
            case Judgement():
                decision = outcome.decision
            case OverrideSet():
                decision = Decision.ACCEPT if outcome.effect is OverrideEffect.ALLOW else Decision.REJECT
                answered_by, reason = AnsweredBy.OVERRIDE, explain(outcome)
            case Recognised():
                decision, answered_by, reason = outcome.decision, outcome.by, outcome.reason
            case Unreadable():
                decision, answered_by = Decision(tenant.settings.on_unreadable), AnsweredBy.UNREADABLE
                reason = f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)
            case Refusal():
                raise outcome
            case Unjudged():
                decision, answered_by, reason = Decision(tenant.settings.on_timeout), outcome.by, outcome.reason
            case None:
                decision, answered_by = Decision(tenant.settings.on_timeout), AnsweredBy.DEADLINE
                reason = f"no verdict within {self._settings.deadline_ms} ms"
        if recognised is not None and not recognised.final and decision is Decision.ACCEPT:
            decision = recognised.decision
            reason = "; ".join(filter(None, (reason, recognised.reason)))
        return Answer(
            scan_id=scan_id,
            tenant=tenant.name,
            sha256=sha256,
            length=length,
            media_type=flight.media_type if flight is not None else "",
            decision=decision,
            accepted=is_accepted(decision, tenant.settings),
            answered_by=answered_by,
            reason=reason,
            judgement=outcome if isinstance(outcome, Judgement) else None,
            recognised=recognised,
            carried_by=carried_by,
            answered_at=now_ms(),
            milliseconds=arrival.milliseconds,
        )

    async def _recall(self, tenant: Tenant, body: Body) -> tuple[Outcome | None, Recognised | None]:
        """What is known of these bytes without a look at them, and the list that has them, whatever comes of that."""
        override = self._overrides.of_bytes(tenant.name, body.sha256)
        if override is not None:
            return override, None
        known = self._verdicts.known(tenant.name, body.sha256)
        if known is not None:
            override = self._overrides.of_looks(tenant.name, known.looks)
            if override is not None:
                return override, None
        recognised = self._recognition.by_bytes(body.sha256, body.md5)
        if known is not None and (recognised is None or not recognised.final):
            recognised = await self._recognition.by_hashes(body.sha256, known.looks.each(), recognised)
        if recognised is not None and recognised.final:
            return recognised, recognised
        return known, recognised

    async def _hand_over(
        self, scan_id: str, tenant: Tenant, body: Body, arrival: Arrival, recognised: Recognised | None
    ) -> Flight:
        """The image on its way, once more than this process has it, or it has an outcome.

        One at a time: the frame workers are for those that somebody waits for.
        """
        flight: Flight | None = None
        try:
            async with asyncio.timeout(_HANDED_OVER_WITHIN_S), self._unhurried:
                flight = self._flights.find(tenant, body.sha256)
                if flight is not None:
                    body.close()
                else:
                    flight = self._flights.launch(scan_id, tenant, body, arrival, recognised, unhurried=True)
                await flight.safe.wait()
                return flight
        except TimeoutError:
            refusal = _full("more images than it can look at in time", "the processor, with gateway.frames.workers,")
            raise refusal from None
        finally:
            if flight is None:
                body.close()

    async def _await_outcome(self, flight: Flight, arrival: Arrival) -> Outcome | None:
        """What becomes of `flight` before the deadline; None when nothing does and others than us have the image.

        None also while its frames are still being made.
        """
        loop = asyncio.get_running_loop()
        left_s = arrival.at + self._deadline_s - loop.time()
        if left_s > 0 and not flight.outcome.done():
            await asyncio.wait((flight.outcome,), timeout=left_s)
        if not flight.outcome.done() and flight.looked_at and not flight.safe.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await flight.safe.wait()
        if flight.outcome.done():
            return flight.outcome.result()
        if flight.looked_at and not flight.safe.is_set():
            return _full("an image that neither Kafka nor its disk has taken in time", "the disk of gateway.spool_dir")
        self._flights.note_late(flight)
        return None

    def find(self, tenant: Tenant, scan_id: str) -> tuple[Answer | Waiting | None, Judgement | None]:
        """What is remembered of one of `tenant`'s scans: its answer, and its verdict, however late it came."""
        answer = self._recent.get(scan_id)
        if answer is not None and answer.tenant != tenant.name:
            return None, None
        if isinstance(answer, Answer) and answer.judgement is not None:
            return answer, answer.judgement
        judgement = self._verdicts.judged((answer.carried_by if isinstance(answer, Answer) else "") or scan_id)
        if judgement is not None and judgement.tenant != tenant.name:
            judgement = None
        return answer, judgement

    def _note_waiting(self, flight: Flight) -> Waiting:
        waiting = Waiting(flight.scan_id, flight.tenant.name, flight.sha256)

        def note_end(done: asyncio.Future[Outcome]) -> None:
            if not done.cancelled() and isinstance(outcome := done.result(), Unreadable):
                waiting.unjudgeable = f"{outcome.reason}: {outcome.detail}"

        flight.outcome.add_done_callback(note_end)
        self._remember(waiting)
        self._unanswered[waiting.tenant, waiting.sha256] = waiting.scan_id
        return waiting

    def _remember(self, answer: Answer | Waiting) -> None:
        self._recent[answer.scan_id] = answer
        while len(self._recent) > self._settings.recent_entries:
            _, dropped = self._recent.popitem(last=False)
            if isinstance(dropped, Waiting):
                self._unanswered.pop((dropped.tenant, dropped.sha256), None)


def _new_scan_id(at_ms: int) -> str:
    """32 hexadecimal digits that sort by time; the last 20 are random."""
    return f"{at_ms:012x}{secrets.token_hex(10)}"


def _full(what: str, setting: str) -> Refusal:
    return Refusal(
        RefusalCode.FULL, f"the gateway holds {what}", remedy=f"try again in a moment; {setting} is the bound"
    )
