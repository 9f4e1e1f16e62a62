"""Reading topics once, from a moment in the past to where they end, against a real Apache Kafka."""

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from fediwarden.kafka.cluster import Cluster
from schemas.broker import BrokerSettings, BrokerUnavailable, Producer, Received, history, read_history
from schemas.clock import now_ms
from schemas.topics import ANSWERS, IMAGES, IMAGES_DEAD, VERDICTS
from tests.unit.schemas.samples import answer, image, verdict

pytestmark = pytest.mark.kafka


async def publish_answers(producer: Producer, numbers: range) -> None:
    answers = [answer(scan_id=f"scan-{n}", sha256=hashlib.sha256(str(n).encode()).digest()) for n in numbers]
    await asyncio.gather(*(producer.publish(ANSWERS, each, key=each.sha256) for each in answers))


def scan_ids(records: list[Received]) -> list[str]:
    return sorted(record.message.scan_id for record in records)  # type: ignore[union-attr]


def test_everything_that_stands_there_is_handed_on_once_and_nothing_that_comes_meanwhile(fresh_kafka):
    async def scenario():
        records: list[Received] = []
        progress: list[tuple[int, int]] = []
        more: list[asyncio.Task[object]] = []
        async with Producer(fresh_kafka, client_id="test") as producer:
            await publish_answers(producer, range(500))
            await producer.publish(VERDICTS, verdict(scan_id="scan-500"), key=b"k")

            def take(record: Received) -> None:
                if not more:
                    more.append(asyncio.create_task(publish_answers(producer, range(1000, 1500))))
                records.append(record)

            await read_history(
                fresh_kafka,
                (ANSWERS, VERDICTS, IMAGES_DEAD),
                since_ms=0,
                on_record=take,
                on_progress=lambda passed, of: progress.append((passed, of)),
                client_id="test",
            )
            await asyncio.gather(*more)
        assert scan_ids(records) == sorted(f"scan-{n}" for n in range(501))
        assert progress[-1] == (501, 501)
        assert progress == sorted(progress)

    asyncio.run(scenario())


def test_what_was_published_before_the_moment_is_left_out(fresh_kafka):
    async def scenario():
        records: list[Received] = []
        async with Producer(fresh_kafka, client_id="test") as producer:
            await publish_answers(producer, range(50))
            since = now_ms() + 1
            while now_ms() <= since:
                await asyncio.sleep(0)
            await publish_answers(producer, range(50, 60))
        await read_history(fresh_kafka, (ANSWERS,), since_ms=since, on_record=records.append, client_id="test")
        assert scan_ids(records) == [f"scan-{n}" for n in range(50, 60)]
        await read_history(fresh_kafka, (ANSWERS,), since_ms=now_ms() + 60_000, on_record=pytest.fail, client_id="test")

    asyncio.run(scenario())


def test_without_kafka_it_says_so():
    nowhere = BrokerSettings(bootstrap_servers="127.0.0.1:9")
    with pytest.raises(BrokerUnavailable, match=r"no Kafka at 127\.0\.0\.1:9"):
        asyncio.run(read_history(nowhere, (ANSWERS,), since_ms=0, on_record=pytest.fail, client_id="test"))


def test_a_kafka_that_dies_half_way_ends_it_instead_of_giving_half_for_all(
    make_kafka: Callable[[int], Cluster], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history, "_STALLED_AFTER_S", 2.0)
    cluster = make_kafka(1)
    kafka = BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)
    large = image().sealed.model_copy(update={"ciphertext": b"x" * 900_000})
    taken: list[Received] = []

    def take(record: Received) -> None:
        if not taken:
            cluster.kill_node(1)
        taken.append(record)

    async def scenario():
        async with Producer(kafka, client_id="test") as producer:
            for number in range(40):  # more than is fetched in advance
                await producer.publish(IMAGES, image(scan_id=f"scan-{number}", sealed=large), key=b"k")
        with pytest.raises(BrokerUnavailable):
            await read_history(kafka, (IMAGES,), since_ms=0, on_record=take, client_id="test")
        assert len(taken) < 40

    asyncio.run(scenario())
