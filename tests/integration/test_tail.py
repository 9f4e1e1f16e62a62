"""Reading the end of topics on a real Apache Kafka, without a group."""

import asyncio
from collections import Counter

import pytest

from schemas.broker import (
    Producer,
    Tail,
    reading,
)
from schemas.broker.records import read_record
from schemas.topics import SCANNERS, VERDICTS
from tests.unit.schemas.samples import verdict

pytestmark = pytest.mark.kafka


def test_a_tail_is_positioned_once_it_has_read_the_past_and_goes_on_reading(broker):
    async def scenario():
        seen = []
        async with Producer(broker, client_id="test") as producer:
            for number in range(20):
                await producer.publish(VERDICTS, verdict(scan_id=f"v{number}"), key=bytes([number]))
            async with Tail(broker, [VERDICTS], since_s=3600, on_record=seen.append, client_id="test") as tail:
                await asyncio.wait_for(tail.wait_positioned(), 60)
                assert {record.message.scan_id for record in seen} == {f"v{n}" for n in range(20)}
                await producer.publish(VERDICTS, verdict(scan_id="later"), key=b"k")
                while seen[-1].message.scan_id != "later":
                    await asyncio.sleep(0.01)
                assert tail.positioned
            seen.clear()
            async with Tail(broker, [VERDICTS], since_s=0, on_record=seen.append, client_id="test") as tail:
                await asyncio.wait_for(tail.wait_positioned(), 60)
                assert seen == []

    asyncio.run(scenario())


def test_a_tail_of_empty_topics_is_positioned_at_once(broker):
    async def scenario():
        async with Tail(broker, [VERDICTS, SCANNERS], since_s=3600, on_record=print, client_id="test") as tail:
            await asyncio.wait_for(tail.wait_positioned(), 60)

    asyncio.run(scenario())


def test_a_tail_that_reads_the_past_pauses_for_others_every_hundred_records(broker, monkeypatch):
    rounds = 0
    decoded = Counter()

    def read(*arguments, **named):
        decoded[rounds] += 1
        return read_record(*arguments, **named)

    async def count_rounds():
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def scenario():
        async with Producer(broker, client_id="test") as producer:
            numbers = range(3_000)
            await asyncio.gather(*(producer.publish(VERDICTS, verdict(), key=bytes([n % 256])) for n in numbers))
        counting = asyncio.create_task(count_rounds())
        async with Tail(broker, [VERDICTS], since_s=3600, on_record=lambda _: None, client_id="test") as tail:
            await tail.wait_positioned()
        counting.cancel()

    monkeypatch.setattr(reading, "read_record", read)
    asyncio.run(scenario())
    assert decoded.total() >= 3_000
    assert max(decoded.values()) <= 100
