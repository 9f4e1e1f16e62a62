"""A stand-in for the scanner: it judges by a function, on a real Kafka, for tests of what stands around it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from schemas.broker import BrokerSettings, Consumer, Producer, Received, Tail
from schemas.clock import now_ms
from schemas.messages import (
    EVERY_TENANT,
    AnswerGiven,
    Decision,
    ImageSubmitted,
    RuleFired,
    ScannerAnnounced,
    Stage,
    Verdict,
)
from schemas.topics import ANSWERS, IMAGES, IMAGES_BACKLOG, SCANNERS, VERDICTS, TopicSpec

MODELS = {"stand-in": "0123abcd"}
Judge = Callable[[ImageSubmitted], Decision | None]


class Responder:
    """Reads images and publishes the decisions of `judge`; None keeps silent. In a thread of its own."""

    def __init__(
        self,
        broker: BrokerSettings,
        judge: Judge,
        *,
        policy: str = "p1",
        lanes: tuple[TopicSpec, ...] = (IMAGES,),
        pause_s: float = 0.0,
    ) -> None:
        self._broker = broker
        self._judge = judge
        self._policy = policy
        self._lanes = lanes
        self._pause_s = pause_s
        self.from_backlog: list[ImageSubmitted] = []
        self.seen: list[ImageSubmitted] = []
        self._threads = ThreadPoolExecutor(1)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> "Responder":
        ready = ThreadEvent()
        self._work = self._threads.submit(asyncio.run, self._run(ready))
        ready.wait(self._work)
        return self

    def hurry(self) -> None:
        """Pause no more."""
        self._pause_s = 0.0

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._work.result(30)
        self._threads.shutdown()

    async def _run(self, ready: "ThreadEvent") -> None:
        self._loop = asyncio.get_running_loop()
        async with (
            Producer(self._broker, client_id="responder") as producer,
            Consumer(self._broker, self._lanes, group="responder", client_id="responder") as consumer,
        ):
            await producer.publish(SCANNERS, self._announcement(), key=b"responder")
            ready.set()
            while not self._stop.is_set():
                for received in await consumer.poll(max_messages=50, timeout_s=0.1):
                    await self._answer(producer, received)
                    consumer.done(received)

    async def _answer(self, producer: Producer, received: Received) -> None:
        image = received.message
        assert isinstance(image, ImageSubmitted)
        await asyncio.sleep(self._pause_s)
        self.seen.append(image)
        if received.topic == IMAGES_BACKLOG:
            self.from_backlog.append(image)
        decision = self._judge(image)
        if decision is not None:
            verdict = make_verdict(image, decision, self._policy).model_copy(
                update={"topic": received.topic.name, "partition": received.partition, "offset": received.offset}
            )
            await producer.publish(VERDICTS, verdict, key=image.sha256)

    def _announcement(self) -> ScannerAnnounced:
        return ScannerAnnounced(
            scanner="responder",
            group="responder",
            models=MODELS,
            policies={EVERY_TENANT: self._policy},
            device="cpu",
            announced_at=now_ms(),
        )


class ThreadEvent:
    """Set by a thread; waiting for it ends with the thread's error when it fails instead."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set

    def wait(self, work: Any) -> None:
        work.add_done_callback(lambda _: self._event.set())
        assert self._event.wait(60)
        if work.done():
            work.result()


def make_verdict(image: ImageSubmitted, decision: Decision, policy: str = "p1") -> Verdict:
    return Verdict(
        scan_id=image.scan_id,
        tenant=image.tenant,
        sha256=image.sha256,
        decision=decision,
        rules=() if decision is Decision.ACCEPT else (RuleFired(name="rule", decision=decision, frame=0),),
        scores={"stand-in/nsfw": 0.5},
        frame_count=len(image.frames),
        pdq=tuple(frame.pdq for frame in image.frames),
        pdq_quality=tuple(frame.pdq_quality for frame in image.frames),
        media_type=image.media_type,
        length=image.length,
        models=MODELS,
        policy=policy,
        stage=Stage.LIVE,
        scanner="responder",
        topic="images",
        partition=0,
        offset=0,
        received_at=image.received_at,
        judged_at=now_ms(),
    )


def answers_given(broker: BrokerSettings, count: int) -> list[AnswerGiven]:
    """The ledger, once it has `count` entries."""

    async def go() -> list[AnswerGiven]:
        found: list[AnswerGiven] = []
        complete = asyncio.Event()

        def note(received: Received) -> None:
            assert isinstance(received.message, AnswerGiven)
            found.append(received.message)
            if len(found) >= count:
                complete.set()

        async with Tail(broker, (ANSWERS,), since_s=3600, on_record=note, client_id="test") as tail:
            await tail.wait_positioned()
            async with asyncio.timeout(20):
                await complete.wait()
        return found

    return asyncio.run(go())
