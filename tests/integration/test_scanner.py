"""The scanner on a real Apache Kafka: verdicts, archive, announcements, poison, and a stop in mid-work."""

import asyncio
import contextlib
import hashlib
import io
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from PIL import Image

from scanner.models.model import ModelBroken, ModelHung, Prepared, Probabilities
from scanner.policy import Policy, parse_policy
from scanner.scanning import HANGS, LIVE_FOR_ONE_OF_BACKLOG
from scanner.service import LANES, serve
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Producer, Published, PublishRefused, Received, Tail, TopicsNotReady
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    FrameInfo,
    ImageFailed,
    ImageSubmitted,
    Message,
    ScannerAnnounced,
    Stage,
    Verdict,
)
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG, IMAGES_DEAD, SCANNERS, VERDICTS, TopicSpec
from tests.models import models_dir
from tests.stand_ins import accepted_picture, rejected_picture
from tests.topics import read_topic
from tests.unit.scanner.stub_models import RedModel, is_green

pytestmark = pytest.mark.kafka

KEYRING = Keyring.generate()
OUTPUTS = (VERDICTS, IMAGES_ARCHIVE, IMAGES_DEAD, SCANNERS)
PATIENCE_S = 60.0

RED_POLICY = parse_policy(
    """
    [policy]
    name = "red"
    [[rule]]
    name = "very-red"
    says = "It is very red."
    decision = "reject"
    when = { score = "red/red", at_least = 0.9 }
    [[rule]]
    name = "rather-red"
    says = "It is rather red."
    decision = "review"
    when = { score = "red/red", at_least = 0.6 }
    """,
    ["red/red"],
    source="test",
)


class Observed:
    """Everything a scanner publishes, and a way to wait for it."""

    def __init__(self) -> None:
        self.records: list[Received] = []
        self._changed = asyncio.Event()

    def note(self, received: Received) -> None:
        self.records.append(received)
        self._changed.set()

    def messages(self, topic: TopicSpec) -> list[Message]:
        return [record.message for record in self.records if record.topic == topic and record.message]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {message.scan_id: message for message in self.messages(VERDICTS) if isinstance(message, Verdict)}

    @property
    def failures(self) -> list[ImageFailed]:
        return [message for message in self.messages(IMAGES_DEAD) if isinstance(message, ImageFailed)]

    @property
    def announcements(self) -> list[ScannerAnnounced]:
        return [message for message in self.messages(SCANNERS) if isinstance(message, ScannerAnnounced)]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def observing(
    broker: BrokerSettings, topics: Sequence[TopicSpec] = OUTPUTS
) -> AsyncIterator[tuple[Observed, Producer]]:
    observed = Observed()
    tail = Tail(broker, topics, since_s=3600.0, on_record=observed.note, client_id="test")
    async with Producer(broker, client_id="test") as producer, tail:
        await tail.wait_positioned()
        yield observed, producer


@contextlib.asynccontextmanager
async def scanning(
    broker: BrokerSettings,
    *,
    models: Sequence[RedModel] | None = None,
    policy: Policy | None = None,
    **settings: object,
) -> AsyncIterator[asyncio.Event]:
    """A scanner in this process; it is stopped at the end, and what it raises is raised here."""
    stop = asyncio.Event()
    if models is not None:
        policy = policy or RED_POLICY
    given = ScannerSettings.model_validate({"models_dir": models_dir(), "announce_s": 0.2, **settings})
    running = asyncio.create_task(serve(given, broker, KEYRING, stop, models=models, policy=policy))
    try:
        yield stop
    finally:
        stop.set()
        await running


def jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def submitted(scan_id: str, *jpegs: bytes, keyring: Keyring = KEYRING, deadline_in_s: float = 3600.0) -> ImageSubmitted:
    sha256 = hashlib.sha256(scan_id.encode()).digest()
    frame = FrameInfo(at_ms=0, width=64, height=48, pdq=bytes(range(32)), pdq_quality=100)
    return ImageSubmitted(
        scan_id=scan_id,
        tenant="default",
        sha256=sha256,
        length=1234,
        media_type="image/jpeg",
        received_at=now_ms(),
        deadline_at=now_ms() + int(deadline_in_s * 1000),
        frames=(frame,) * len(jpegs),
        sealed=keyring.seal(jpegs, sha256=sha256, tenant="default"),
        gateway="test",
    )


async def submit(producer: Producer, *images: ImageSubmitted, topic: TopicSpec = IMAGES) -> None:
    for image in images:
        await producer.publish(topic, image, key=image.sha256)


async def uncommitted(broker: BrokerSettings, group: str = "fediwarden-scanner") -> int:
    """How many records of the scanner's lanes the group has not committed."""
    client = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=broker.topic_prefix + group, enable_auto_commit=False
    )
    await client.start()
    try:
        partitions = [
            TopicPartition(lane.full_name(broker.topic_prefix), number)
            for lane in LANES
            for number in range(lane.partitions)
        ]
        ends = await client.end_offsets(partitions)
        return sum([ends[partition] - (await client.committed(partition) or 0) for partition in partitions])
    finally:
        await client.stop()


def test_the_default_scanner_rejects_and_accepts_and_archives_only_what_is_kept(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> Observed:
        async with observing(fresh_kafka) as (observed, producer), scanning(fresh_kafka):
            bad = submitted("bad", accepted_picture(1), rejected_picture(1), accepted_picture(2))
            good = submitted("good", accepted_picture(3))
            await submit(producer, bad, good)
            await observed.until(lambda: len(observed.verdicts) == 2 and observed.messages(IMAGES_ARCHIVE))
            await observed.until(lambda: observed.announcements)
            assert observed.messages(IMAGES_ARCHIVE) == [good]
        await observed_leaving(observed)
        return observed

    async def observed_leaving(observed: Observed) -> None:
        async with observing(fresh_kafka) as (later, _):
            await later.until(lambda: later.announcements and later.announcements[-1].leaving)

    observed = asyncio.run(scenario())
    bad, good = observed.verdicts["bad"], observed.verdicts["good"]
    assert (bad.decision, good.decision) == (Decision.REJECT, Decision.ACCEPT)
    assert [(rule.name, rule.frame) for rule in bad.rules] == [("sexual", 1), ("perhaps-sexual", 1)]
    assert (bad.worst_frame, bad.frame_count, len(bad.pdq)) == (1, 3, 3)
    assert set(bad.scores) == {"safety-s/NSFL", "safety-s/NSFW", "open-nsfw/nsfw"}
    assert set(bad.models) == {"safety-s", "open-nsfw"}
    assert (bad.stage, bad.topic, bad.media_type, bad.tenant) == (Stage.LIVE, "images", "image/jpeg", "default")
    assert bad.timings.infer > 0
    assert bad.timings.decode > 0
    record = next(record for record in observed.records if record.message == bad)
    assert record.key == bad.sha256
    assert record.size < 1024
    announced = observed.announcements[0]
    assert (announced.models, announced.policies) == (bad.models, {EVERY_TENANT: bad.policy})
    assert (announced.scanner, announced.device, announced.leaving) == (bad.scanner, "cpu", False)


def test_every_image_is_judged_once_committed_and_reviewed_ones_are_archived(fresh_kafka: BrokerSettings) -> None:
    reds = {f"scan-{number}": (number * 37) % 256 for number in range(60)}

    async def scenario() -> Observed:
        async with observing(fresh_kafka) as (observed, producer):
            async with scanning(fresh_kafka, models=[RedModel()]):
                await submit(producer, *(submitted(name, jpeg((red, 0, 0))) for name, red in reds.items()))
                await observed.until(lambda: len(observed.verdicts) == len(reds))
            assert await uncommitted(fresh_kafka) == 0
            kept = {name for name, verdict in observed.verdicts.items() if verdict.decision is not Decision.REJECT}
            await observed.until(lambda: len(observed.messages(IMAGES_ARCHIVE)) >= len(kept))
            archived = [m.scan_id for m in observed.messages(IMAGES_ARCHIVE) if isinstance(m, ImageSubmitted)]
            assert sorted(archived) == sorted(kept)
        return observed

    observed = asyncio.run(scenario())
    assert len(observed.messages(VERDICTS)) == len(reds)
    for name, verdict in observed.verdicts.items():
        expected = Decision.REJECT if reds[name] > 232 else Decision.REVIEW if reds[name] > 156 else Decision.ACCEPT
        assert abs(verdict.scores["red/red"] - reds[name] / 255) < 0.03
        if min(abs(reds[name] - edge) for edge in (229.5, 153)) > 5:
            assert verdict.decision is expected


def test_the_archive_can_be_switched_off(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanning(fresh_kafka, models=[RedModel()], archive=False),
        ):
            await submit(producer, *(submitted(f"s{n}", jpeg((0, 0, 0))) for n in range(5)))
            await observed.until(lambda: len(observed.verdicts) == 5)
        async with observing(fresh_kafka) as (later, _):
            assert len(later.verdicts) == 5
            assert later.messages(IMAGES_ARCHIVE) == []

    asyncio.run(scenario())


def test_the_backlog_is_judged_too_and_says_so(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> Verdict:
        async with observing(fresh_kafka) as (observed, producer), scanning(fresh_kafka, models=[RedModel()]):
            await submit(producer, submitted("late", jpeg((0, 0, 0))), topic=IMAGES_BACKLOG)
            await observed.until(lambda: observed.verdicts)
            return observed.verdicts["late"]

    verdict = asyncio.run(scenario())
    assert (verdict.stage, verdict.topic) == (Stage.BACKLOG, "images.backlog")


def test_what_is_late_goes_behind_unchanged_and_is_judged_there(fresh_kafka: BrokerSettings) -> None:
    late = [submitted(f"late-{number}", jpeg((0, 0, 0)), deadline_in_s=-60.0) for number in range(30)]
    fresh = [submitted(f"fresh-{number}", jpeg((0, 0, 0))) for number in range(3)]

    async def scenario() -> Observed:
        moved = Observed()
        async with (
            observing(fresh_kafka) as (observed, producer),
            Tail(fresh_kafka, [IMAGES_BACKLOG], since_s=60.0, on_record=moved.note, client_id="test"),
        ):
            await submit(producer, *late, *fresh)
            async with scanning(fresh_kafka, models=[RedModel()]):
                await observed.until(lambda: len(observed.verdicts) == 33)
                await moved.until(lambda: len(moved.records) == 30)
            assert await uncommitted(fresh_kafka) == 0
        assert sorted(image.scan_id for image in late) == sorted(record.message.scan_id for record in moved.records)
        assert all(record.message in late and record.key == record.message.sha256 for record in moved.records)
        return observed

    observed = asyncio.run(scenario())
    assert len(observed.messages(VERDICTS)) == 33
    stages = {scan_id: (verdict.stage, verdict.topic) for scan_id, verdict in observed.verdicts.items()}
    assert {stages[image.scan_id] for image in late} == {(Stage.BACKLOG, "images.backlog")}
    assert {stages[image.scan_id] for image in fresh} == {(Stage.LIVE, "images")}


def test_what_the_backlog_refuses_is_judged_where_it_stands(
    fresh_kafka: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(Producer):
        async def publish(self, topic: TopicSpec, *args: Any, **options: Any) -> Published:
            if topic == IMAGES_BACKLOG:
                raise PublishRefused("too large")
            return await super().publish(topic, *args, **options)

    async def scenario() -> Verdict:
        async with observing(fresh_kafka) as (observed, producer):
            monkeypatch.setattr("scanner.service.Producer", Refused)
            async with scanning(fresh_kafka, models=[RedModel()]):
                await submit(producer, submitted("late", jpeg((0, 0, 0)), deadline_in_s=-60.0))
                await observed.until(lambda: observed.verdicts)
            assert await uncommitted(fresh_kafka) == 0
            return observed.verdicts["late"]

    assert asyncio.run(scenario()).stage is Stage.LIVE


LIVE, BEHIND = (200, 0, 0), (100, 0, 0)


def test_the_backlog_has_its_share_while_the_live_lane_is_full_and_no_more(fresh_kafka: BrokerSettings) -> None:
    in_flight = 10
    in_hand: Counter[str] = Counter()
    judged: list[str] = []
    both_are_full = threading.Event()

    def lane_of(colour: Prepared) -> str:
        return "live" if colour[0] > 150 else "backlog" if colour[0] < 110 else "grey"

    class Watching(RedModel):
        def prepare(self, image: Image.Image) -> Prepared:
            prepared = super().prepare(image)
            in_hand[lane_of(prepared)] += 1
            if in_hand["live"] == in_flight and in_hand["backlog"] >= in_flight // LIVE_FOR_ONE_OF_BACKLOG:
                both_are_full.set()
            return prepared

    def note(batch: Sequence[Prepared]) -> Probabilities | None:
        lanes = [lane_of(colour) for colour in batch]
        if "live" in lanes:
            both_are_full.wait(PATIENCE_S)
        judged.extend(lanes)
        return None

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await submit(producer, *(submitted(f"l{n}", jpeg(LIVE)) for n in range(300)))
            await submit(producer, *(submitted(f"b{n}", jpeg(BEHIND)) for n in range(40)), topic=IMAGES_BACKLOG)
            async with scanning(fresh_kafka, models=[Watching(note)], batch=1, in_flight=in_flight):
                await observed.until(lambda: len(observed.verdicts) == 340)

    asyncio.run(scenario())
    lanes = [lane for lane in judged if lane != "grey"]
    while_both_wait = lanes[lanes.index("live") : lanes.index("live") + 240]
    share = 240 // (1 + LIVE_FOR_ONE_OF_BACKLOG)
    assert share - 1 <= while_both_wait.count("backlog") <= 2 * share


def test_a_fresh_image_waits_for_a_few_of_the_backlog_alone(fresh_kafka: BrokerSettings) -> None:
    judged: list[str] = []
    model_is_busy, fresh_is_in_hand = threading.Event(), threading.Event()

    class Watching(RedModel):
        def prepare(self, image: Image.Image) -> Prepared:
            prepared = super().prepare(image)
            if prepared[0] > 150:
                fresh_is_in_hand.set()
            return prepared

    def note(batch: Sequence[Prepared]) -> Probabilities | None:
        for colour in batch:
            if round(float(colour[0])) != 127:  # the warm-up's grey
                model_is_busy.set()
                fresh_is_in_hand.wait()
                judged.append("live" if colour[0] > 150 else "backlog")
        return None

    async def scenario() -> None:
        async with observing(fresh_kafka) as (observed, producer):
            await submit(producer, *(submitted(f"b{n}", jpeg(BEHIND)) for n in range(40)), topic=IMAGES_BACKLOG)
            async with scanning(fresh_kafka, models=[Watching(note)], batch=1):
                await asyncio.to_thread(model_is_busy.wait, PATIENCE_S)
                await submit(producer, submitted("fresh", jpeg(LIVE)))
                await observed.until(lambda: len(observed.verdicts) == 41)

    asyncio.run(scenario())
    assert judged.index("live") <= 2


def test_an_image_that_models_hang_on_ends_a_few_scanners_and_no_more(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    async def scenario() -> tuple[Observed, list[bytes]]:
        hung = []
        async with observing(fresh_kafka) as (observed, producer):
            goods = [submitted(f"good-{number}", jpeg((10, 10, 10))) for number in range(12)]
            await submit(producer, *goods[:6], submitted("hangs", jpeg((0, 255, 0))), *goods[6:])

            def is_settled() -> bool:
                return len(observed.verdicts) == 12 and bool(observed.failures)

            while not is_settled():
                async with scanner_process(fresh_kafka, tmp_path, "hang_s=2.0, batch=4") as process:
                    ended = asyncio.create_task(process.wait())
                    settled = asyncio.create_task(observed.until(is_settled))
                    await asyncio.wait((ended, settled), return_when=asyncio.FIRST_COMPLETED)
                    settled.cancel()
                    if ended.done():
                        assert ended.result() == os.EX_TEMPFAIL
                        assert process.stdout is not None
                        said = await process.stdout.read()
                        # On a busy machine it also ends because its models were not loaded in five times hang_s.
                        assert b"hanging" in said or b"the models are not loaded" in said, said
                        if b"hanging" in said:
                            hung.append(said)
            return observed, hung

    observed, hung = asyncio.run(scenario())
    assert {(failure.scan_id, failure.reason) for failure in observed.failures} == {("hangs", "model-hung")}
    assert set(observed.verdicts) == {f"good-{number}" for number in range(12)}
    # It may be told before the last has ended; and a try counts for nothing where Kafka did not hear of it in time.
    assert HANGS - 1 <= len(hung) <= 2 * HANGS, b"\n\n".join(hung).decode()


def test_a_scanner_stops_although_its_model_hangs(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanner_process(fresh_kafka, tmp_path, "hang_s=3600.0, stop_s=0.2") as process,
        ):
            await submit(producer, submitted("hangs", jpeg((0, 255, 0))))
            assert process.stdout is not None
            while b"hanging" not in await process.stdout.readline():
                pass
            process.terminate()
            assert await process.wait() == 0
            await observed.until(lambda: observed.announcements[-1].leaving)
            assert observed.verdicts == {}
            async with scanning(fresh_kafka, models=[RedModel()]):
                await observed.until(lambda: "hangs" in observed.verdicts)

    asyncio.run(scenario())


def test_a_scanner_stopped_under_load_loses_nothing_and_contradicts_nobody(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    reds = {f"s{number}": (number * 37) % 256 for number in range(300)}

    async def scenario() -> Observed:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanner_process(fresh_kafka, tmp_path) as going,
            scanning(fresh_kafka, models=[RedModel()]),
        ):
            await observed.until(lambda: len({each.scanner for each in observed.announcements}) == 2)
            sending = asyncio.create_task(submit(producer, *(submitted(n, jpeg((r, 0, 0))) for n, r in reds.items())))
            await observed.until(lambda: len({verdict.scanner for verdict in observed.verdicts.values()}) == 2)
            going.terminate()
            assert await going.wait() == 0
            await sending
            await observed.until(lambda: len(observed.verdicts) == len(reds))
        assert await uncommitted(fresh_kafka) == 0
        return observed

    observed = asyncio.run(scenario())
    assert set(observed.verdicts) == set(reds)
    said: dict[str, set[Any]] = {}
    for verdict in observed.messages(VERDICTS):
        assert isinstance(verdict, Verdict)
        said.setdefault(verdict.scan_id, set()).add((verdict.decision, verdict.scores["red/red"], verdict.sha256))
    assert all(len(each) == 1 for each in said.values())


def spoil_on_green(batch: Sequence[Prepared]) -> Probabilities | None:
    """Raise for a green picture; give NaN for a green one with some blue."""
    if any(is_green(colour) and colour[2] < 60 for colour in batch):
        raise ArithmeticError("green")
    if any(is_green(colour) for colour in batch):
        return np.array([[np.nan if is_green(colour) else colour[0] / 255] for colour in batch], dtype=np.float32)
    return None


def test_poison_goes_to_images_dead_with_its_reason_and_the_partition_moves_on(fresh_kafka: BrokerSettings) -> None:
    poison = [
        submitted("other-key", jpeg((0, 0, 0)), keyring=Keyring.generate()),
        submitted("no-jpeg", b"not a jpeg"),
        submitted("raises", jpeg((0, 255, 0))),
        submitted("nan", jpeg((0, 255, 100))),
    ]
    topic = IMAGES.full_name(fresh_kafka.topic_prefix)

    async def scenario() -> Observed:
        raw = AIOKafkaProducer(bootstrap_servers=fresh_kafka.bootstrap_servers)
        await raw.start()
        async with observing(fresh_kafka) as (observed, producer):
            # One partition, so that each must be passed to reach the next.
            await raw.send_and_wait(topic, b"\xff garbage", key=b"k", partition=0)
            await raw.send_and_wait(topic, b"\x80", partition=0, headers=[("schema", b"image-submitted/99")])
            await raw.send_and_wait(topic, b"\x80", partition=0, headers=[("schema", b"image-submitted/1")])
            await raw.send_and_wait(topic, None, key=b"tombstone", partition=0)
            await raw.stop()
            async with scanning(fresh_kafka, models=[RedModel(spoil_on_green)]):
                wrong = ScannerAnnounced(
                    scanner="x", group="g", models={}, policies={}, device="cpu", announced_at=now_ms()
                )
                await producer.publish(IMAGES, wrong, key=b"wrong")
                goods = [submitted(f"good-{number}", jpeg((10, 10, 10))) for number in range(12)]
                await submit(producer, *goods[:6], *poison, *goods[6:])
                await observed.until(lambda: len(observed.verdicts) == 12 and len(observed.failures) == 8)
            assert await uncommitted(fresh_kafka) == 0
            return observed

    observed = asyncio.run(scenario())
    assert set(observed.verdicts) == {f"good-{number}" for number in range(12)}
    by_scan = {failure.scan_id: failure.reason for failure in observed.failures}
    assert by_scan.pop("images-0-0") == "schema-missing"
    assert by_scan.pop("images-0-1") == "schema-unknown"
    assert by_scan.pop("images-0-2") == "message-invalid"
    assert {by_scan.pop(image.scan_id) for image in poison[:1]} == {"undecryptable"}
    assert by_scan.pop("no-jpeg") == "frames-invalid"
    assert by_scan.pop("raises") == "model-failed"
    assert by_scan.pop("nan") == "scores-invalid"
    assert list(by_scan.values()) == ["not-an-image"]
    named = next(failure for failure in observed.failures if failure.scan_id == "raises")
    assert (named.sha256, named.tenant, named.topic) == (poison[2].sha256, "default", "images")


def test_a_broken_model_stops_the_scanner_and_the_images_stay_for_another(fresh_kafka: BrokerSettings) -> None:
    healthy = True

    def break_down(batch: Sequence[Prepared]) -> Probabilities | None:
        if not healthy:
            raise RuntimeError("the device is gone")
        return None

    async def scenario() -> None:
        nonlocal healthy
        async with observing(fresh_kafka) as (observed, producer):
            with pytest.raises(ModelBroken, match="the device is gone"):
                async with scanning(fresh_kafka, models=[RedModel(break_down)]) as stop:
                    await observed.until(lambda: observed.announcements)
                    healthy = False
                    await submit(producer, submitted("one", jpeg((0, 0, 0))))
                    await observed.until(lambda: observed.announcements[-1].leaving)
                    assert not stop.is_set()  # it stops by itself
            assert observed.failures == []
            async with scanning(fresh_kafka, models=[RedModel()]):
                await observed.until(lambda: "one" in observed.verdicts)

    asyncio.run(scenario())


def test_what_a_stopping_scanner_cannot_finish_is_judged_by_the_next(fresh_kafka: BrokerSettings) -> None:
    hold = threading.Event()

    def wait(batch: Sequence[Prepared]) -> Probabilities | None:
        if not all(round(float(colour[0])) == 127 for colour in batch):  # not the warm-up's grey
            hold.wait()
        return None

    async def scenario() -> Observed:
        async with observing(fresh_kafka) as (observed, producer):
            async with scanning(fresh_kafka, models=[RedModel(wait)], stop_s=0.2, in_flight=4) as stop:
                await observed.until(lambda: observed.announcements)
                await submit(producer, *(submitted(f"s{number}", jpeg((0, 0, 0))) for number in range(10)))
                stop.set()
                await observed.until(lambda: observed.announcements[-1].leaving)
                hold.set()
            assert observed.verdicts == {}
            async with scanning(fresh_kafka, models=[RedModel()]):
                await observed.until(lambda: len(observed.verdicts) == 10)
            assert await uncommitted(fresh_kafka) == 0
            return observed

    observed = asyncio.run(scenario())
    assert len(observed.messages(VERDICTS)) == 10


def test_two_scanners_of_a_group_share_the_work_and_one_may_leave(fresh_kafka: BrokerSettings) -> None:
    async def scenario() -> Observed:
        async with observing(fresh_kafka) as (observed, producer):
            async with scanning(fresh_kafka, models=[RedModel()]):
                async with scanning(fresh_kafka, models=[RedModel()]):
                    await observed.until(lambda: len({a.scanner for a in observed.announcements}) == 2)
                    await submit(producer, *(submitted(f"a{number}", jpeg((0, 0, 0))) for number in range(60)))
                    await observed.until(lambda: len(observed.verdicts) == 60)
                await submit(producer, *(submitted(f"b{number}", jpeg((0, 0, 0))) for number in range(30)))
                await observed.until(lambda: len(observed.verdicts) == 90)
            return observed

    observed = asyncio.run(scenario())
    assert {verdict.scan_id for verdict in observed.verdicts.values()} == {
        *(f"a{number}" for number in range(60)),
        *(f"b{number}" for number in range(30)),
    }
    assert len({verdict.scanner for verdict in observed.verdicts.values()}) == 2


def test_a_scanner_without_its_topics_says_which_command_makes_them(kafka: BrokerSettings) -> None:
    bare = kafka.model_copy(update={"topic_prefix": "nothing-here."})

    settings = ScannerSettings(models_dir=models_dir())
    with pytest.raises(TopicsNotReady, match="fediwarden topics apply"):
        asyncio.run(serve(settings, bare, KEYRING, asyncio.Event(), models=[RedModel()], policy=RED_POLICY))


PROCESS = """
import asyncio, os, sys, threading, time
from pathlib import Path
from scanner.service import run_scanner
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring
from tests.integration.test_scanner import RED_POLICY
from tests.unit.scanner.stub_models import RedModel, is_green

broker = BrokerSettings(bootstrap_servers=sys.argv[1], topic_prefix=sys.argv[2])
keyring = Keyring.load(Path(sys.argv[3]))
def hang_on_green(batch):
    time.sleep(float(os.environ.get("PAUSE_S", "0")) * len(batch))
    if "HANG_AT_ONCE" in os.environ or any(is_green(colour) for colour in batch):
        print("hanging", flush=True)
        threading.Event().wait()

settings = ScannerSettings(announce_s=0.2, {settings})

class Slow(RedModel):
    def prepare(self, image):
        if "HANG_IN_PREPARE" in os.environ and is_green(image.getpixel((0, 0))):
            threading.Event().wait()
        return super().prepare(image)

asyncio.run(run_scanner(settings, broker, keyring, models=[Slow(hang_on_green)], policy=RED_POLICY))
"""


@contextlib.asynccontextmanager
async def scanner_process(
    broker: BrokerSettings, folder: Path, settings: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A scanner in a process of its own, with a model that hangs on a green picture."""
    KEYRING.save(folder / "keys.json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROCESS.format(settings=settings),
        broker.bootstrap_servers,
        broker.topic_prefix,
        str(folder / "keys.json"),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        limit=16 << 20,  # of what nobody reads
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scanner_process_ends_cleanly_at_a_signal(
    fresh_kafka: BrokerSettings, tmp_path: Path, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (observed, producer),
            scanner_process(fresh_kafka, tmp_path) as process,
        ):
            await submit(producer, submitted("one", jpeg((250, 0, 0))))
            await observed.until(lambda: observed.verdicts)
            process.send_signal(number)
            assert await process.wait() == 0
            await observed.until(lambda: observed.announcements[-1].leaving)
            assert await uncommitted(fresh_kafka) == 0

    asyncio.run(scenario())


def test_a_model_that_hangs_while_it_is_loaded_ends_the_process(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_AT_ONCE", "1")

    async def scenario() -> None:
        async with scanner_process(fresh_kafka, tmp_path, "hang_s=1.0") as process:
            assert await process.wait() == ModelHung.exit_code

    asyncio.run(scenario())


def test_a_scanner_that_is_still_loading_stops_at_a_signal(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_AT_ONCE", "1")

    async def scenario() -> None:
        async with scanner_process(fresh_kafka, tmp_path, "hang_s=3600.0") as process:
            assert process.stdout is not None
            while b"hanging" not in await process.stdout.readline():
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0

    asyncio.run(scenario())


def test_an_image_that_hangs_its_decoder_ends_the_process_and_goes_to_others(
    fresh_kafka: BrokerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANG_IN_PREPARE", "1")

    async def scenario() -> None:
        async with (
            observing(fresh_kafka) as (_, producer),
            scanner_process(fresh_kafka, tmp_path, "hang_s=1.0") as process,
        ):
            await submit(producer, submitted("hangs", jpeg((0, 255, 0))))
            assert await process.wait() == ModelHung.exit_code
        (behind,) = [record.message for record in await asyncio.to_thread(read_topic, fresh_kafka, IMAGES_BACKLOG)]
        assert isinstance(behind, ImageSubmitted)
        assert (behind.scan_id, behind.hung) == ("hangs", 1)

    asyncio.run(scenario())
