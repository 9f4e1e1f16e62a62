"""Finding one key's newest record, against a real Apache Kafka."""

import asyncio
import hashlib

import pytest

from schemas.broker import BrokerSettings, BrokerUnavailable, Producer, SearchTooLong, Span, find_newest
from schemas.clock import now_ms
from schemas.topics import IMAGES_ARCHIVE
from tests.unit.schemas.samples import image

pytestmark = pytest.mark.kafka

MANY = 24


def sha(number: int) -> bytes:
    return hashlib.sha256(f"finding {number}".encode()).digest()


def test_the_newest_record_of_a_key_is_found_in_the_first_span_that_has_one(fresh_kafka: BrokerSettings) -> None:
    async def find(number: int, *spans: Span, most_bytes: int = 1 << 20):  # type: ignore[no-untyped-def]
        return await find_newest(
            fresh_kafka,
            IMAGES_ARCHIVE,
            key=sha(number),
            spans=spans,
            within_s=60,
            most_bytes=most_bytes,
            client_id="test",
        )

    async def scenario() -> None:
        began = now_ms()
        async with Producer(fresh_kafka, client_id="test") as producer:

            async def publish(number: int, scan_id: str | None) -> None:
                message = None if scan_id is None else image(sha256=sha(number), scan_id=scan_id)
                await producer.publish(IMAGES_ARCHIVE, message, key=sha(number))

            for number in range(MANY):
                await publish(number, f"first-{number}")
            await asyncio.sleep(0.05)
            middle = now_ms()
            await asyncio.sleep(0.05)
            await publish(3, "second-3")
            await publish(5, None)

        # In whichever of the partitions it is, and of the keys beside it only the one.
        for number in range(MANY):
            found = await find(number, Span(began))
            assert found is not None and found.key == sha(number)
            if number == 5:
                assert found.message is None and found.fault is None
            else:
                assert found.message.scan_id == ("second-3" if number == 3 else f"first-{number}")
        assert await find(MANY, Span(began)) is None

        # A span ends where it says; the next is asked only when the first has nothing.
        assert (await find(3, Span(began, middle))).message.scan_id == "first-3"
        assert (await find(3, Span(middle), Span(began, middle))).message.scan_id == "second-3"
        assert (await find(4, Span(middle), Span(began, middle))).message.scan_id == "first-4"
        assert await find(4, Span(middle)) is None
        assert await find(4, Span(now_ms() + 60_000)) is None

        with pytest.raises(SearchTooLong, match=r"images\.archive"):
            await find(3, Span(began), most_bytes=10)

    asyncio.run(scenario())


def test_without_kafka_it_says_so() -> None:
    nowhere = BrokerSettings(bootstrap_servers="127.0.0.1:9")
    with pytest.raises(BrokerUnavailable, match=r"no Kafka at 127\.0\.0\.1:9"):
        asyncio.run(
            find_newest(nowhere, IMAGES_ARCHIVE, key=b"k", spans=[Span(0)], within_s=30, most_bytes=1, client_id="test")
        )
