"""Consumer groups, and readers without one, on a real Kafka: nothing is lost, nothing committed before its time."""

import asyncio
import hashlib
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.commit import OffsetFetchRequest, OffsetFetchResponse_v3

from schemas.broker import (
    BrokerRefused,
    BrokerSettings,
    Consumer,
    InstanceTaken,
    Partition,
    Producer,
    Received,
    Tail,
    open_logs,
)
from schemas.broker.history import open_reader
from schemas.broker.positions import find_starts
from schemas.codec import SchemaMissing, SchemaUnknown
from schemas.messages import ImageSubmitted
from schemas.topics import IMAGES, IMAGES_BACKLOG
from tests.unit.schemas.samples import image

pytestmark = pytest.mark.kafka


def numbered(number: int) -> ImageSubmitted:
    return image(scan_id=f"scan-{number}", sha256=hashlib.sha256(str(number).encode()).digest())


async def publish(producer: Producer, numbers: range, topic=IMAGES) -> None:
    await asyncio.gather(*(producer.publish(topic, (m := numbered(n)), key=m.sha256) for n in numbers))


async def drain(consumer: Consumer, *, finish: bool = True) -> list[str]:
    seen = []
    while records := await consumer.poll(max_messages=50, timeout_s=1.5):
        for record in records:
            assert isinstance(record.message, ImageSubmitted)
            seen.append(record.message.scan_id)
            if finish:
                consumer.done(record)
    return seen


async def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


def names(numbers: range) -> set[str]:
    return {f"scan-{n}" for n in numbers}


def test_a_poll_may_ask_for_one_topic_while_another_waits_for_the_other(broker):
    async def scenario():
        async with (
            Producer(broker, client_id="test") as producer,
            Consumer(broker, [IMAGES, IMAGES_BACKLOG], group="lanes", client_id="test") as consumer,
        ):
            await until(lambda: consumer.assigned == IMAGES.partitions + IMAGES_BACKLOG.partitions)
            waiting = asyncio.create_task(consumer.poll(max_messages=50, timeout_s=40, topic=IMAGES))
            await publish(producer, range(100, 110), IMAGES_BACKLOG)
            seen = []
            while len(seen) < 10:
                seen += await consumer.poll(max_messages=4, timeout_s=10, topic=IMAGES_BACKLOG)
            assert {record.topic for record in seen} == {IMAGES_BACKLOG}
            assert not waiting.done()
            await publish(producer, range(1))
            async with asyncio.timeout(30):
                (live,) = await waiting
            assert live.topic == IMAGES
            for record in (live, *seen):
                consumer.done(record)
        async with Consumer(broker, [IMAGES, IMAGES_BACKLOG], group="lanes", client_id="again") as consumer:
            assert await drain(consumer) == []

    asyncio.run(scenario())


def test_what_was_not_done_is_read_again_and_what_was_done_is_not(broker):
    async def scenario():
        async with Producer(broker, client_id="test") as producer:
            await publish(producer, range(40))
        unfinished, behind = None, []
        async with Consumer(broker, [IMAGES], group="again", client_id="one") as consumer:
            while records := await consumer.poll(max_messages=50, timeout_s=1.5):
                for record in records:
                    if unfinished is None:
                        unfinished = record
                    if record.partition == unfinished.partition:
                        behind.append(record.message.scan_id)
                    if record is not unfinished:
                        consumer.done(record)
        async with Consumer(broker, [IMAGES], group="again", client_id="two") as consumer:
            again = await drain(consumer)
        # the contiguous front: the unfinished one and what stood behind it in its partition, nothing else
        assert again == behind
        async with Consumer(broker, [IMAGES], group="again", client_id="three") as consumer:
            assert await drain(consumer) == []

    asyncio.run(scenario())


class OffsetAnswers:
    """Kafka's answers about committed offsets, the first of which are replaced by an error of the whole group."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[type[kafka_errors.BrokerResponseError]] = []
        self._send = AIOKafkaClient.send
        monkeypatch.setattr(AIOKafkaClient, "send", lambda *given, **more: self._answer(*given, **more))

    async def _answer(self, client: AIOKafkaClient, node_id: int, request: object, **more: object) -> object:
        if isinstance(request, OffsetFetchRequest) and self.errors:
            return OffsetFetchResponse_v3(0, [], self.errors.pop(0).errno)
        return await self._send(client, node_id, request, **more)


async def read_half(broker: BrokerSettings, group: str) -> None:
    """40 messages in Kafka, of which `group` has committed the older half of each partition."""
    async with (
        Producer(broker, client_id="test") as producer,
        Consumer(broker, [IMAGES], group=group, client_id="first") as first,
    ):
        await publish(producer, range(20))
        assert set(await drain(first)) == names(range(20))
        await first.stop()
        await publish(producer, range(20, 40))


@pytest.mark.parametrize(
    "error",
    [
        kafka_errors.GroupLoadInProgressError,
        kafka_errors.GroupCoordinatorNotAvailableError,
        kafka_errors.NotCoordinatorForGroupError,
    ],
)
def test_a_group_whose_coordinator_does_not_know_its_offsets_just_now_does_not_begin_anew(broker, monkeypatch, error):
    async def scenario() -> None:
        await read_half(broker, "half")
        answers = OffsetAnswers(monkeypatch)
        answers.errors = [error] * 4
        async with Consumer(broker, [IMAGES], group="half", client_id="second") as second:
            seen: list[str] = []
            async with asyncio.timeout(60):
                while len(seen) < 20:
                    seen += await drain(second)
        assert answers.errors == []
        assert sorted(seen) == sorted(names(range(20, 40)))

    asyncio.run(scenario())


def test_a_group_that_may_not_ask_for_its_offsets_is_refused(broker, monkeypatch):
    async def scenario() -> None:
        await read_half(broker, "forbidden")
        answers = OffsetAnswers(monkeypatch)
        answers.errors = [kafka_errors.GroupAuthorizationFailedError] * 100
        async with Consumer(broker, [IMAGES], group="forbidden", client_id="second") as second:
            with pytest.raises(BrokerRefused, match="GroupAuthorizationFailed"):
                async with asyncio.timeout(60):
                    while True:
                        assert await second.poll(max_messages=9, timeout_s=1.0) == []

    asyncio.run(scenario())


def test_a_group_whose_records_were_deleted_before_it_read_them_goes_on_at_the_start_of_the_log(broker):
    async def scenario() -> None:
        await read_half(broker, "late")
        async with open_logs(broker) as logs:
            await logs.delete_before({each: end for each, (_, end) in (await logs.bounds([IMAGES])).items()})
        async with Producer(broker, client_id="test") as producer:
            await publish(producer, range(40, 60))
        async with Consumer(broker, [IMAGES], group="late", client_id="second") as second:
            assert set(await drain(second)) == names(range(40, 60))

    asyncio.run(scenario())


def test_a_reader_without_a_group_begins_at_the_start_of_the_log(broker):
    tp = TopicPartition(IMAGES.full_name(broker.topic_prefix), 3)

    async def scenario() -> None:
        async with Producer(broker, client_id="test") as producer:
            for _ in range(5):
                await producer.publish(IMAGES, image(), key=b"k", partition=tp.partition)
        async with open_logs(broker) as logs:
            await logs.delete_before({Partition(IMAGES, tp.partition): 2})
        async with open_reader(broker, "test") as client:
            assert await find_starts(client, [tp]) == {tp: 2}

    asyncio.run(scenario())


def test_a_rebalance_in_mid_flight_loses_nothing_and_leaves_no_lag(broker):
    async def scenario():
        seen: list[str] = []
        stop_one, stop_two = asyncio.Event(), asyncio.Event()

        async def work(consumer: Consumer, stop: asyncio.Event) -> None:
            while not stop.is_set():
                for record in await consumer.poll(max_messages=5, timeout_s=0.2):
                    await asyncio.sleep(0.002)
                    seen.append(record.message.scan_id)
                    consumer.done(record)

        async with (
            Producer(broker, client_id="test") as producer,
            Consumer(broker, [IMAGES], group="moving", client_id="one") as one,
        ):
            working = asyncio.create_task(work(one, stop_one))
            sending = asyncio.create_task(publish_slowly(producer, 400))
            await until(lambda: len(seen) > 20)
            async with Consumer(broker, [IMAGES], group="moving", client_id="two") as two:
                helping = asyncio.create_task(work(two, stop_two))
                await until(lambda: one.assigned == two.assigned == IMAGES.partitions // 2)
                await sending
                stop_two.set()
                await helping
            await until(lambda: set(seen) == names(range(400)))
            await until(lambda: sum(one.lag().values()) == 0)
            stop_one.set()
            await working
        assert len(seen) == 400, "a clean hand-over judges nothing twice"
        async with Consumer(broker, [IMAGES], group="moving", client_id="three") as consumer:
            assert await drain(consumer) == []

    async def publish_slowly(producer: Producer, count: int) -> None:
        for number in range(count):
            await publish(producer, range(number, number + 1))

    asyncio.run(scenario())


def test_poison_is_handed_on_with_its_fault_and_the_partition_moves_on(broker):
    async def scenario():
        name = IMAGES.full_name(broker.topic_prefix)
        raw = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        await raw.start()
        await raw.send_and_wait(name, b"\x00garbage", partition=0)
        await raw.send_and_wait(name, b"\x80", partition=0, headers=[("schema", b"image-submitted/99")])
        await raw.stop()
        async with Producer(broker, client_id="test") as producer:
            await publish(producer, range(30))
        async with Consumer(broker, [IMAGES], group="poison", client_id="test") as consumer:
            faults, good = [], 0
            while records := await consumer.poll(max_messages=50, timeout_s=1.5):
                for record in records:
                    good += record.message is not None
                    if record.fault is not None:
                        faults.append(type(record.fault))
                    consumer.done(record)
        assert faults == [SchemaMissing, SchemaUnknown]
        assert good == 30

    asyncio.run(scenario())


def test_a_batch_with_a_broken_checksum_costs_nothing_but_itself(kafka_cluster, broker):

    async def write() -> None:
        async with Producer(broker, client_id="test") as producer:
            for number in range(60):
                await publish(producer, range(number, number + 1))

    async def read() -> tuple[list[str], list[Received], list[str]]:
        seen, faults, tailed = [], [], []
        async with (
            Tail(broker, [IMAGES], since_s=3600, on_record=tailed.append, client_id="test"),
            Consumer(broker, [IMAGES, IMAGES_BACKLOG], group="broken", client_id="test") as consumer,
        ):
            async with asyncio.timeout(60):
                while len(seen) + len(faults) < 60 or len(tailed) < 60:
                    for record in await consumer.poll(max_messages=7, timeout_s=0.5):
                        if record.fault is not None:
                            faults.append(record)
                        else:
                            seen.append(record.message.scan_id)
                        consumer.done(record)
            await until(lambda: sum(consumer.lag().values()) == 0)
        return seen, faults, [record.message.scan_id for record in tailed if record.message is not None]

    asyncio.run(write())
    name = IMAGES.full_name(broker.topic_prefix)
    segment = max(kafka_cluster.directory.rglob(f"{name}-*/*.log"), key=lambda path: path.stat().st_size)
    content = bytearray(segment.read_bytes())
    second = content.index(b"ciphertext", content.index(b"ciphertext") + 500)
    content[second] ^= 1
    with segment.open("r+b") as file:
        file.write(content[: second + 1])

    seen, faults, tailed = asyncio.run(read())
    assert [record.fault.reason for record in faults] == ["batch-unreadable"]
    assert len(seen) == len(set(seen)) == 59
    assert sorted(tailed) == sorted(seen)

    async def again() -> list[str]:
        async with Consumer(broker, [IMAGES], group="broken", client_id="test") as consumer:
            return await drain(consumer)

    assert asyncio.run(again()) == []


def test_a_member_with_full_hands_stays_in_its_group(broker):
    """aiokafka leaves a group that is not polled for max_poll_interval_ms, and would not let it in again."""

    async def scenario() -> None:
        async with Consumer(broker, [IMAGES], group="full-hands", client_id="test") as consumer:
            assert consumer._client._coordinator._max_poll_interval > 20 * 86_400

    asyncio.run(scenario())


def test_a_consumer_stops_while_kafka_is_away(make_kafka):
    cluster = make_kafka(1)
    broker = BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)

    async def scenario() -> None:
        async with Producer(broker, client_id="test") as producer:
            await publish(producer, range(5))
        consumer = Consumer(broker, [IMAGES], group="away", client_id="test")
        await consumer.start()
        records = await consumer.poll(max_messages=5, timeout_s=10)
        cluster.kill_node(1)
        for record in records:
            consumer.done(record)
        async with asyncio.timeout(30):
            await consumer.stop()

    asyncio.run(scenario())


def test_a_poll_that_waits_through_a_rebalance_hands_out_what_comes_after_it(broker):
    async def scenario() -> None:
        async with (
            Producer(broker, client_id="test") as producer,
            Consumer(broker, [IMAGES], group="waiting", client_id="one") as one,
        ):
            await until(lambda: one.assigned == IMAGES.partitions)
            waiting = asyncio.create_task(one.poll(max_messages=50, timeout_s=40))
            async with Consumer(broker, [IMAGES], group="waiting", client_id="two") as two:
                await until(lambda: one.assigned == two.assigned == IMAGES.partitions // 2)
            await until(lambda: one.assigned == IMAGES.partitions)
            assert not waiting.done()
            await publish(producer, range(1))
            async with asyncio.timeout(30):
                (received,) = await waiting
            assert received.message == numbered(0)
            one.done(received)
        async with Consumer(broker, [IMAGES], group="waiting", client_id="three") as three:
            assert await drain(three) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("returning", ["leader", "follower"])  # the group's leader hands out the partitions
def test_a_static_member_that_comes_back_has_its_partitions_and_the_others_notice_nothing(broker, returning):
    async def scenario() -> None:
        async with (
            Producer(broker, client_id="test") as producer,
            member(broker, "static", "a") as leader,
            member(broker, "static", "b") as follower,
        ):
            await until(lambda: leader.assigned == follower.assigned == IMAGES.partitions // 2)
            going, staying = (leader, follower) if returning == "leader" else (follower, leader)
            had, others, epoch = going._client.assignment(), staying._client.assignment(), staying._epoch
            await going.stop()
            await publish(producer, range(30))
            async with member(broker, "static", going._instance) as back:
                await until(lambda: back.assigned > 0)
                assert back._client.assignment() == had
                assert set(await drain(back)) | set(await drain(staying)) == names(range(30))
                assert (staying._client.assignment(), staying._epoch) == (others, epoch)
        async with Consumer(broker, [IMAGES], group="static", client_id="after") as after:
            await until(lambda: after.assigned == IMAGES.partitions)
            assert await drain(after) == []

    asyncio.run(scenario())


def test_of_two_members_with_one_name_the_older_gives_way_and_says_so(broker):
    async def scenario() -> None:
        async with (
            Producer(broker, client_id="test") as producer,
            member(broker, "twins", "a") as older,
        ):
            await until(lambda: older.assigned == IMAGES.partitions)
            async with member(broker, "twins", "a") as newer:
                with pytest.raises(InstanceTaken, match=r"name 'a'.*scanner\.instance"):
                    async with asyncio.timeout(60):
                        while True:
                            await older.poll(max_messages=1, timeout_s=0.1)
                await older.stop()
                await publish(producer, range(5))
                seen: set[str] = set()
                async with asyncio.timeout(60):
                    while len(seen) < 5:
                        seen |= set(await drain(newer))
                assert seen == names(range(5))

    asyncio.run(scenario())


def member(broker: BrokerSettings, group: str, instance: str) -> Consumer:
    return Consumer(broker, [IMAGES], group=group, client_id=instance, instance=instance, session_timeout_s=6.0)
