"""Bringing sealed images to Kafka; to the spool on disk where Kafka does not take them in time."""

import asyncio
import contextlib
from enum import Enum

import structlog

from gateway.metrics import Metrics
from gateway.spool.parcels import Parcel
from gateway.spool.spool import Spool
from gateway.steering import Steering
from gateway.storage import Storage
from schemas.broker import BrokerError, BrokerUnavailable, Producer, PublishRefused
from schemas.clock import now_ms
from schemas.messages import ImageFailed, ImageSubmitted, Message, Verdict
from schemas.topics import IMAGES, IMAGES_BACKLOG, IMAGES_DEAD, VERDICTS, TopicSpec

log = structlog.get_logger("gateway.delivery")

_LOOK_EVERY_S = 0.05
_AWAY_AFTER_S = 1.0
_COUNT_EVERY_S = 30.0
_HURRY_S = 1.0
"""What a publication under way gets when the gateway stops, before it goes to the spool."""


class Handover(Enum):
    """Who has the image now."""

    KAFKA = "kafka"
    SPOOL = "spool"


class Delivery:
    """The last step of an image through the gateway: until `send` returns, only this process has it.

    While Kafka is away nothing is tried with it but the spool's own drain, whose success says that it is back. Images
    that wait where a scanner has fallen silent are published a second time elsewhere (`steering` says which).
    """

    def __init__(
        self, *, producer: Producer, storage: Storage, steering: Steering, metrics: Metrics, spool_max_age_s: float
    ) -> None:
        self._spool_max_age_ms = spool_max_age_s * 1000
        self._producer = producer
        self._storage = storage
        self._spool = storage.own.frames
        self._steering = steering
        self._metrics = metrics
        self._started = asyncio.Event()
        self._unreachable = False
        self._was_away = False
        self._hurry = asyncio.Event()
        self._hedgeable: dict[str, ImageSubmitted] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._hedges: set[asyncio.Task[None]] = set()
        metrics.watch("spool_images", lambda: storage.images)
        metrics.watch("partitions_avoided", lambda: steering.avoided)
        metrics.watch("spool_max_bytes", lambda: self._spool.max_bytes)
        metrics.watch("spool_oldest_seconds", lambda: storage.oldest_s)
        metrics.watch("spool_bytes", lambda: storage.size)

    @property
    def kafka_away(self) -> bool:
        """Whether Kafka could not be reached at start, or has taken nothing for a while.

        Not at the first failure: when one of several brokers dies, the others' partitions go on.
        """
        if not self._started.is_set():
            return self._unreachable
        return self._producer.failing_for_s > _AWAY_AFTER_S

    @property
    def full(self) -> bool:
        """Whether nothing more can be taken: Kafka is away and the spool is at its bound."""
        return self.kafka_away and self._spool.full

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to publish: the producer has been started. The tasks end by `stop`, or by a fault of ours."""
        self._started.set()
        self._tasks += [
            asyncio.create_task(self._spool.drain(self._publish_parcel), name="spool-drain"),
            asyncio.create_task(self._hedge(), name="hedge"),
        ]
        return list(self._tasks)

    def drain(self, spool: Spool) -> asyncio.Task[None]:
        """Publish what a dead gateway left in `spool`. The task ends with that."""
        task = asyncio.create_task(spool.drain(self._publish_parcel, until_empty=True), name="orphan-drain")
        self._tasks.append(task)
        return task

    def note_unreachable(self) -> None:
        """An attempt to reach Kafka before `start` has failed: images need not wait for the next."""
        self._unreachable = True

    def hurry(self) -> None:
        """The gateway stops: what Kafka does not take at once goes to the spool."""
        self._hurry.set()

    async def stop(self) -> None:
        """End hedging and draining; what the spool holds stays there for the next start."""
        tasks = [*self._tasks, *self._hedges]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, message: ImageSubmitted, lane: TopicSpec, *, spool_after_s: float) -> Handover:
        """Hand `message` over for good: to Kafka, or after `spool_after_s` seconds without success to the spool.

        Raises `gateway.spool.errors.SpoolError` when neither takes it, `PublishRefused` when Kafka never will.
        """
        if not self.kafka_away and await self._publish_within(message, lane, spool_after_s):
            return Handover.KAFKA
        self.forget(message.scan_id)
        await self._spool.append(Parcel(IMAGES_BACKLOG, message, message.sha256))
        return Handover.SPOOL

    async def insist(self, message: ImageSubmitted) -> None:
        """Publish `message` to the backlog, however long Kafka is away. Raises `PublishRefused`."""
        await self._started.wait()
        await self._producer.publish(IMAGES_BACKLOG, message, key=message.sha256)

    async def bury(self, failed: ImageFailed) -> None:
        """Publish, or spool, why an image that was answered for is not judged. Raises as `send` does."""
        self._metrics.dead_letters.inc()
        await self._publish_or_spool(IMAGES_DEAD, failed, failed.scan_id.encode())

    async def declare(self, verdict: Verdict) -> None:
        """Publish, or spool, a verdict of this gateway's own. Raises as `send` does."""
        await self._publish_or_spool(VERDICTS, verdict, verdict.sha256)

    async def _publish_or_spool(self, topic: TopicSpec, message: Message, key: bytes) -> None:
        if not self.kafka_away:
            with contextlib.suppress(BrokerUnavailable):
                await self._producer.publish(topic, message, key=key, give_up_after=_HURRY_S)
                return
        await self._spool.append(Parcel(topic, message, key))

    def forget(self, scan_id: str) -> None:
        """The image is judged, or nobody waits for it any more: it is not published a second time."""
        self._hedgeable.pop(scan_id, None)
        self._steering.forget(scan_id)

    async def _publish_within(self, message: ImageSubmitted, lane: TopicSpec, seconds: float) -> bool:
        publishing = asyncio.create_task(self._publish(message, lane))
        hurrying = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait((publishing, hurrying), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not publishing.done() and hurrying.done():
                await asyncio.wait((publishing,), timeout=min(_HURRY_S, seconds))
            if publishing.done():
                publishing.result()
                return True
            return False
        finally:
            hurrying.cancel()
            publishing.cancel()  # it may yet be written: then the image is judged twice, under one scan id
            await asyncio.gather(publishing, hurrying, return_exceptions=True)

    async def _publish(self, message: ImageSubmitted, lane: TopicSpec, *, again: bool = False) -> None:
        await self._started.wait()
        if lane != IMAGES:
            await self._producer.publish(lane, message, key=message.sha256)
            return
        partition = self._steering.choose(message.sha256, again=again)
        self._hedgeable[message.scan_id] = message
        self._steering.sent(message.scan_id, partition)
        await self._producer.publish(IMAGES, message, key=message.sha256, partition=partition)

    async def _publish_parcel(self, parcel: Parcel) -> None:
        image = parcel.message
        if not isinstance(image, ImageSubmitted):
            await self._producer.publish(parcel.topic, image, key=parcel.key)
            return
        waited_ms = now_ms() - image.received_at
        if waited_ms > self._spool_max_age_ms:
            detail = f"it waited {waited_ms / 3_600_000:.0f} h for Kafka, more than gateway.spool_max_age_h"
            await self._give_up(image, "spool-too-old", detail)
            return
        try:
            await self._producer.publish(parcel.topic, image, key=parcel.key)
        except PublishRefused as error:
            await self._give_up(image, "unpublishable", str(error))

    async def _give_up(self, image: ImageSubmitted, reason: str, detail: str) -> None:
        log.error("a spooled image will not be judged", scan_id=image.scan_id, reason=reason, detail=detail)
        failed = ImageFailed(
            scan_id=image.scan_id,
            tenant=image.tenant,
            sha256=image.sha256,
            reason=reason,
            detail=detail[:1000],
            topic=IMAGES_BACKLOG.name,
            partition=0,
            offset=0,
            failed_at=now_ms(),
        )
        await self._producer.publish(IMAGES_DEAD, failed, key=image.scan_id.encode())
        self._metrics.dead_letters.inc()

    async def _hedge(self) -> None:
        loop = asyncio.get_running_loop()
        count_at = loop.time()
        while True:
            if loop.time() >= count_at:
                count_at = loop.time() + _COUNT_EVERY_S
                with contextlib.suppress(BrokerUnavailable):
                    self._steering.resize(await self._producer.partition_count(IMAGES))
            await asyncio.sleep(_LOOK_EVERY_S)
            self._note_kafka()
            for scan_id in self._steering.overdue():
                message = self._hedgeable.get(scan_id)
                if message is not None:
                    task = asyncio.create_task(self._publish_again(message))
                    self._hedges.add(task)
                    task.add_done_callback(self._hedges.discard)

    def _note_kafka(self) -> None:
        away = self.kafka_away
        if away and not self._was_away:
            log.warning("Kafka takes nothing: images go to disk until it does")
        elif self._was_away and not away:
            log.info("Kafka takes messages again", images_on_disk=self._storage.images)
        self._was_away = away

    async def _publish_again(self, message: ImageSubmitted) -> None:
        self._metrics.hedges.inc()
        try:
            await self._publish(message, IMAGES, again=True)
        except BrokerError as error:  # the first copy is in Kafka: nothing is lost
            log.warning("not published a second time", scan_id=message.scan_id, error=str(error))
