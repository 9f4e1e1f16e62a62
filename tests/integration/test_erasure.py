"""Erasure on a real Kafka: what is judged leaves the disk, what is not stays readable."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from structlog.testing import capture_logs

from fediwarden import cli
from fediwarden.erasure_check import Found, search_disk
from fediwarden.kafka.cluster import Cluster
from gateway.erasure.janitor import Janitor
from gateway.erasure.settings import ErasureSettings
from gateway.erasure.ticks import TICK_KEY
from schemas.broker import BrokerSettings, Consumer, Partition, Producer, Received, apply_topics, open_logs
from schemas.clock import now_ms
from schemas.messages import ImageSubmitted, ScannerAnnounced
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG, SCANNERS, TopicSpec
from tests import pictures
from tests.gateways import NO_KAFKA, running_gateway
from tests.kafka import make_cluster, running_cluster
from tests.topics import read_topic
from tests.unit.schemas.samples import image

pytestmark = pytest.mark.kafka

HURRIED = {
    "log.initial.task.delay.ms": "300",
    "log.retention.check.interval.ms": "300",
    "log.segment.delete.delay.ms": "100",
    "log.cleaner.backoff.ms": "300",
}
SEGMENT_MS = 1000
QUICK = (
    dataclasses.replace(IMAGES, partitions=2, segment_ms=SEGMENT_MS),
    dataclasses.replace(IMAGES_BACKLOG, partitions=2, segment_ms=SEGMENT_MS),
    dataclasses.replace(
        IMAGES_ARCHIVE,
        partitions=2,
        segment_ms=SEGMENT_MS,
        extra=IMAGES_ARCHIVE.extra | {"max.compaction.lag.ms": str(SEGMENT_MS)},
    ),
    SCANNERS,
)
GROUP = "scanners"
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def hurried(data_dir: Path) -> Iterator[Cluster]:
    """Three brokers that look for what they may delete all the time. Their topics are made by each test."""
    with make_cluster(data_dir / "kafka", nodes=3, properties=HURRIED) as cluster:
        yield cluster


@pytest.fixture
def broker(hurried: Cluster, request: pytest.FixtureRequest) -> BrokerSettings:
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:8] + "."
    settings = BrokerSettings(bootstrap_servers=hurried.bootstrap_servers, topic_prefix=prefix)
    asyncio.run(apply_topics(settings, QUICK))
    return settings


def new_image() -> ImageSubmitted:
    sealed = image().sealed.model_copy(update={"ciphertext": os.urandom(2000)})
    return image(scan_id=os.urandom(8).hex(), sha256=os.urandom(32), sealed=sealed)


def noted(message: ImageSubmitted) -> bytes:
    return message.sealed.ciphertext[:64]


async def publish(
    broker: BrokerSettings, topic: TopicSpec, *messages: ImageSubmitted | bytes, partition: int = 0
) -> None:
    """Publish images, and tombstones for those that are named by their sha256."""
    async with Producer(broker, client_id="test") as producer:
        for each in messages:
            message, key = (None, each) if isinstance(each, bytes) else (each, each.sha256)
            await producer.publish(topic, message, key=key, partition=partition)


@asynccontextmanager
async def janitor(
    broker: BrokerSettings, *, groups: tuple[str, ...] = (GROUP,), within_s: float = 3600.0
) -> AsyncIterator[Janitor]:
    async with Producer(broker, client_id="janitor") as producer:
        settings = ErasureSettings(every_s=0.2, groups=groups, within_s=within_s)
        made = Janitor(settings, broker, producer)
        running = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            failed = running.done()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            assert not failed


async def until(true: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.1)


async def judge(broker: BrokerSettings, count: int, *, group: str = GROUP, leave: Sequence[bytes] = ()) -> None:
    """Read `count` images as scanners of `group` do, and commit all but those whose sha256 is in `leave`."""
    async with Consumer(broker, [IMAGES, IMAGES_BACKLOG], group=group, client_id=group) as consumer:
        seen = 0
        async with asyncio.timeout(WITHIN_S):
            while seen < count:
                for record in await consumer.poll(max_messages=100, timeout_s=1):
                    seen += record.message is not None
                    if record.key not in leave:
                        consumer.done(record)


async def begins(broker: BrokerSettings, topic: TopicSpec) -> list[int]:
    async with open_logs(broker) as logs:
        return [bounds.begin for bounds in (await logs.bounds([topic])).values()]


async def until_begins(broker: BrokerSettings, topic: TopicSpec, wanted: list[int]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await begins(broker, topic) != wanted:
            await asyncio.sleep(0.05)


def search(data_dir: Path, broker: BrokerSettings, message: ImageSubmitted) -> list[Found]:
    found = [noted(message)]
    return search_disk(data_dir, broker.topic_prefix, message.sha256, found, spool_dir=data_dir / "spool")


def keys(records: list[Received]) -> set[bytes]:
    return {record.key for record in records if record.key and record.message is not None}


def test_judged_images_leave_the_files_of_idle_partitions_and_an_unjudged_one_stays_readable(data_dir, broker):
    live, late, before, open_one = (new_image() for _ in range(4))

    async def scenario() -> None:
        await publish(broker, IMAGES, live, partition=0)
        await publish(broker, IMAGES, before, open_one, partition=1)
        await publish(broker, IMAGES_BACKLOG, late)
        for message in (live, late, before, open_one):
            assert {found.what for found in search(data_dir, broker, message)} == {"record", "ciphertext"}
        await judge(broker, 4, leave=[open_one.sha256])
        async with janitor(broker):
            await until(lambda: not search(data_dir, broker, live) and not search(data_dir, broker, late), "gone")
            # Beside them in time, in a partition of its own: nobody reads what is judged, everybody what is not.
            await until_begins(broker, IMAGES, [1, 1])
            assert search(data_dir, broker, open_one)
            assert keys(await asyncio.to_thread(read_topic, broker, IMAGES)) == {open_one.sha256}
            await judge(broker, 1)
            await until(lambda: not search(data_dir, broker, open_one) and not search(data_dir, broker, before), "gone")

    asyncio.run(scenario())


def test_without_a_word_from_any_scanner_nothing_is_deleted(data_dir, broker):
    waiting, control = new_image(), new_image()

    async def scenario() -> None:
        await publish(broker, IMAGES, waiting, partition=0)
        await publish(broker, IMAGES, control, partition=1)
        async with janitor(broker, groups=("nobody",)), open_logs(broker) as logs:
            async with asyncio.timeout(WITHIN_S):  # its ticks show that it has made its passes
                while not all(bounds.end >= 2 for bounds in (await logs.bounds([IMAGES])).values()):
                    await asyncio.sleep(0.05)
            assert {bounds.begin for bounds in (await logs.bounds([IMAGES])).values()} == {0}
        assert keys(await asyncio.to_thread(read_topic, broker, IMAGES)) == {waiting.sha256, control.sha256}

    asyncio.run(scenario())


def test_a_group_that_scanners_announced_holds_back_what_it_has_not_judged_and_the_log_names_it(data_dir, broker):
    both, one = new_image(), new_image()

    async def scenario() -> None:
        await publish(broker, IMAGES, both, partition=0)
        await publish(broker, IMAGES, one, partition=1)
        announced = ScannerAnnounced(
            scanner="s", group="shadow", models={}, policies={}, device="cpu", announced_at=now_ms()
        )
        async with Producer(broker, client_id="test") as producer:
            await producer.publish(SCANNERS, announced, key=b"s")
        await judge(broker, 2)
        await judge(broker, 2, group="shadow", leave=[one.sha256])
        with capture_logs() as logged:
            async with janitor(broker, within_s=0.5):
                await until_begins(broker, IMAGES, [1, 0])  # one DeleteRecords a pass: partition 1 was considered too
                await until(lambda: any(line["log_level"] == "warning" for line in logged), "warned")
                assert (await begins(broker, IMAGES))[1] == 0
                await judge(broker, 1, group="shadow")
                await until(lambda: not search(data_dir, broker, one), "gone")
        (warning,) = [line for line in logged if line["log_level"] == "warning"]
        assert (warning["topic"], warning["partition"], warning["held_back_by"]) == ("images", 1, "shadow")

    asyncio.run(scenario())


def test_an_archived_image_that_is_turned_against_leaves_the_idle_archive_and_the_others_stay(data_dir, broker):
    bad, good = new_image(), new_image()

    async def scenario() -> None:
        await publish(broker, IMAGES_ARCHIVE, bad, good)
        async with janitor(broker):
            await publish(broker, IMAGES_ARCHIVE, bad.sha256)
            await until(lambda: not search(data_dir, broker, bad), "gone")
        assert keys(await asyncio.to_thread(read_topic, broker, IMAGES_ARCHIVE)) == {good.sha256}

    asyncio.run(scenario())


def run_janitor(broker: BrokerSettings) -> None:
    async def forever() -> None:
        async with janitor(broker):
            await asyncio.Event().wait()

    asyncio.run(forever())


@asynccontextmanager
async def scanning(broker: BrokerSettings) -> AsyncIterator[None]:
    """A scanner that is done at once with whatever comes, ticks as well."""

    async def scan() -> None:
        async with Consumer(broker, [IMAGES, IMAGES_BACKLOG], group=GROUP, client_id=GROUP) as consumer:
            while True:
                for record in await consumer.poll(max_messages=100, timeout_s=1):
                    consumer.done(record)

    running = asyncio.create_task(scan())
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def ends(broker: BrokerSettings, topic: TopicSpec) -> list[int]:
    async with open_logs(broker) as logs:
        return [bounds.end for bounds in (await logs.bounds([topic])).values()]


def test_two_janitors_leave_a_partition_at_rest_once_its_images_are_rolled_out(data_dir, broker):
    judged = new_image()

    async def tick_of_another_partition() -> None:
        before = (await ends(broker, IMAGES))[1]
        await publish(broker, IMAGES, new_image(), partition=1)
        async with asyncio.timeout(WITHIN_S):
            while (await ends(broker, IMAGES))[1] < before + 2:
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        await publish(broker, IMAGES, judged, partition=0)
        async with scanning(broker), janitor(broker), janitor(broker):
            await until(lambda: not search(data_dir, broker, judged), "gone")
            for _ in range(2):  # both have had their ticks by then
                await tick_of_another_partition()
            at_rest = (await ends(broker, IMAGES))[0]
            for _ in range(3):
                await tick_of_another_partition()
            assert (await ends(broker, IMAGES))[0] == at_rest
            async with asyncio.timeout(WITHIN_S):  # the last tick stays, for others to read
                while (await begins(broker, IMAGES))[0] != at_rest - 1:
                    await asyncio.sleep(0.05)

    asyncio.run(scenario())


def nodes_that_hold(data_dir: Path, broker: BrokerSettings, message: ImageSubmitted) -> set[str]:
    return {Path(found.where).relative_to(data_dir / "kafka").parts[0] for found in search(data_dir, broker, message)}


def test_judged_images_leave_the_disks_of_all_three_brokers_and_unjudged_ones_none(data_dir, broker):
    judged, kept, archived, open_one = (new_image() for _ in range(4))
    everywhere = {"node-1", "node-2", "node-3"}

    async def scenario() -> None:
        await publish(broker, IMAGES, judged, partition=0)
        await publish(broker, IMAGES, open_one, partition=1)
        await publish(broker, IMAGES_ARCHIVE, archived, kept)
        await publish(broker, IMAGES_ARCHIVE, archived.sha256)
        await until(
            lambda: all(
                nodes_that_hold(data_dir, broker, each) == everywhere for each in (judged, kept, archived, open_one)
            ),
            "replicated",
        )
        await judge(broker, 2, leave=[open_one.sha256])
        async with janitor(broker) as running:
            await until(lambda: not search(data_dir, broker, judged), "gone")
            await until(lambda: not search(data_dir, broker, archived), "gone")
            assert running.failures == {}
        for each in (kept, open_one):
            assert nodes_that_hold(data_dir, broker, each) == everywhere
        assert keys(await asyncio.to_thread(read_topic, broker, IMAGES)) == {open_one.sha256}

    asyncio.run(scenario())


def test_kills_of_the_janitor_and_of_kafka_keep_nothing_on_disk(tmp_path):
    """The first janitor dies between DeleteRecords and its tick, and Kafka between the roll and the next one's."""
    judged, open_one = new_image(), new_image()
    slow = tuple(dataclasses.replace(spec, segment_ms=5000) if spec is not SCANNERS else spec for spec in QUICK)
    with running_cluster(tmp_path / "kafka", properties=HURRIED) as cluster:
        broker = BrokerSettings(bootstrap_servers=cluster.bootstrap_servers, topic_prefix="killed.")

        async def prepare() -> None:
            await apply_topics(broker, slow)
            await publish(broker, IMAGES, judged, partition=0)
            await publish(broker, IMAGES, open_one, partition=1)
            await judge(broker, 2, leave=[open_one.sha256])

        asyncio.run(prepare())
        first = multiprocessing.get_context("spawn").Process(target=run_janitor, args=(broker,))
        first.start()
        asyncio.run(until_begins(broker, IMAGES, [1, 0]))
        first.kill()
        first.join()
        assert search(tmp_path, broker, judged), "deleted for readers, on disk until its segment goes"

        async def go_on() -> None:
            with capture_logs() as logged:
                async with janitor(broker):
                    await until_begins(broker, IMAGES, [1, 0])
                    cluster.kill_node(1)
                    await until(lambda: any("erasure fails" in line["event"] for line in logged), "outage noticed")
                    cluster.start_node(1)
                    await asyncio.to_thread(cluster.wait_ready)
                    await until(lambda: not search(tmp_path, broker, judged), "gone")
            failed = [place for line in logged if "erasure fails" in line["event"] for place in line["places"]]
            assert "Kafka" in failed
            assert len(failed) == len(set(failed)), "told once an outage"
            assert keys(await asyncio.to_thread(read_topic, broker, IMAGES)) == {open_one.sha256}

        asyncio.run(go_on())


def test_a_janitor_that_starts_without_kafka_waits_for_it(tmp_path):
    async def scenario() -> None:
        broker = BrokerSettings(bootstrap_servers="127.0.0.1:9")
        with capture_logs() as logged:
            settings = ErasureSettings(every_s=0.05, groups=(GROUP,))
            running = asyncio.create_task(Janitor(settings, broker, Producer(broker, client_id="test")).run())
            await until(lambda: any("erasure fails" in line["event"] for line in logged), "outage noticed")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(scenario())


def test_ticks_are_told_from_images_and_what_is_gone_counts_as_neither(broker):
    async def scenario() -> None:
        partition = Partition(IMAGES, 0)
        async with Producer(broker, client_id="test") as producer:
            for _ in range(2):
                await producer.publish(IMAGES, None, key=TICK_KEY, partition=0)
            await publish(broker, IMAGES, new_image())
            await producer.publish(IMAGES, None, key=TICK_KEY, partition=0)
        async with open_logs(broker) as logs:
            assert await logs.all_keyed(partition, 0, 2, TICK_KEY)
            assert await logs.all_keyed(partition, 3, 4, TICK_KEY)
            assert not await logs.all_keyed(partition, 1, 3, TICK_KEY)
            assert not await logs.all_keyed(partition, 2, 4, TICK_KEY)
            await logs.delete_before({partition: 1})
            assert not await logs.all_keyed(partition, 0, 2, TICK_KEY)
            assert await logs.all_keyed(partition, 1, 2, TICK_KEY)

    asyncio.run(scenario())


def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Exit code and output of `fediwarden topics erasure-check`."""
    monkeypatch.setattr(sys, "argv", ["fediwarden", "topics", "erasure-check", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


def test_the_command_finds_what_is_there_and_nothing_where_nothing_is(
    data_dir, hurried, broker, monkeypatch, capsys, tmp_path
):
    there, absent = new_image(), os.urandom(32).hex()
    asyncio.run(publish(broker, IMAGES, there))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDIWARDEN_KAFKA__TOPIC_PREFIX", broker.topic_prefix)
    on_disk = ("--data-dir", str(data_dir))

    code, said = check(monkeypatch, capsys, there.sha256.hex(), "--json", *on_disk)
    report = json.loads(said)
    assert (code, report["gone"], report["searched"]) == (1, False, "disk")
    assert [found["what"] for found in report["found"]] == ["record"] * 3 + ["ciphertext"] * 3, "one a broker"
    code, said = check(monkeypatch, capsys, absent, "--ciphertext", noted(there).hex(), *on_disk)
    assert (code, said.count("ciphertext: ")) == (1, 3)
    code, said = check(monkeypatch, capsys, absent, "--json", *on_disk)
    assert (code, json.loads(said)["gone"]) == (0, True)
    assert check(monkeypatch, capsys, absent[2:], *on_disk)[0] == 2
    assert check(monkeypatch, capsys, there.sha256.hex(), "--data-dir", str(tmp_path))[0] == 1

    monkeypatch.setenv("FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS", hurried.bootstrap_servers)
    code, said = check(monkeypatch, capsys, there.sha256.hex())
    assert code == 1
    assert "not the embedded one" in said
    assert check(monkeypatch, capsys, absent)[0] == 0


def test_the_command_searches_the_spool_also_while_kafka_has_no_topics_or_is_away(monkeypatch, capsys, tmp_path):
    spooled, absent = pictures.make("png", seed=81), os.urandom(32).hex()
    sha256 = hashlib.sha256(spooled).hexdigest()
    spool_dir = tmp_path / "spool"
    monkeypatch.chdir(tmp_path)
    on_disk = ("--data-dir", str(tmp_path))
    code, said = check(monkeypatch, capsys, sha256, *on_disk)
    assert (code, "no spool" in said) == (1, True), "what cannot be searched must not pass for clean"
    with running_gateway(NO_KAFKA, spool_dir=spool_dir) as running:
        posted = httpx.post(f"{running.url}/api/v1/scan/IPADDR", content=spooled)
        assert posted.json()["answered_by"] == "spooled"

        code, said = check(monkeypatch, capsys, sha256, "--json", *on_disk)
        report = json.loads(said)
        assert (code, report["gone"]) == (1, False)
        assert {found["what"] for found in report["found"]} == {"spool"}
        assert all(Path(found["where"]).is_relative_to(spool_dir) for found in report["found"])
        code, said = check(monkeypatch, capsys, sha256, *on_disk)
        assert (code, f"spool: {spool_dir}" in said) == (1, True)
        assert check(monkeypatch, capsys, absent, *on_disk)[0] == 0

        monkeypatch.setenv("FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS", NO_KAFKA.bootstrap_servers)
        code, said = check(monkeypatch, capsys, sha256, *on_disk)
        assert (code, f"spool: {spool_dir}" in said) == (1, True)
        assert "only the spool was searched: no Kafka at" in said
        code, said = check(monkeypatch, capsys, absent, *on_disk)
        assert (code, "no Kafka at" in said) == (1, True), "Kafka may hold it"


async def lay_out(broker: BrokerSettings, brokers_of: Mapping[TopicSpec, Mapping[int, list[int]]]) -> None:
    """Make topics, each partition on the brokers that are named."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        topics = [
            NewTopic(
                topic.full_name(broker.topic_prefix),
                -1,
                -1,
                replica_assignments={number: list(nodes) for number, nodes in partitions.items()},
                topic_configs=topic.config(min_insync=1),
            )
            for topic, partitions in brokers_of.items()
        ]
        for _, code, message in (await admin.create_topics(topics)).topic_errors:
            assert code == 0, message
    finally:
        await admin.close()


def test_a_partition_without_a_leader_keeps_none_of_the_others_from_being_erased(data_dir, hurried):
    """Broker 3 alone has one partition of each topic, and leaves."""
    broker = BrokerSettings(bootstrap_servers=hurried.bootstrap_servers, topic_prefix="leaderless.")
    lost, judged, late, archived = (new_image() for _ in range(4))

    async def scenario() -> None:
        await lay_out(broker, {topic: {0: [1]} if topic is SCANNERS else {0: [3], 1: [1]} for topic in QUICK})
        await publish(broker, IMAGES, lost, partition=0)
        await publish(broker, IMAGES, judged, partition=1)
        await publish(broker, IMAGES_BACKLOG, late, partition=1)
        await publish(broker, IMAGES_ARCHIVE, archived, partition=1)
        await publish(broker, IMAGES_ARCHIVE, archived.sha256, partition=1)
        await judge(broker, 3)
        os.kill(hurried.pid(3), signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S), open_logs(broker) as logs:
            while not logs.failures:
                await logs.bounds([IMAGES])
        assert logs.failures.keys() == {"images-0"}
        hurried.kill_node(3)
        with capture_logs() as logged:
            async with janitor(broker) as running:
                for each in (judged, late, archived):
                    await until(lambda each=each: not nodes_that_hold(data_dir, broker, each), "gone")
                leaderless = {"images-0", "images.backlog-0", "images.archive-0"}
                await until(lambda: running.failures.keys() == leaderless, "what cannot be erased is named")
                assert search(data_dir, broker, lost)
                hurried.start_node(3)
                await asyncio.to_thread(hurried.wait_ready)
                await until(lambda: not search(data_dir, broker, lost), "gone")
                await until(lambda: not running.failures, "all is well")
        told = [place for line in logged if "erasure fails" in line["event"] for place in line["places"]]
        assert {"images-0", "images.backlog-0", "images.archive-0"} <= set(told)

    asyncio.run(scenario())
