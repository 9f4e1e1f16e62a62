"""Reading from offsets that somebody else keeps, against a real Apache Kafka."""

import asyncio

import pytest

from schemas.broker import AssignedReader, BrokerSettings, BrokerUnavailable, Partition, Producer, Received
from schemas.topics import ANSWERS, VERDICTS
from tests.unit.schemas.samples import answer, verdict

pytestmark = pytest.mark.kafka


async def read(reader: AssignedReader, count: int) -> list[Received]:
    found: list[Received] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await reader.poll(timeout_s=1.0, most=7)
    assert len(found) == count
    return found


def test_each_partition_is_read_once_from_where_it_was_left(fresh_kafka):
    async def scenario():
        async with Producer(fresh_kafka, client_id="test") as producer:
            for number in range(40):
                await producer.publish(ANSWERS, answer(scan_id=f"a-{number}"), key=str(number).encode())
            await producer.publish(VERDICTS, verdict(), key=b"k")
            async with AssignedReader(fresh_kafka, (ANSWERS, VERDICTS), starts={}, client_id="test") as reader:
                first = await read(reader, 41)
                ends = await reader.ends()
                assert await reader.positions() == ends
                assert sum(ends.values()) == 41
            left = {Partition(each.topic, each.partition): each.offset + 1 for each in first[:20]}
            async with AssignedReader(fresh_kafka, (ANSWERS, VERDICTS), starts=left, client_id="test") as reader:
                rest = await read(reader, 21)
                more = asyncio.create_task(read(reader, 1))
                await producer.publish(ANSWERS, answer(scan_id="later"), key=b"1")
                (later,) = await more
        places = [(each.topic.name, each.partition, each.offset) for each in (*first[:20], *rest)]
        assert len(set(places)) == 41
        assert later.message.scan_id == "later"  # type: ignore[union-attr]

    asyncio.run(scenario())


def test_an_offset_that_the_log_does_not_have_is_taken_for_its_beginning(fresh_kafka):
    async def scenario():
        async with Producer(fresh_kafka, client_id="test") as producer:
            await producer.publish(VERDICTS, verdict(), key=b"k")
        beyond = {Partition(VERDICTS, number): 1_000 for number in range(VERDICTS.partitions)}
        async with AssignedReader(fresh_kafka, (VERDICTS,), starts=beyond, client_id="test") as reader:
            (only,) = await read(reader, 1)
        assert only.offset == 0

    asyncio.run(scenario())


def test_without_kafka_it_says_so():
    async def scenario():
        nowhere = BrokerSettings(bootstrap_servers="127.0.0.1:9")
        with pytest.raises(BrokerUnavailable, match=r"no Kafka at 127\.0\.0\.1:9"):
            async with AssignedReader(nowhere, (VERDICTS,), starts={}, client_id="test"):
                pass

    asyncio.run(scenario())
