"""Images on their way, from a body in hand to a verdict: frames - sealed - handed over - awaited."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass

import structlog

from gateway.bodies import Body
from gateway.declarations import Declarations
from gateway.delivery import Delivery, Handover
from gateway.frames.frame import FrameSet, Unreadable, UnreadableReason
from gateway.frames.pool import FramePool, PoolStopped
from gateway.limits import Limit, Ticket
from gateway.metrics import Metrics
from gateway.overrides.memory import NO_LOOKS, Looks, Overrides, looks_of
from gateway.recognition import Recognised, Recognition
from gateway.refusals import Refusal, RefusalCode
from gateway.settings import GatewaySettings
from gateway.spool.errors import SpoolError
from gateway.tenants import Tenant
from gateway.verdicts import Judgement, Verdicts
from schemas.broker import BrokerError, PublishRefused
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import AnsweredBy, FrameInfo, ImageFailed, ImageSubmitted, OverrideKind, OverrideSet
from schemas.telemetry import tracing
from schemas.topics import IMAGES, IMAGES_BACKLOG

log = structlog.get_logger("gateway.flights")

JOINABLE_S = 60.0
"""How long after it was handed over an image that has no verdict still stands for requests with the same bytes."""

SPOOL_BEFORE_S = 0.25
"""How long before the deadline an image that Kafka has not taken goes to disk: the time an fsync may take."""

LAST_TRY_S = 0.1
"""What Kafka gets at least when the frames were there only just before the deadline."""

LATE_TRY_S = 2.0
"""What it gets when nobody waits any more."""

LIVE_SHARE = 0.7
"""The part of the deadline that the way to a verdict may take under load: the rest is for what varies."""

LOOK_SHARE = 0.4
"""The part of it that a file may wait for its frames."""

OVERLOADED = "more images than can be judged in time"
OVER_RATE = "more images than tenants.<name>.rate_limit allows"
"""Why an image goes to the backlog; its answer says so."""


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
class Unjudged:
    """Why requests are answered without a verdict. The image has been handed over and will be judged."""

    by: AnsweredBy
    reason: str


Outcome = Judgement | OverrideSet | Recognised | Unjudged | Unreadable | Refusal


@dataclass(slots=True, eq=False)
class Flight:
    """One image on its way; any number of requests wait for its `outcome`.

    `safe` is done when more than this process has the image, or when it has an outcome. `answered` says that some
    request got its answer already: such an image must not be dropped any more. `launched` is in perf_counter seconds:
    what a slow client took for its body is no sign of load. `overload` says why it goes to the backlog, "" where it
    does not for load's sake. `recognised` is what its bytes, and then its frames, are known as; one that is `final` is
    the outcome. `unhurried` says that nobody waits for its verdict: it goes to the backlog, and counts for no load.
    """

    scan_id: str
    tenant: Tenant
    sha256: bytes
    length: int
    arrival: Arrival
    launched: float
    overload: str
    outcome: asyncio.Future[Outcome]
    safe: asyncio.Event
    ticket: Ticket | None = None
    unhurried: bool = False
    answered: bool = False
    looked_at: bool = False
    media_type: str = ""
    looks: Looks = NO_LOOKS
    recognised: Recognised | None = None
    expiry: asyncio.TimerHandle | None = None


class Flights:
    """Every image of this gateway that has no verdict yet. The same bytes of one tenant fly once at a time.

    An image that comes when as many are on their way as can be judged in time is handed to the backlog, and its
    requests are answered at once (`AnsweredBy.OVERLOAD`).
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        gateway: str,
        frames: FramePool,
        recognition: Recognition,
        keyring: Keyring,
        delivery: Delivery,
        verdicts: Verdicts,
        overrides: Overrides,
        metrics: Metrics,
    ) -> None:
        self._gateway = gateway
        self._frames = frames
        self._recognition = recognition
        self._keyring = keyring
        self._delivery = delivery
        self._verdicts = verdicts
        self._overrides = overrides
        self._metrics = metrics
        self._deadline_ms = settings.deadline_ms
        self._deadline_s = settings.deadline_ms / 1000
        self._live = Limit(self._deadline_s * LIVE_SHARE, most=settings.max_in_flight)
        self._looks = Limit(
            self._deadline_s * LOOK_SHARE, least=2 * settings.frames.workers, most=settings.max_in_flight
        )
        self._flights: dict[tuple[str, bytes], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._declarations = Declarations(gateway=gateway, delivery=delivery)
        self.unpublished_bytes = 0
        metrics.watch("images_in_flight", lambda: len(self._flights))
        metrics.watch("unpublished_bytes", lambda: self.unpublished_bytes)
        metrics.watch("live_limit", lambda: self._live.limit)
        metrics.watch("frames_limit", lambda: self._looks.limit)

    @property
    def carried(self) -> int:
        """Images that only this process has."""
        return len(self._tasks)

    @property
    def looks_at_once(self) -> float:
        """How many files may wait for their frames at a time."""
        return self._looks.limit

    @property
    def can_look(self) -> bool:
        """Whether one more file would have its frames early enough."""
        return self._looks.has_room

    def find(self, tenant: Tenant, sha256: bytes) -> Flight | None:
        """The image with these bytes that is on its way, unless an override has ended the wait for it.

        That one may be taken back before there is a verdict: it answers those who waited just then, and nobody later.
        """
        flight = self._flights.get((tenant.name, sha256))
        if flight is not None and flight.outcome.done() and isinstance(flight.outcome.result(), OverrideSet):
            return None
        return flight

    def launch(
        self,
        scan_id: str,
        tenant: Tenant,
        body: Body,
        arrival: Arrival,
        recognised: Recognised | None = None,
        *,
        unhurried: bool = False,
        over_rate: bool = False,
    ) -> Flight:
        """Send one image, whose bytes are `recognised` as that, on its way. Takes `body` over and closes it.

        One that is `over_rate` goes to the backlog, as in an overload.
        """
        loop = asyncio.get_running_loop()
        flight = Flight(
            scan_id,
            tenant,
            body.sha256,
            body.length,
            arrival,
            launched=time.perf_counter(),
            overload=OVER_RATE if over_rate else "" if unhurried or self._live.has_room else OVERLOADED,
            outcome=loop.create_future(),
            safe=asyncio.Event(),
            unhurried=unhurried,
            recognised=recognised,
        )
        if not (flight.overload or unhurried):
            flight.ticket = self._live.enter()
        self._flights[tenant.name, body.sha256] = flight
        self._start(self._carry(flight, body), f"scan-{scan_id}")
        return flight

    def declare(self, scan_id: str, tenant: Tenant, body: Body, arrival: Arrival, recognised: Recognised) -> None:
        """Publish what an image that goes to no scanner was recognised as; once for the same bytes."""
        declaration = self._declarations.publish(
            recognised,
            scan_id=scan_id,
            tenant=tenant.name,
            sha256=body.sha256,
            length=body.length,
            received_at=arrival.at_ms,
        )
        self._start(declaration, f"declare-{scan_id}")

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def note_late(self, flight: Flight) -> None:
        """A request was answered by the deadline: as far as load goes, this image took too long."""
        flight.answered = True
        self._delivery.forget(flight.scan_id)
        self._hand_in(flight)

    def heed(self, override: OverrideSet) -> None:
        """Answer the requests that wait for an image which an override, just set, is about.

        The image goes the way it has begun: a verdict on it is of use to whoever asks when the override is gone.
        """
        for flight in list(self._flights.values()):
            if flight.outcome.done() or (override.kind is OverrideKind.SHA256 and override.hash != flight.sha256):
                continue
            said = self._overrides.of_image(flight.tenant.name, flight.sha256, flight.looks)
            if said is not None:
                self._answer_early(flight, said)

    async def drain(self, within_s: float) -> int:
        """Wait until every image in hand is handed over, for at most `within_s` seconds. How many were lost."""
        self._delivery.hurry()
        if not self._tasks:
            return 0
        _, lost = await asyncio.wait(set(self._tasks), timeout=within_s)
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        return len(lost)

    async def _carry(self, flight: Flight, body: Body) -> None:
        """Bring one image into other hands. Its end, whatever it is, settles the flight or leaves it to its verdict."""
        try:
            with body:
                frames = await self._look(body)
            flight.media_type, flight.looked_at = frames.media_type, True
            flight.looks = looks_of((frame.pdq, frame.pdq_quality) for frame in frames.frames)
            if (said := self._said_of(flight)) is not None:
                self._settle(flight, said)
                return
            flight.recognised = await self._recognition.by_frames(flight.sha256, frames, flight.recognised)
            if flight.recognised is not None and flight.recognised.final:
                self._settle(flight, flight.recognised)
            else:
                await self._hand_over(flight, self._seal(flight, frames))
            await self._declare(flight, frames)
        except Unreadable as error:
            self._metrics.unreadable.labels(str(error.reason)).inc()
            self._settle(flight, error)
            await self._account(flight, str(error.reason), error.detail)
        except SpoolError as error:
            await self._lose(flight, RefusalCode.FULL, f"neither Kafka nor the spool takes it: {error}")
        except PublishRefused as error:
            await self._lose(flight, RefusalCode.INTERNAL, f"Kafka refuses it: {error}")
        except PoolStopped:
            await self._lose(flight, RefusalCode.DRAINING, "the gateway is stopping")
        except asyncio.CancelledError:
            # Shielded: only the end of the process may come between.
            await asyncio.shield(self._lose(flight, RefusalCode.DRAINING, "the gateway stopped"))
            raise
        except Exception as error:  # the edge of a task: nobody else would hear of it
            log.exception("scan failed", scan_id=flight.scan_id, sha256=flight.sha256.hex())
            await self._lose(flight, RefusalCode.INTERNAL, f"the gateway failed: {type(error).__name__}")

    async def _look(self, body: Body) -> FrameSet:
        ticket = self._looks.enter()
        started = time.perf_counter()
        try:
            with tracing.span("frames") as span:
                frames = await self._frames.extract(body.fd, body.length)
                span.set_attribute("fediwarden.media_type", frames.media_type)
                span.set_attribute("fediwarden.frames", len(frames.frames))
                return frames
        finally:
            seconds = time.perf_counter() - started
            ticket.leave(seconds)
            self._metrics.frames_seconds.observe(seconds)

    def _said_of(self, flight: Flight) -> OverrideSet | None:
        """What makes a judgement of an image needless.

        Nothing, once a request has its answer: the image may be stored by now, and only a verdict reaches it there.
        """
        if flight.answered:
            return None
        return self._overrides.of_image(flight.tenant.name, flight.sha256, flight.looks)

    async def _declare(self, flight: Flight, frames: FrameSet) -> None:
        if flight.recognised is not None:
            await self._declarations.publish(
                flight.recognised,
                scan_id=flight.scan_id,
                tenant=flight.tenant.name,
                sha256=flight.sha256,
                length=flight.length,
                received_at=flight.arrival.at_ms,
                frames=frames,
                # Let in by the deadline before it was recognised, it is to be removed, as often as it is let in.
                again=flight.answered,
            )

    def _seal(self, flight: Flight, frames: FrameSet) -> ImageSubmitted:
        sealed = self._keyring.seal(
            [frame.jpeg for frame in frames.frames], sha256=flight.sha256, tenant=flight.tenant.name
        )
        return ImageSubmitted(
            scan_id=flight.scan_id,
            tenant=flight.tenant.name,
            sha256=flight.sha256,
            length=flight.length,
            media_type=frames.media_type,
            received_at=flight.arrival.at_ms,
            deadline_at=flight.arrival.at_ms + self._deadline_ms,
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

    async def _hand_over(self, flight: Flight, message: ImageSubmitted) -> None:
        loop = asyncio.get_running_loop()
        verdict = self._verdicts.expect(flight.scan_id)
        verdict.add_done_callback(lambda done: None if done.cancelled() else self._conclude(flight, done.result()))
        size = len(message.sealed.ciphertext)
        self.unpublished_bytes += size
        started = time.perf_counter()
        try:
            # What nobody waits for would be moved to the backlog by a scanner anyway.
            lane = IMAGES_BACKLOG if flight.overload or flight.answered or flight.unhurried else IMAGES
            with tracing.span("hand over", kind="producer") as span:
                handover = await self._delivery.send(
                    message,
                    lane,
                    spool_after_s=max(
                        LATE_TRY_S if flight.answered else LAST_TRY_S,
                        flight.arrival.at + self._deadline_s - SPOOL_BEFORE_S - loop.time(),
                    ),
                )
                span.set_attribute("fediwarden.to", handover.value)
                span.set_attribute("fediwarden.lane", lane.name)
        except SpoolError as error:
            if not flight.answered:
                self._verdicts.forget(flight.scan_id)
                raise
            log.error("an image that was let in has nowhere to wait but in memory", error=str(error))
            await self._delivery.insist(message)
            handover = Handover.KAFKA
        except BaseException:
            self._verdicts.forget(flight.scan_id)
            raise
        finally:
            self.unpublished_bytes -= size
        self._metrics.publish_seconds.observe(time.perf_counter() - started)
        flight.safe.set()
        if handover is Handover.SPOOL:
            self._answer_early(flight, Unjudged(AnsweredBy.SPOOLED, "Kafka is away; the image waits on disk"))
        elif flight.overload:
            self._answer_early(flight, Unjudged(AnsweredBy.OVERLOAD, flight.overload))
        if not verdict.done():
            flight.expiry = loop.call_later(JOINABLE_S, self._expire, flight)

    def _answer_early(self, flight: Flight, outcome: Unjudged | OverrideSet) -> None:
        """Answer the requests that wait; the verdict, when it comes, still lands the flight."""
        if flight.ticket is not None:
            flight.ticket.drop()
            flight.ticket = None
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)

    def _conclude(self, flight: Flight, outcome: Judgement | ImageFailed) -> None:
        if isinstance(outcome, ImageFailed):
            detail = f"no scanner can judge it: {outcome.reason}"
            self._settle(flight, Unreadable(UnreadableReason.UNJUDGEABLE, detail))
        else:
            self._settle(flight, outcome)

    def _settle(self, flight: Flight, outcome: Outcome) -> None:
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)
        flight.safe.set()
        if isinstance(outcome, Judgement):
            self._hand_in(flight)
        elif flight.ticket is not None:
            flight.ticket.drop()
        self._land(flight)

    def _hand_in(self, flight: Flight) -> None:
        if flight.ticket is not None:
            flight.ticket.leave(time.perf_counter() - flight.launched)
            flight.ticket = None

    async def _lose(self, flight: Flight, code: RefusalCode, reason: str) -> None:
        """Nobody has the image: what is still to be answered is refused, for nothing may be let in that is lost."""
        self._metrics.unpublished.inc()
        log.error(
            "image not handed on",
            scan_id=flight.scan_id,
            sha256=flight.sha256.hex(),
            reason=reason,
            answered=flight.answered,
        )
        self._settle(flight, Refusal(code, reason, remedy="try again in a moment"))
        await self._account(flight, f"gateway-{code}", reason)

    async def _account(self, flight: Flight, reason: str, detail: str) -> None:
        """Where a request was answered before it turned out that there is nothing to judge, images.dead says so."""
        if not flight.answered:
            return
        failed = ImageFailed(
            scan_id=flight.scan_id,
            tenant=flight.tenant.name,
            sha256=flight.sha256,
            reason=reason,
            detail=detail[:1000],
            topic=IMAGES.name,
            partition=0,
            offset=0,
            failed_at=now_ms(),
        )
        try:
            await self._delivery.bury(failed)
        except (SpoolError, BrokerError) as error:
            log.error("an image that was answered for is unaccounted for", scan_id=flight.scan_id, error=str(error))

    def _expire(self, flight: Flight) -> None:
        if not flight.outcome.done() and not flight.unhurried:
            log.warning("no verdict", scan_id=flight.scan_id, sha256=flight.sha256.hex(), after_s=JOINABLE_S)
        self._verdicts.forget(flight.scan_id)
        self._land(flight)

    def _land(self, flight: Flight) -> None:
        key = (flight.tenant.name, flight.sha256)
        if self._flights.get(key) is flight:
            del self._flights[key]
        self._delivery.forget(flight.scan_id)
        if flight.expiry is not None:
            flight.expiry.cancel()
