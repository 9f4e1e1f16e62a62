"""One image's way through the scanner: decode, score, judge, publish, done."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence

import structlog
from structlog.contextvars import bind_contextvars

from scanner.announcing import RateMeter
from scanner.failures import FailureReason, ImageSuspected, ImageUnjudgeable, ModelGone
from scanner.judging import Judged, Judging, image_in
from scanner.metrics import ScannerMetrics
from scanner.models.model import Model, ModelHung
from scanner.reloading import LivePolicies
from schemas.broker import Consumer, Producer, PublishRefused, Received
from schemas.clock import now_ms
from schemas.messages import Decision, FeaturesExtracted, ImageFailed, ImageSubmitted, Stage, Timings, Verdict
from schemas.telemetry import tracing
from schemas.topics import (
    FEATURES,
    IMAGES,
    IMAGES_ARCHIVE,
    IMAGES_BACKLOG,
    IMAGES_DEAD,
    VERDICTS,
    VERDICTS_SHADOW,
    TopicSpec,
)

log = structlog.get_logger("scanner.scanning")

POLL_TIMEOUT_S = 0.5

LATE_AFTER_MS = 500
"""Milliseconds past its deadline after which an image is late: the clocks of two machines may differ by as much."""

LIVE_FOR_ONE_OF_BACKLOG = 19
"""So many live images are judged for one of the backlog, at most, while both lanes have some: 5 % are the backlog's."""

PUT_BEHIND_AT_ONCE = 64
"""Late images that are moved at a time; each holds its record in memory, most of them some 40 KB."""

HANGS = 3
"""So many hung models cost an image its judgement; from the second try on it had the model to itself."""


class Scanning:
    """Takes images from `consumer` and sees each through to `done`.

    An image is done when its verdict is published (and its frames archived, if it is kept, and its feature vectors, if
    there are any), or when images.dead says why it cannot be judged. Whatever is cancelled before is not done and is
    read again by another scanner.

    The live lane goes first, at most `in_flight` images of it at a time; those that are late already are put behind
    the others, unchanged, in the backlog, so that what can still be judged in time is. The backlog is judged whatever
    its deadlines, at most `backlog_in_flight` at a time (a fresh image waits for these few alone): whenever no live
    image is in hand, and else one for every 19 live ones, which is 5 % of a scanner's time: an image is an image.

    A `shadow` writes to verdicts.shadow and to nothing else: what it cannot judge is logged alone.
    """

    def __init__(
        self,
        *,
        scanner: str,
        consumer: Consumer,
        producer: Producer,
        judging: Judging,
        models: Sequence[Model],
        policies: LivePolicies,
        meter: RateMeter,
        in_flight: int,
        backlog_in_flight: int,
        archive: bool,
        features: bool,
        shadow: bool = False,
        metrics: ScannerMetrics | None = None,
    ) -> None:
        self._scanner = scanner
        self._consumer = consumer
        self._producer = producer
        self._judging = judging
        self._models = {model.name: model.id for model in models}
        self._policies = policies
        self._meter = meter
        self._in_flight = in_flight
        self._backlog_in_flight = backlog_in_flight
        self._archive = archive and not shadow
        self._features = features and not shadow
        self._shadow = shadow
        self._live: set[asyncio.Task[None]] = set()
        self._backlog: set[asyncio.Task[None]] = set()
        self._put_behind: set[asyncio.Task[None]] = set()
        self._live_since_backlog = 0
        self._metrics = metrics or ScannerMetrics()
        self._metrics.watch_in_hand(Stage.LIVE, lambda: len(self._live))
        self._metrics.watch_in_hand(Stage.BACKLOG, lambda: len(self._backlog))
        self._changed = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(self) -> None:
        """Read and start images until cancelled. Raises a `BrokerError`, or what kept an image from its end.

        An image that came to no end holds back its partition's offset in this process for ever: another must take over.
        """
        lanes = [asyncio.create_task(lane, name="lane") for lane in (self._take_live(), self._take_backlog())]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()

    async def finish(self, within_s: float) -> int:
        """Let what was started end within so many seconds; return how many images were given up."""
        active = [*self._live, *self._backlog, *self._put_behind]
        if active:
            await asyncio.wait(active, timeout=within_s)
        left = [task for task in active if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def quiet(self) -> None:
        """Wait until no image of either lane is in hand. Raises what kept one from its end."""
        await self._until(lambda: not (self._live or self._backlog or self._put_behind))

    async def _take_live(self) -> None:
        while True:
            await self._until(lambda: self._live_room() > 0 and len(self._put_behind) < PUT_BEHIND_AT_ONCE)
            for received in await self._poll(IMAGES, most=self._live_room()):
                if _is_late(received) and not self._shadow:
                    self._start(self._put_behind, self._move_behind(received))
                else:
                    # An empty backlog saves up no more than one fill of `in_flight` owes it.
                    most_owed = self._in_flight + LIVE_FOR_ONE_OF_BACKLOG
                    self._live_since_backlog = min(self._live_since_backlog + 1, most_owed)
                    self._start(self._live, self._see_through(received))

    async def _take_backlog(self) -> None:
        while True:
            await self._until(lambda: self._backlog_room() > 0)
            for received in await self._poll(IMAGES_BACKLOG, most=self._backlog_room()):
                self._live_since_backlog = max(0, self._live_since_backlog - LIVE_FOR_ONE_OF_BACKLOG)
                self._start(self._backlog, self._see_through(received))

    def _live_room(self) -> int:
        return self._in_flight - len(self._live)

    def _backlog_room(self) -> int:
        """How many images of the backlog may be taken now."""
        room = self._backlog_in_flight - len(self._backlog)
        if not self._live:
            return room
        return min(room, self._live_since_backlog // LIVE_FOR_ONE_OF_BACKLOG)

    async def _poll(self, lane: TopicSpec, *, most: int) -> list[Received]:
        return await self._consumer.poll(max_messages=most, timeout_s=POLL_TIMEOUT_S, topic=lane)

    async def _until(self, true: Callable[[], bool]) -> None:
        """Wait until `true`; raises what kept an image from its end."""
        while True:
            if self._failed.done():
                self._failed.result()
            if true():
                return
            self._changed.clear()
            await self._changed.wait()

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(tasks, ended))
        self._changed.set()

    def _ended(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _move_behind(self, received: Received) -> None:
        """Put a late image behind the fresh ones; done is what the backlog has. What it refuses is judged here."""
        assert received.message is not None and received.key is not None
        try:
            await self._producer.publish(IMAGES_BACKLOG, received.message, key=received.key)
        except PublishRefused as error:
            log.warning("late_image_not_moved", partition=received.partition, offset=received.offset, error=str(error))
            await self._see_through(received)
            return
        self._metrics.late.inc()
        self._consumer.done(received)

    async def _see_through(self, received: Received) -> None:
        scan_id = received.message.scan_id if isinstance(received.message, ImageSubmitted) else ""
        if scan_id:
            bind_contextvars(scan_id=scan_id)  # of this image's task
        with tracing.span("judge", kind="consumer", scan_id=scan_id, parent=received.trace) as span:
            try:
                await self._judge(received, span)
            except ModelGone:
                return  # not done: the next scanner reads it again
            except ImageUnjudgeable as failure:
                await self._bury(received, failure.reason, failure.detail)
            except PublishRefused as error:
                await self._bury(received, FailureReason.UNPUBLISHABLE, str(error))
            except Exception as error:
                # The edge of one image: a fault of ours here must stop neither the others nor the partition.
                log.exception("image_failed_unexpectedly", partition=received.partition, offset=received.offset)
                await self._bury(received, FailureReason.UNEXPECTED, f"{type(error).__name__}: {error}")
        self._consumer.done(received)

    async def _judge(self, received: Received, span: tracing.Span) -> None:
        started = time.perf_counter()
        queued = float(now_ms() - received.timestamp_ms)
        span.set_attribute("fediwarden.lane", received.topic.name)
        span.set_attribute("fediwarden.queued_ms", max(queued, 0.0))
        if received.fault is not None:
            await self._bury(received, received.fault.reason, str(received.fault))
            return
        message = image_in(received)
        if message is None:
            return
        stage = _stage_of(received)
        self._metrics.queue_seconds.labels(stage.value).observe(max(queued, 0.0) / 1000)
        try:
            judged = await self._judging.judge(message, self._policies.of, alone=message.hung > 0)
        except (ImageSuspected, ModelHung) as doubt:
            if isinstance(doubt, ModelHung) and not self._failed.done():
                self._failed.set_exception(doubt)  # this process ends, but not before the image is with others
            await self._try_once_more(message)
            return
        except ModelGone:
            if self._shadow:
                raise  # it writes to no lane
            await self._put_aside(message)
            return
        decision = judged.judgement.decision
        span.set_attribute("fediwarden.decision", decision.value)
        verdict = self._verdict(received, message, judged, _timings(queued, started, judged))
        keep = self._archive and decision is not Decision.REJECT
        features = self._features_extracted(message, judged) if self._features else []
        written = await asyncio.gather(
            self._producer.publish(VERDICTS_SHADOW if self._shadow else VERDICTS, verdict, key=message.sha256),
            *(self._producer.publish(FEATURES, each, key=message.sha256) for each in features),
            *([self._producer.publish(IMAGES_ARCHIVE, message, key=message.sha256)] if keep else []),
            return_exceptions=True,
        )
        for outcome in written:
            if isinstance(outcome, BaseException):
                raise outcome
        self._meter.count()
        self._metrics.decode_seconds.observe(judged.image.milliseconds / 1000)
        self._metrics.count_verdict(decision, stage, self._models, judged.policy.id)
        log.debug("judged", scan_id=message.scan_id, sha256=message.sha256.hex(), decision=decision.value)

    async def _try_once_more(self, message: ImageSubmitted) -> None:
        """Leave an image that a model may have hung on to another scanner, but not to one scanner after another.

        Raises `ImageUnjudgeable` at the last of `HANGS`.
        """
        hung = message.hung + 1
        if hung >= HANGS or self._shadow:
            raise ImageUnjudgeable(FailureReason.MODEL_HUNG, f"models hung or broke on it in {hung} tries")
        self._metrics.suspected.inc()
        log.warning("image_suspected", scan_id=message.scan_id, hung=hung)
        await self._producer.publish(IMAGES_BACKLOG, message.model_copy(update={"hung": hung}), key=message.sha256)

    async def _put_aside(self, message: ImageSubmitted) -> None:
        """Leave an image to another scanner, in the backlog: it has waited for as long as a model may hang.

        Left where it is, it would hold back the offset of a suspect behind it in its partition, which would then be
        read again as if nothing had been, and hang as many scanners anew.
        """
        log.info("image_put_aside", scan_id=message.scan_id)
        await self._producer.publish(IMAGES_BACKLOG, message, key=message.sha256)

    def _verdict(self, received: Received, message: ImageSubmitted, judged: Judged, timings: Timings) -> Verdict:
        judgement = judged.judgement
        return Verdict(
            scan_id=message.scan_id,
            tenant=message.tenant,
            sha256=message.sha256,
            decision=judgement.decision,
            rules=judgement.rules,
            scores=judged.rounded_scores,
            worst_frame=judgement.worst_frame,
            frame_count=len(message.frames),
            pdq=tuple(frame.pdq for frame in message.frames),
            pdq_quality=tuple(frame.pdq_quality for frame in message.frames),
            media_type=message.media_type,
            length=message.length,
            models=self._models,
            policy=judged.policy.id,
            stage=_stage_of(received),
            scanner=self._scanner,
            topic=received.topic.name,
            partition=received.partition,
            offset=received.offset,
            received_at=message.received_at,
            judged_at=now_ms(),
            timings=timings,
        )

    def _features_extracted(self, message: ImageSubmitted, judged: Judged) -> list[FeaturesExtracted]:
        return [
            FeaturesExtracted(
                scan_id=message.scan_id,
                tenant=message.tenant,
                sha256=message.sha256,
                model=model,
                model_id=self._models[model],
                dimensions=vectors.shape[1],
                vectors=tuple(vector.astype("<f2").tobytes() for vector in vectors),
                scanner=self._scanner,
                extracted_at=now_ms(),
            )
            for model, vectors in judged.scores.features.items()
        ]

    async def _bury(self, received: Received, reason: str, detail: str) -> None:
        """Publish why a record is not judged, in the words of `FailureReason` or the codec."""
        place = {"topic": received.topic.name, "partition": received.partition, "offset": received.offset}
        message = received.message if isinstance(received.message, ImageSubmitted) else None
        scan_id = message.scan_id if message else f"{received.topic.name}-{received.partition}-{received.offset}"
        self._metrics.unjudgeable.labels(str(reason)).inc()
        log.warning("image_unjudgeable", reason=str(reason), detail=detail, scan_id=scan_id, **place)
        if self._shadow:
            return  # a gateway would take it for the end of the image
        failed = ImageFailed(
            scan_id=scan_id,
            tenant=message.tenant if message else "",
            sha256=message.sha256 if message else b"",
            reason=str(reason),
            detail=detail[:1000],
            topic=received.topic.name,
            partition=received.partition,
            offset=received.offset,
            scanner=self._scanner,
            failed_at=now_ms(),
        )
        try:
            await self._producer.publish(IMAGES_DEAD, failed, key=scan_id.encode())
        except PublishRefused as error:
            log.error("failure_not_recorded", scan_id=scan_id, error=str(error))


def _stage_of(received: Received) -> Stage:
    return Stage.LIVE if received.topic == IMAGES else Stage.BACKLOG


def _is_late(received: Received) -> bool:
    """Whether nobody waits for this image any more. What cannot be read, or has no key, is not for moving."""
    message = received.message
    if not isinstance(message, ImageSubmitted) or received.key is None:
        return False
    return now_ms() > message.deadline_at + LATE_AFTER_MS


def _timings(queued: float, started: float, judged: Judged) -> Timings:
    """Split the time from poll to scores; clocks of two machines may differ, so nothing goes below 0."""
    decode, infer = judged.image.milliseconds, judged.scores.infer_ms
    whole = (judged.scores.ended - started) * 1000.0
    return Timings(
        queued=round(max(queued, 0.0), 2),
        decode=round(decode, 2),
        wait=round(max(whole - decode - infer, 0.0), 2),
        infer=round(infer, 2),
    )
