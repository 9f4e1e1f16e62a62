"""The scanner on a real Apache Kafka: verdicts, archive, announcements, poison, and a stop in mid-work."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from PIL import Image

from scanner.models.model import ModelBroken, Prepared, Probabilities
from scanner.scanning import LIVE_FOR_ONE_OF_BACKLOG
from scanner.service import serve
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Producer, Published, PublishRefused, Tail, TopicsNotReady
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    ImageSubmitted,
    ScannerAnnounced,
    Stage,
    Verdict,
)
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG, VERDICTS, TopicSpec
from tests.models import models_dir
from tests.scanners import (
    KEYRING,
    PATIENCE_S,
    RED_POLICY,
    Observed,
    jpeg,
    observing,
    scanning,
    submit,
    submitted,
    uncommitted,
)
from tests.stand_ins import accepted_picture, rejected_picture
from tests.unit.scanner.stub_models import RedModel, is_green

pytestmark = pytest.mark.kafka


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
