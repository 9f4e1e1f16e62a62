"""How far a rescan is, as the audit sees it on a real Kafka: what its group has committed, and nothing else."""

import asyncio
from pathlib import Path

import pytest

from federation_audit.rescans.watching import RescanWatch
from schemas.broker import BrokerSettings, Consumer, Partition, Producer, find_windows, start_group
from schemas.clock import now_ms
from schemas.messages import RescanSpan, RescanState
from schemas.topics import VERDICTS
from tests.stores import judged, open_store, ordered, sqlite_url, write

pytestmark = pytest.mark.kafka

MANY, SOME = 120, 45


def test_done_is_what_the_rescans_group_has_committed(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    async def look(watch: RescanWatch) -> tuple[int, int]:
        async with asyncio.timeout(60):
            while True:  # the first group of a cluster: Kafka makes what keeps its offsets
                await watch.look()
                assert watch.seen is not None
                if watch.seen.progress is not None and not watch.seen.fault:
                    return watch.seen.progress.done, watch.seen.progress.left
                await asyncio.sleep(0.2)

    async def scenario() -> None:
        at = now_ms()
        async with Producer(fresh_kafka, client_id="test") as producer:
            verdicts = [judged(number, at=at) for number in range(MANY)]
            await asyncio.gather(*(producer.publish(VERDICTS, each, key=each.sha256) for each in verdicts))
        windows = await find_windows(fresh_kafka, VERDICTS, since_ms=0, until_ms=now_ms() + 60_000, client_id="test")
        spans = tuple(
            RescanSpan(topic="verdicts", partition=place.number, begin=each.begin, end=each.end)
            for place, each in windows.items()
        )
        job = ordered(RescanState.RUNNING, at=at, spans=spans)
        with open_store(sqlite_url(tmp_path)) as store:
            write(store, [job])
            watch = RescanWatch(store, fresh_kafka)
            assert await look(watch) == (0, MANY), "nobody has begun"
            starts = {Partition(VERDICTS, span.partition): span.begin for span in spans}
            await start_group(fresh_kafka, job.group, starts, client_id="test")
            async with Consumer(fresh_kafka, (VERDICTS,), group=job.group, client_id="test") as consumer:
                done = 0
                while done < SOME:
                    records = await consumer.poll(max_messages=SOME - done, timeout_s=5)
                    for received in records:
                        consumer.done(received)
                    done += len(records)
            assert await look(watch) == (SOME, MANY - SOME)  # leaving commits
            assert watch.seen is not None and watch.seen.moved_at is not None
            assert watch.seen.is_worked_on(now_ms()) is True

    asyncio.run(scenario())
