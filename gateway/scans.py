"""The way of one scan through the gateway: known? - frames - sealed - published - verdict, or the deadline's answer."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from gateway.answers import Answer, is_accepted
from gateway.bodies import Body
from gateway.frames.frame import FrameSet, Unreadable
from gateway.frames.pool import FramePool, PoolStopped
from gateway.ledger import Ledger
from gateway.metrics import Metrics
from gateway.refusals import Refusal, RefusalCode
from gateway.settings import GatewaySettings
from gateway.tenants import Tenant
from gateway.verdicts import Judgement, Verdicts
from schemas.broker import BrokerError, Producer
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import AnsweredBy, Decision, FrameInfo, ImageSubmitted
from schemas.topics import IMAGES

log = structlog.get_logger("gateway.scans")

_JOINABLE_S = 60.0
"""How long after its publication a request with the same bytes waits for an image's verdict before publishing again."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request came in: on the wall clock, on the event loop's, which deadlines are kept by, and on the finest.

    uvloop's clock goes by whole milliseconds and stands still while a callback runs: good enough for a deadline, too
    coarse for what is reported.
    """

    at_ms: int
    at: float
    started: float

    @property
    def milliseconds(self) -> float:
        """How long ago that was."""
        return (time.perf_counter() - self.started) * 1000.0

    @classmethod
    def now(cls) -> "Arrival":
        """The arrival of a request that came in just now. Needs a running event loop."""
        return cls(now_ms(), asyncio.get_running_loop().time(), time.perf_counter())


@dataclass(frozen=True, slots=True)
class _NotHandedOn:
    """An image that neither a scanner nor a decoder ever saw, and why."""

    reason: str


@dataclass(slots=True, eq=False)
class _Flight:
    """One image on its way; any number of requests wait for its `outcome`."""

    scan_id: str
    tenant: Tenant
    sha256: bytes
    length: int
    arrival: Arrival
    outcome: asyncio.Future[Judgement | Unreadable | _NotHandedOn]
    media_type: str = ""
    task: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None


class Scans:
    """Every scan of this gateway, from a body to an `Answer`.

    The same bytes of one tenant are published once while they are in flight, however many requests carry them.
    An image goes on to be judged after its request was answered by the deadline.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        gateway: str,
        frames: FramePool,
        keyring: Keyring,
        producer: Producer,
        verdicts: Verdicts,
        ledger: Ledger,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._frames = frames
        self._keyring = keyring
        self._producer = producer
        self._verdicts = verdicts
        self._ledger = ledger
        self._metrics = metrics
        self._deadline_s = settings.deadline_ms / 1000
        self._in_flight = 0
        self._carried = 0
        self._unpublished_bytes = 0
        self._flights: dict[tuple[str, bytes], _Flight] = {}
        self._recent: OrderedDict[str, Answer] = OrderedDict()
        self._producer_started = asyncio.Event()
        self.draining = False
        metrics.watch("in_flight", "Requests being answered now.", lambda: self._in_flight)
        metrics.watch("images_in_flight", "Images that wait for a verdict.", lambda: len(self._flights))
        metrics.watch("unpublished_bytes", "Bytes of frames that wait for Kafka.", lambda: self._unpublished_bytes)

    def start(self) -> None:
        """Let images go to Kafka: the producer has been started. Until then they wait."""
        self._producer_started.set()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place for one request. Raises `Refusal`: draining, or full.

        Shedding load by how long scanners would take (answered_by overload) is decided here when it is built.
        """
        if self.draining:
            raise Refusal(RefusalCode.DRAINING, "this gateway is stopping", remedy="try again, or another gateway")
        if self._in_flight >= self._settings.max_in_flight:
            raise _full("as many requests as it may take at one time", "gateway.max_in_flight")
        if self._carried >= self._settings.max_in_flight:
            # Requests leave at their deadline, their images stay in hand: those must be bounded, too.
            raise _full("as many images as it may hold at one time", "gateway.max_in_flight")
        if self._unpublished_bytes >= self._settings.max_unpublished_bytes:
            raise _full("as many frames as it may keep while Kafka is away", "gateway.max_unpublished_bytes")
        if self._ledger.full:
            raise _full("as many answers as it may keep while Kafka is away", "gateway.ledger_entries")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def scan(self, tenant: Tenant, body: Body, arrival: Arrival) -> Answer:
        """The answer for `body`, by the deadline at the latest. Takes `body` over and closes it."""
        loop = asyncio.get_running_loop()
        sha256, length = body.sha256, body.length
        scan_id = _new_scan_id(arrival.at_ms)
        known = self._verdicts.known(tenant.name, sha256)
        if known is not None:
            body.close()
            flight = None
            outcome: Judgement | Unreadable | _NotHandedOn | None = known
            answered_by = AnsweredBy.KNOWN
        else:
            flight = self._flights.get((tenant.name, sha256))
            if flight is None:
                flight = self._launch(scan_id, tenant, body, arrival)
            else:
                body.close()
            left_s = arrival.at + self._deadline_s - loop.time()
            if left_s > 0 and not flight.outcome.done():
                await asyncio.wait((flight.outcome,), timeout=left_s)
            outcome = flight.outcome.result() if flight.outcome.done() else None
            answered_by = AnsweredBy.VERDICT
        reason = ""
        match outcome:
            case Judgement():
                decision = outcome.decision
            case Unreadable():
                decision, answered_by = Decision(tenant.settings.on_unreadable), AnsweredBy.UNREADABLE
                reason = f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)
            case _:
                decision, answered_by = Decision(tenant.settings.on_timeout), AnsweredBy.DEADLINE
                reason = outcome.reason if outcome else f"no verdict within {self._settings.deadline_ms} ms"
        answer = Answer(
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
            carried_by=flight.scan_id if flight is not None else "",
            answered_at=now_ms(),
            milliseconds=arrival.milliseconds,
        )
        self._remember(answer)
        return answer

    def find(self, tenant: Tenant, scan_id: str) -> tuple[Answer | None, Judgement | None]:
        """What is remembered of one of `tenant`'s scans: its answer, and its verdict, however late it came."""
        answer = self._recent.get(scan_id)
        if answer is not None and answer.tenant != tenant.name:
            return None, None
        if answer is not None and answer.judgement is not None:
            return answer, answer.judgement
        judgement = self._verdicts.judged((answer.carried_by if answer is not None else "") or scan_id)
        if judgement is not None and judgement.tenant != tenant.name:
            judgement = None
        return answer, judgement

    async def drain(self, within_s: float) -> int:
        """Wait until every image in hand is published, for at most `within_s` seconds. How many were lost."""
        tasks = {flight.task for flight in self._flights.values() if flight.task and not flight.task.done()}
        if not tasks:
            return 0
        _, lost = await asyncio.wait(tasks, timeout=within_s if self._producer_started.is_set() else 0)
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        return len(lost)

    def _launch(self, scan_id: str, tenant: Tenant, body: Body, arrival: Arrival) -> _Flight:
        loop = asyncio.get_running_loop()
        flight = _Flight(scan_id, tenant, body.sha256, body.length, arrival, loop.create_future())
        self._flights[tenant.name, body.sha256] = flight
        self._carried += 1
        flight.task = asyncio.create_task(self._carry(flight, body), name=f"scan-{scan_id}")
        flight.task.add_done_callback(self._put_down)
        return flight

    def _put_down(self, _: asyncio.Task[None]) -> None:
        self._carried -= 1

    async def _carry(self, flight: _Flight, body: Body) -> None:
        """Bring one image to Kafka. Its end, whatever it is, settles the flight."""
        try:
            with body:
                frames = await self._extract(body)
            flight.media_type = frames.media_type
            await self._publish(flight, frames)
        except Unreadable as error:
            self._metrics.unreadable.labels(str(error.reason)).inc()
            self._settle(flight, error)
        except BrokerError as error:
            self._give_up(flight, f"Kafka did not take it: {error}")
        except PoolStopped:
            self._give_up(flight, "the gateway is stopping")
        except asyncio.CancelledError:
            self._give_up(flight, "the gateway stopped")
            raise
        except Exception as error:  # the edge of a task: nobody else would hear of it
            log.exception("scan failed", scan_id=flight.scan_id, sha256=flight.sha256.hex())
            self._give_up(flight, f"the gateway failed: {type(error).__name__}")

    async def _extract(self, body: Body) -> FrameSet:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            return await self._frames.extract(body.fd, body.length)
        finally:
            self._metrics.frames_seconds.observe(loop.time() - started)

    async def _publish(self, flight: _Flight, frames: FrameSet) -> None:
        """Seal and publish, however long Kafka is away. (With a spool on disk, this is where it takes over.)"""
        loop = asyncio.get_running_loop()
        sealed = self._keyring.seal(
            [frame.jpeg for frame in frames.frames], sha256=flight.sha256, tenant=flight.tenant.name
        )
        message = ImageSubmitted(
            scan_id=flight.scan_id,
            tenant=flight.tenant.name,
            sha256=flight.sha256,
            length=flight.length,
            media_type=frames.media_type,
            received_at=flight.arrival.at_ms,
            deadline_at=flight.arrival.at_ms + self._settings.deadline_ms,
            frames=tuple(
                FrameInfo(
                    at_ms=frame.at_ms,
                    width=frame.width,
                    height=frame.height,
                    pdq=frame.pdq,
                    pdq_quality=frame.pdq_quality,
                )
                for frame in frames.frames
            ),
            sealed=sealed,
            gateway=self._gateway,
        )
        verdict = self._verdicts.expect(flight.scan_id)
        verdict.add_done_callback(lambda done: None if done.cancelled() else self._settle(flight, done.result()))
        size = len(sealed.ciphertext)
        self._unpublished_bytes += size
        started = loop.time()
        try:
            await self._producer_started.wait()
            await self._producer.publish(IMAGES, message, key=flight.sha256)
        except BaseException:
            self._verdicts.forget(flight.scan_id)
            raise
        finally:
            self._unpublished_bytes -= size
        self._metrics.publish_seconds.observe(loop.time() - started)
        if not flight.outcome.done():
            flight.expiry = loop.call_later(_JOINABLE_S, self._expire, flight)

    def _settle(self, flight: _Flight, outcome: Judgement | Unreadable | _NotHandedOn) -> None:
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)
        self._land(flight)

    def _give_up(self, flight: _Flight, reason: str) -> None:
        self._metrics.unpublished.inc()
        log.error("image not handed on", scan_id=flight.scan_id, sha256=flight.sha256.hex(), reason=reason)
        self._settle(flight, _NotHandedOn(reason))

    def _expire(self, flight: _Flight) -> None:
        if not flight.outcome.done():
            log.warning("no verdict", scan_id=flight.scan_id, sha256=flight.sha256.hex(), after_s=_JOINABLE_S)
            self._verdicts.forget(flight.scan_id)
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        key = (flight.tenant.name, flight.sha256)
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.expiry is not None:
            flight.expiry.cancel()

    def _remember(self, answer: Answer) -> None:
        self._recent[answer.scan_id] = answer
        while len(self._recent) > self._settings.recent_entries:
            self._recent.popitem(last=False)


def _new_scan_id(at_ms: int) -> str:
    """32 hexadecimal digits that sort by time; the last 20 are random."""
    return f"{at_ms:012x}{secrets.token_hex(10)}"


def _full(what: str, setting: str) -> Refusal:
    return Refusal(
        RefusalCode.FULL, f"the gateway holds {what}", remedy=f"try again in a moment; {setting} is the bound"
    )
