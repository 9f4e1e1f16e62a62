"""Rescans of archived frames on a real Apache Kafka: by running scanners, behind what is live."""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs

from scanner.models.model import Prepared, Probabilities
from scanner.policy import parse_policy
from scanner.rescanning.share import count_left
from schemas.broker import BrokerSettings, Producer, Published, open_logs
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    ImageSubmitted,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanSpan,
    RescanState,
    RescanTier,
)
from schemas.topics import IMAGES_ARCHIVE, IMAGES_DEAD, RESCAN_JOBS, RESCANS, SCANNERS, VERDICTS, TopicSpec
from tests.scanners import (
    KEYRING,
    PATIENCE_S,
    Observed,
    jpeg,
    observing,
    scanner_process,
    scanning,
    submit,
    submitted,
)
from tests.unit.scanner.stub_models import RedModel

pytestmark = pytest.mark.kafka

TOPICS = (RESCANS, VERDICTS, IMAGES_DEAD, SCANNERS)
LIVE, BEHIND = (200, 0, 0), (100, 0, 0)
NO_TENANTS: tuple[str, ...] = ()

POLICY = """
[policy]
name = "stricter"
[[rule]]
name = "red"
says = "It is red."
decision = "reject"
when = { score = "red/red", at_least = 0.4 }
[[rule]]
name = "reddish"
says = "It is reddish."
decision = "review"
when = { score = "red/red", at_least = 0.2 }
"""


def archive_of(count: int) -> list[ImageSubmitted]:
    return [submitted(f"a{number}", jpeg(((number * 37) % 256, 0, 0))) for number in range(count)]


async def spans_of_archive(broker: BrokerSettings) -> tuple[RescanSpan, ...]:
    async with open_logs(broker) as logs:
        bounds = await logs.bounds((IMAGES_ARCHIVE,))
    return tuple(
        RescanSpan(topic=IMAGES_ARCHIVE.name, partition=at.number, begin=a, end=b) for at, (a, b) in bounds.items()
    )


async def order(
    producer: Producer,
    broker: BrokerSettings,
    *,
    policies: dict[str, str] | None = None,
    models: dict[str, str] | None = None,
    tenants: tuple[str, ...] = NO_TENANTS,
) -> RescanOrdered:
    """Order a rescan of all that the archive holds by now."""
    job = RescanOrdered(
        rescan="r1",
        tier=RescanTier.FRAMES,
        since=now_ms() - 3_600_000,
        until=now_ms() + 60_000,
        spans=await spans_of_archive(broker),
        tenants=tenants,
        policies=policies or {EVERY_TENANT: POLICY},
        models=models or {"red": "red-1"},
        ordered_at=now_ms(),
        changed_at=now_ms(),
    )
    await say(producer, job)
    return job


async def say(producer: Producer, job: RescanOrdered, state: RescanState = RescanState.RUNNING) -> None:
    stands = job.model_copy(update={"state": state, "changed_at": now_ms()})
    await producer.publish(RESCAN_JOBS, stands, key=job.rescan.encode())


def batches_in(observed: Observed) -> list[RescanJudged]:
    return [message for message in observed.messages(RESCANS) if isinstance(message, RescanJudged)]


def rejudged_in(observed: Observed) -> dict[str, Rejudged]:
    """What was said of each image; whoever said it twice must have said the same."""
    said: dict[tuple[int, int], Rejudged] = {}
    for batch in batches_in(observed):
        assert (batch.rescan, batch.topic) == ("r1", "images.archive")
        for image in batch.images:
            assert batch.begin <= image.offset < batch.end
            assert said.setdefault((batch.partition, image.offset), image) == image
    return {image.scan_id: image for image in said.values()}


async def until_done(broker: BrokerSettings, job: RescanOrdered) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await count_left(broker, job):
            await asyncio.sleep(0.3)


def test_the_archive_is_judged_again_as_a_scanner_judges_live_while_live_images_come(
    fresh_kafka: BrokerSettings,
) -> None:
    archive = archive_of(200)
    animation = submitted("animation", *(jpeg((red, 0, 0)) for red in (0, 90, 220)))
    other_key = submitted("other-key", jpeg((255, 0, 0)), keyring=Keyring.generate())
    no_jpeg = submitted("no-jpeg", b"not a jpeg")
    policy = parse_policy(POLICY, ["red/red"], source="test")

    async def scenario() -> tuple[Observed, list[str]]:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *archive, animation, other_key, no_jpeg, topic=IMAGES_ARCHIVE)
            await producer.publish(IMAGES_ARCHIVE, None, key=archive[0].sha256)
            with capture_logs() as logs:
                async with scanning(fresh_kafka, models=[RedModel()], policy=policy, batch=4, archive=False):
                    job = await order(producer, fresh_kafka)
                    await submit(producer, submitted("too-new", jpeg((255, 0, 0))), topic=IMAGES_ARCHIVE)
                    await submit(producer, *archive, animation)
                    await observed.until(lambda: len(observed.verdicts) == 201)
                    await observed.until(lambda: len(rejudged_in(observed)) == 203)
                    await until_done(fresh_kafka, job)
                    async with asyncio.timeout(PATIENCE_S):
                        while "rescan_left" not in (events := [line["event"] for line in logs]):
                            await asyncio.sleep(0.1)
            return observed, events

    observed, events = asyncio.run(scenario())
    rejudged = rejudged_in(observed)
    assert events.count("rescan_joined") == 1
    for scan_id, verdict in observed.verdicts.items():
        image = rejudged[scan_id]
        assert (image.after, image.rules, image.worst_frame) == (verdict.decision, verdict.rules, verdict.worst_frame)
        assert (image.scores, image.policy, image.before, image.held) == (verdict.scores, verdict.policy, None, "")
        assert (image.sha256, image.tenant) == (verdict.sha256, "default")
    assert {image.after for image in rejudged.values()} == {*Decision, None}
    assert rejudged["animation"].worst_frame == 2
    held = {scan_id: (image.after, image.held) for scan_id, image in rejudged.items() if image.after is None}
    assert held == {"other-key": (None, "unreadable"), "no-jpeg": (None, "unreadable")}
    assert observed.failures == []  # a gateway would take that for the end of an image
    assert all(batch.models == {"red": "red-1"} and batch.worker for batch in batches_in(observed))


def test_only_the_images_of_the_tenants_and_of_the_spans_are_judged(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> Observed:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *archive_of(40), topic=IMAGES_ARCHIVE)
            before = {span.partition: span.end for span in await spans_of_archive(fresh_kafka)}
            named = [
                image.model_copy(
                    update={
                        "scan_id": f"{tenant}-{number}",
                        "tenant": tenant,
                        "sealed": KEYRING.seal([jpeg((200, 0, 0))], sha256=image.sha256, tenant=tenant),
                    }
                )
                for number, image in enumerate(archive_of(12))
                for tenant in ("art", "news")
            ]
            await submit(producer, *named, topic=IMAGES_ARCHIVE)
            spans = await spans_of_archive(fresh_kafka)
            job = await order(producer, fresh_kafka, tenants=("art",), policies={"art": POLICY, "default": POLICY})
            later = tuple(span.model_copy(update={"begin": before[span.partition]}) for span in spans)
            await say(producer, job.model_copy(update={"spans": later, "rescan": "r1"}))
            async with scanning(fresh_kafka, models=[RedModel()]):
                await observed.until(lambda: len(rejudged_in(observed)) == 12)
                await until_done(fresh_kafka, job)
        return observed

    observed = asyncio.run(scenario())
    assert {image.scan_id for image in rejudged_in(observed).values()} == {f"art-{number}" for number in range(12)}


def test_a_live_image_waits_for_one_inference_of_a_rescan_at_most(fresh_kafka: BrokerSettings) -> None:
    judged: list[str] = []
    model_is_busy, live_is_in_hand = threading.Event(), threading.Event()

    class Watching(RedModel):
        def prepare(self, image: Image.Image) -> Prepared:
            prepared = super().prepare(image)
            if prepared[0] > 150:
                live_is_in_hand.set()
            return prepared

    def note(batch: Sequence[Prepared]) -> Probabilities | None:
        for colour in batch:
            if round(float(colour[0])) != 127:  # the warm-up's grey
                if colour[0] < 150:
                    model_is_busy.set()
                    live_is_in_hand.wait(PATIENCE_S)
                judged.append("live" if colour[0] > 150 else "rescan")
        return None

    async def scenario() -> None:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *(submitted(f"a{n}", jpeg(BEHIND)) for n in range(20)), topic=IMAGES_ARCHIVE)
            await order(producer, fresh_kafka)
            async with scanning(fresh_kafka, models=[Watching(note)], batch=1, archive=False):
                await asyncio.to_thread(model_is_busy.wait, PATIENCE_S)
                await submit(producer, submitted("live", jpeg(LIVE)))
                await observed.until(lambda: "live" in observed.verdicts and len(rejudged_in(observed)) == 20)

    asyncio.run(scenario())
    # The model was kept busy until the live image had been decoded: it comes next, before those taken earlier.
    assert judged.index("live") == 1


def test_scanners_share_a_rescan_and_one_may_be_killed(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAUSE_S", "0.02")

    async def scenario() -> tuple[Observed, dict[str, Rejudged]]:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *archive_of(300), topic=IMAGES_ARCHIVE)
            async with (
                scanner_process(fresh_kafka, tmp_path) as victim,
                scanning(fresh_kafka, models=[Slow()], archive=False),
            ):
                await observed.until(lambda: len({each.scanner for each in observed.announcements}) == 2)
                job = await order(producer, fresh_kafka)
                await observed.until(lambda: len({batch.worker for batch in batches_in(observed)}) == 2)
                victim.kill()
                await victim.wait()
                await until_done(fresh_kafka, job)
            return observed, rejudged_in(observed)

    observed, rejudged = asyncio.run(scenario())
    assert set(rejudged) == {f"a{number}" for number in range(300)}
    policy = parse_policy(POLICY, ["red/red"], source="test")
    for image in rejudged.values():
        assert image.after is policy.judge([image.scores]).decision
    assert observed.verdicts == {}


class Slow(RedModel):
    """Takes 20 ms for each frame."""

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        time.sleep(0.02 * len(batch))
        return super().infer(batch)


class OtherModel(RedModel):
    """The same under another id, as a newer version has it."""

    id = "red-2"


def test_scanners_of_other_models_shadows_and_those_told_so_take_no_part(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> tuple[Observed, set[str]]:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *archive_of(30), topic=IMAGES_ARCHIVE)
            with capture_logs() as logs:
                async with (
                    scanning(fresh_kafka, models=[OtherModel()]),
                    scanning(fresh_kafka, models=[RedModel()], shadow=True),
                    scanning(fresh_kafka, models=[RedModel()], rescans=False),
                ):
                    await observed.until(lambda: len({each.scanner for each in observed.announcements}) == 3)
                    await order(producer, fresh_kafka)
                    async with asyncio.timeout(PATIENCE_S):
                        while not [line for line in logs if line["event"] == "rescan_is_for_other_models"]:
                            await asyncio.sleep(0.1)
                    async with scanning(fresh_kafka, models=[RedModel()]):
                        await observed.until(lambda: len(rejudged_in(observed)) == 30)
                        ours = {each.scanner for each in observed.announcements}
                assert len([line for line in logs if line["event"] == "rescan_is_for_other_models"]) == 1
                assert len([line for line in logs if line["event"] == "rescan_joined"]) == 1
            return observed, ours

    observed, ours = asyncio.run(scenario())
    workers = {batch.worker for batch in batches_in(observed)}
    assert len(workers) == 1
    assert workers <= ours


def test_a_rescan_that_is_cancelled_stops_and_goes_on_when_it_is_taken_up_again(
    fresh_kafka: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Producer.publish

    async def publish_slowly(self: Producer, topic: TopicSpec, *args: Any, **options: Any) -> Published:
        published = await publish(self, topic, *args, **options)
        if topic == RESCANS:
            await asyncio.sleep(0.2)  # the broker has it, and we do not know yet
        return published

    async def scenario() -> Observed:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *archive_of(200), topic=IMAGES_ARCHIVE)
            monkeypatch.setattr(Producer, "publish", publish_slowly)
            with capture_logs() as logs:
                async with scanning(fresh_kafka, models=[Slow()], batch=1):
                    job = await order(producer, fresh_kafka)
                    await observed.until(lambda: rejudged_in(observed))
                    await say(producer, job, RescanState.CANCELLED)
                    async with asyncio.timeout(PATIENCE_S):
                        while not [line for line in logs if line["event"] == "rescan_left"]:
                            await asyncio.sleep(0.1)
                    left = await count_left(fresh_kafka, job)
                    assert 0 < left < 200
                    await submit(producer, submitted("live", jpeg((0, 0, 0))))
                    await observed.until(lambda: "live" in observed.verdicts)
                    assert await count_left(fresh_kafka, job) == left
                    await say(producer, job)
                    await until_done(fresh_kafka, job)
            await observed.until(lambda: len(rejudged_in(observed)) == 200)
            # A graceful end gives nothing up that was judged: hardly anything is judged twice.
            assert sum(len(batch.images) for batch in batches_in(observed)) < 210
        return observed

    asyncio.run(scenario())


def test_a_policy_that_does_not_hold_leaves_the_scanner_at_work(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> list[str]:
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(producer, *archive_of(3), topic=IMAGES_ARCHIVE)
            with capture_logs() as logs:
                async with scanning(fresh_kafka, models=[RedModel()]):
                    await order(producer, fresh_kafka, policies={EVERY_TENANT: POLICY.replace("red/red", "red/blue")})
                    async with asyncio.timeout(PATIENCE_S):
                        while not (said := [line for line in logs if line["event"] == "rescan_refused"]):
                            await asyncio.sleep(0.1)
                    await submit(producer, submitted("live", jpeg((0, 0, 0))))
                    await observed.until(lambda: "live" in observed.verdicts)
            assert batches_in(observed) == []
        return [line["error"] for line in said]

    (error,) = asyncio.run(scenario())
    assert "red/blue" in error


def test_an_image_that_models_hang_on_is_held_and_ends_two_scanners(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    goods = archive_of(24)

    async def scenario() -> tuple[Observed, int]:
        hung = 0
        async with observing(fresh_kafka, TOPICS) as (observed, producer):
            await submit(
                producer, *goods[:12], submitted("hangs", jpeg((0, 255, 0))), *goods[12:], topic=IMAGES_ARCHIVE
            )
            await order(producer, fresh_kafka)
            while len(rejudged_in(observed)) < 25:
                async with scanner_process(fresh_kafka, tmp_path, "hang_s=2.0, batch=4") as process:
                    ended = asyncio.create_task(process.wait())
                    settled = asyncio.create_task(observed.until(lambda: len(rejudged_in(observed)) == 25))
                    await asyncio.wait((ended, settled), return_when=asyncio.FIRST_COMPLETED)
                    settled.cancel()
                    if ended.done():
                        assert ended.result() == os.EX_TEMPFAIL
                        assert process.stdout is not None
                        hung += b"hanging" in await process.stdout.read()
        return observed, hung

    observed, hung = asyncio.run(scenario())
    rejudged = rejudged_in(observed)
    assert {scan_id for scan_id, image in rejudged.items() if image.held} == {"hangs"}
    assert rejudged["hangs"].held == "unreadable"
    assert observed.failures == []
    assert 1 <= hung <= 2
