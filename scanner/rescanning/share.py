"""A scanner's share of one rescan: images of the archive, judged behind everything else."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from scanner.failures import FailureReason, ImageSuspected, ImageUnjudgeable, ModelGone
from scanner.judging import Judged, Judging, image_in
from scanner.models.model import ModelHung
from scanner.rescanning.fronts import Front, Place
from scanner.rescanning.policies import RescanPolicies
from schemas.broker import (
    BrokerError,
    BrokerSettings,
    Consumer,
    Partition,
    Producer,
    PublishRefused,
    Received,
    open_logs,
)
from schemas.clock import now_ms
from schemas.codec import CodecError
from schemas.messages import ImageSubmitted, Rejudged, RescanJudged, RescanOrdered
from schemas.topics import IMAGES_ARCHIVE, RESCANS

log = structlog.get_logger("scanner.rescanning")

POLL_TIMEOUT_S = 0.5

PUBLISH_EVERY_S = 1.0
"""Less than a consumer's `drain_s`: what is judged is done before its partition goes to another scanner."""

MOST_AT_ONCE = 500
"""Records of which one message speaks, at most."""

ASK_EVERY_S = 5.0
"""How often to look whether the others are done too: one that is killed leaves its part to us."""

FINISH_WITHIN_S = 2.0

UNREADABLE = "unreadable"
"""Why an image is held: no key opens its frames, they do not decode, or no model comes back from them."""


class Share:
    """Works on a rescan as one of its consumer group.

    It takes images only while `quiet` says that nothing else is in hand, and at most `in_flight` of them. A record is
    done when the topic rescans says what was made of it.

    An image that a model hangs or breaks on ends this process. The next to take its partition begins there, and gives
    each of the first images the model to itself: the one that does it again is held, so that it ends two scanners.
    """

    def __init__(
        self,
        job: RescanOrdered,
        policies: RescanPolicies,
        *,
        broker: BrokerSettings,
        scanner: str,
        consumer: Consumer,
        producer: Producer,
        judging: Judging,
        quiet: Callable[[], Awaitable[None]],
        in_flight: int,
    ) -> None:
        self._job = job
        self._policies = policies
        self._spans = {span.partition: span for span in job.spans if span.topic == IMAGES_ARCHIVE.name}
        self._broker = broker
        self._scanner = scanner
        self._consumer = consumer
        self._producer = producer
        self._judging = judging
        self._quiet = quiet
        self._in_flight = in_flight
        self._fronts: dict[int, Front] = {}
        self._epoch = 0
        self._in_hand: set[asyncio.Task[None]] = set()
        self._publishing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._hung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(self) -> None:
        """Take and judge images until nobody has any left in the rescan's spans.

        Raises a `BrokerError`, what `quiet` raises, or `ModelHung` where a thread is lost.
        """
        parts = [asyncio.create_task(part, name="rescan") for part in (self._take(), self._publish_often())]
        try:
            done, _ = await asyncio.wait([*parts, self._hung], return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def finish(self) -> None:
        """After `work`: let what is in hand end within `FINISH_WITHIN_S`, and publish it. The rest is for others."""
        in_hand = list(self._in_hand)
        if in_hand:
            await asyncio.wait(in_hand, timeout=FINISH_WITHIN_S)
        for task in in_hand:
            task.cancel()
        await asyncio.gather(*in_hand, return_exceptions=True)
        publishing = self._publishing
        try:
            async with asyncio.timeout(FINISH_WITHIN_S):
                if publishing is not None:
                    await asyncio.wait([publishing])
                await self._publish()
        except (TimeoutError, BrokerError) as error:
            then = "others judge these images again"
            log.warning("rescan_not_published", rescan=self._job.rescan, error=repr(error), then=then)
        finally:
            if publishing is not None:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)

    async def _take(self) -> None:
        asked_at = time.monotonic()
        while True:
            while len(self._in_hand) >= self._in_flight:
                self._changed.clear()
                await self._changed.wait()
            await self._quiet()
            room = self._in_flight - len(self._in_hand)
            records = await self._consumer.poll(max_messages=room, timeout_s=POLL_TIMEOUT_S)
            for received in records:
                self._start(received)
            idle = not records and not self._in_hand and not any(front.open for front in self._fronts.values())
            if idle and time.monotonic() - asked_at >= ASK_EVERY_S:
                if await count_left(self._broker, self._job) == 0:
                    return
                asked_at = time.monotonic()

    def _start(self, received: Received) -> None:
        front = self._front_of(received)
        place = front.take(received)
        image = self._image_of_ours(received)
        if image is None:
            place.settle(None)
            return
        alone = front.taken <= self._in_flight
        task = asyncio.create_task(self._judge(image, place, alone=alone))
        self._in_hand.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        self._changed.set()

    def _front_of(self, received: Received) -> Front:
        if received.epoch != self._epoch:
            self._epoch = received.epoch
            self._fronts.clear()  # of the assignment before: whoever has those partitions now has begun anew
        return self._fronts.setdefault(received.partition, Front())

    def _image_of_ours(self, received: Received) -> ImageSubmitted | None:
        """The image that the rescan is about in this record, None where there is none.

        `RescanOrdered.only` cannot be told here: an archived image does not say how it stands.
        """
        job, span = self._job, self._spans.get(received.partition)
        if span is None or not span.begin <= received.offset < span.end:
            return None
        if not job.since <= received.timestamp_ms <= job.until:
            return None
        try:
            if received.fault is not None:
                raise received.fault
            image = image_in(received)
        except (CodecError, ImageUnjudgeable) as error:
            # Whose image it was is not known either: nothing can be said of it but this.
            log.warning("rescan_record_unreadable", **self._place(received), error=str(error))
            return None
        return image if image is not None and self._policies.concern(image.tenant) else None

    async def _judge(self, image: ImageSubmitted, place: Place, *, alone: bool) -> None:
        received = place.received
        try:
            judged = await self._judging.judge(image, self._policies.of, alone=alone)
            place.settle(_rejudged(image, received, judged))
        except ImageUnjudgeable as failure:
            place.settle(self._held(image, received, failure.reason, failure.detail))
        except ImageSuspected:
            if alone:  # else it stays unsettled, for who comes after us
                place.settle(self._held(image, received, FailureReason.MODEL_HUNG, "it was alone with the model"))
        except ModelGone:
            pass  # unsettled as well
        except ModelHung as hung:
            place.settle(self._held(image, received, FailureReason.MODEL_HUNG, str(hung)))
            if not self._hung.done():
                self._hung.set_exception(hung)
        except Exception as error:
            # The edge of one image: a fault of ours here must stop neither the others nor the partition.
            log.exception("rescan_failed_unexpectedly", **self._place(received))
            detail = f"{type(error).__name__}: {error}"
            place.settle(self._held(image, received, FailureReason.UNEXPECTED, detail))

    def _held(self, image: ImageSubmitted, received: Received, reason: FailureReason, detail: str) -> Rejudged:
        log.warning(
            "rescan_image_held", scan_id=image.scan_id, reason=str(reason), detail=detail, **self._place(received)
        )
        return Rejudged(
            offset=received.offset, scan_id=image.scan_id, tenant=image.tenant, sha256=image.sha256, held=UNREADABLE
        )

    def _place(self, received: Received) -> dict[str, str | int]:
        return {"rescan": self._job.rescan, "partition": received.partition, "offset": received.offset}

    async def _publish_often(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_EVERY_S)
            self._publishing = asyncio.create_task(self._publish(), name="rescan-publish")
            # Not cancelled with us: what is on its way is said, and `finish` would say it once more.
            await asyncio.shield(self._publishing)

    async def _publish(self) -> None:
        for partition, front in list(self._fronts.items()):
            while places := front.ready(MOST_AT_ONCE):
                await self._say(partition, places)
                for place in places:
                    self._consumer.done(place.received)
                front.published(len(places))

    async def _say(self, partition: int, places: Sequence[Place]) -> None:
        images = tuple(place.rejudged for place in places if place.rejudged is not None)
        if not images:
            return
        message = RescanJudged(
            rescan=self._job.rescan,
            topic=IMAGES_ARCHIVE.name,
            partition=partition,
            begin=places[0].received.offset,
            end=places[-1].received.offset + 1,
            models=self._job.models,
            images=images,
            judged_at=now_ms(),
            worker=self._scanner,
        )
        try:
            await self._producer.publish(RESCANS, message, key=message.key)
        except PublishRefused:
            if len(places) == 1:
                raise
            half = len(places) // 2  # too large: many scores an image
            await self._say(partition, places[:half])
            await self._say(partition, places[half:])


def _rejudged(image: ImageSubmitted, received: Received, judged: Judged) -> Rejudged:
    judgement = judged.judgement
    return Rejudged(
        offset=received.offset,
        scan_id=image.scan_id,
        tenant=image.tenant,
        sha256=image.sha256,
        after=judgement.decision,
        rules=judgement.rules,
        scores=judged.rounded_scores,
        worst_frame=judgement.worst_frame,
        policy=judged.policy.id,
    )


async def count_left(broker: BrokerSettings, job: RescanOrdered) -> int:
    """How many offsets of a rescan's spans of the archive nobody has done yet; what has left the log is nobody's.

    Raises a `BrokerError`. A partition that does not answer counts with all that it might have.
    """
    async with open_logs(broker) as logs:
        committed = await logs.committed(job.group, (IMAGES_ARCHIVE,))
        bounds = await logs.bounds((IMAGES_ARCHIVE,))
    left = 0
    for span in job.spans:
        partition = Partition(IMAGES_ARCHIVE, span.partition)
        begin = bounds[partition].begin if partition in bounds else 0
        left += max(0, span.end - max(span.begin, begin, committed.get(partition, 0)))
    return left
