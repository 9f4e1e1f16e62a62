"""One image's way through the scanner: decode, score, judge, publish, done."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from scanner.announcing import RateMeter
from scanner.decoding import Decoder, PreparedImage
from scanner.failures import FailureReason, ImageUnjudgeable
from scanner.inference import ImageScores, Inference
from scanner.models.model import Model
from scanner.policy import Judgement, Policy
from schemas.broker import Consumer, Producer, PublishRefused, Received
from schemas.clock import now_ms
from schemas.messages import Decision, ImageFailed, ImageSubmitted, Stage, Timings, Verdict
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_DEAD, VERDICTS

log = structlog.get_logger("scanner.scanning")

POLL_TIMEOUT_S = 1.0


class Scanning:
    """Takes images from `consumer`, at most `in_flight` at a time, and sees each through to `done`.

    An image is done when its verdict is published (and its frames archived, if it is kept), or when images.dead says
    why it cannot be judged. Whatever is cancelled before is not done and is read again by another scanner.
    """

    def __init__(
        self,
        *,
        scanner: str,
        consumer: Consumer,
        producer: Producer,
        decoder: Decoder,
        inference: Inference,
        models: Sequence[Model],
        policy: Policy,
        meter: RateMeter,
        in_flight: int,
        archive: bool,
    ) -> None:
        self._scanner = scanner
        self._consumer = consumer
        self._producer = producer
        self._decoder = decoder
        self._inference = inference
        self._models = {model.name: model.id for model in models}
        self._policy = policy
        self._policy_id = policy.id
        self._meter = meter
        self._in_flight = in_flight
        self._archive = archive
        self._active: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(self) -> None:
        """Read and start images until cancelled. Raises `BrokerRefused`, or what kept an image from its end.

        An image that came to no end holds back its partition's offset in this process for ever: another must take over.
        """
        while True:
            await self._room.wait()
            if self._failed.done():
                self._failed.result()
            free = self._in_flight - len(self._active)
            for received in await self._consumer.poll(max_messages=free, timeout_s=POLL_TIMEOUT_S):
                task = asyncio.create_task(self._see_through(received))
                self._active.add(task)
                task.add_done_callback(self._ended)
            if len(self._active) >= self._in_flight:
                self._room.clear()

    async def finish(self, within_s: float) -> int:
        """Let what was started end within so many seconds; return how many images were given up."""
        if self._active:
            await asyncio.wait(self._active, timeout=within_s)
        left = list(self._active)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _see_through(self, received: Received) -> None:
        try:
            await self._judge(received)
        except ImageUnjudgeable as failure:
            await self._bury(received, failure.reason, failure.detail)
        except PublishRefused as error:
            await self._bury(received, FailureReason.UNPUBLISHABLE, str(error))
        except Exception as error:
            # The edge of one image: a fault of ours here must stop neither the others nor the partition.
            log.exception("image_failed_unexpectedly", partition=received.partition, offset=received.offset)
            await self._bury(received, FailureReason.UNEXPECTED, f"{type(error).__name__}: {error}")
        self._consumer.done(received)

    async def _judge(self, received: Received) -> None:
        started = time.perf_counter()
        queued = float(now_ms() - received.timestamp_ms)
        if received.fault is not None:
            await self._bury(received, received.fault.reason, str(received.fault))
            return
        if received.message is None:
            return
        message = received.message
        if not isinstance(message, ImageSubmitted):
            raise ImageUnjudgeable(
                FailureReason.NOT_AN_IMAGE, f"a {message.SCHEMA} message stands in topic {received.topic.name}"
            )
        image = await self._decode(message)
        scores = await self._inference.score(image)
        judgement = self._policy.judge(scores.frames)
        verdict = self._verdict(received, message, judgement, _timings(queued, started, image, scores))
        keep = self._archive and judgement.decision is not Decision.REJECT
        written = await asyncio.gather(
            self._producer.publish(VERDICTS, verdict, key=message.sha256),
            *([self._producer.publish(IMAGES_ARCHIVE, message, key=message.sha256)] if keep else []),
            return_exceptions=True,
        )
        for outcome in written:
            if isinstance(outcome, BaseException):
                raise outcome
        self._meter.count()
        log.debug("judged", scan_id=message.scan_id, sha256=message.sha256.hex(), decision=judgement.decision.value)

    async def _decode(self, message: ImageSubmitted) -> PreparedImage:
        self._inference.expect()
        try:
            return await self._decoder.decode(message)
        except BaseException:
            self._inference.withdraw()
            raise

    def _verdict(self, received: Received, message: ImageSubmitted, judgement: Judgement, timings: Timings) -> Verdict:
        return Verdict(
            scan_id=message.scan_id,
            tenant=message.tenant,
            sha256=message.sha256,
            decision=judgement.decision,
            rules=judgement.rules,
            scores={label: round(score, 4) for label, score in judgement.scores.items()},
            worst_frame=judgement.worst_frame,
            frame_count=len(message.frames),
            pdq=tuple(frame.pdq for frame in message.frames),
            media_type=message.media_type,
            length=message.length,
            models=self._models,
            policy=self._policy_id,
            stage=Stage.LIVE if received.topic == IMAGES else Stage.BACKLOG,
            scanner=self._scanner,
            topic=received.topic.name,
            partition=received.partition,
            offset=received.offset,
            received_at=message.received_at,
            judged_at=now_ms(),
            timings=timings,
        )

    async def _bury(self, received: Received, reason: str, detail: str) -> None:
        """Publish why a record is not judged, in the words of `FailureReason` or the codec."""
        place = {"topic": received.topic.name, "partition": received.partition, "offset": received.offset}
        message = received.message if isinstance(received.message, ImageSubmitted) else None
        scan_id = message.scan_id if message else f"{received.topic.name}-{received.partition}-{received.offset}"
        log.warning("image_unjudgeable", reason=str(reason), detail=detail, scan_id=scan_id, **place)
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


def _timings(queued: float, started: float, image: PreparedImage, scores: ImageScores) -> Timings:
    """Split the time from poll to scores; clocks of two machines may differ, so nothing goes below 0."""
    whole = (scores.ended - started) * 1000.0
    return Timings(
        queued=round(max(queued, 0.0), 2),
        decode=round(image.milliseconds, 2),
        wait=round(max(whole - image.milliseconds - scores.infer_ms, 0.0), 2),
        infer=round(scores.infer_ms, 2),
    )
