"""Publishing to a real Apache Kafka."""

import asyncio
import dataclasses

import pytest

from schemas.broker import (
    BrokerSettings,
    BrokerUnavailable,
    Producer,
    PublishRefused,
    Tail,
    check_topics,
)
from schemas.topics import IMAGE_MAX_BYTES, IMAGES, VERDICTS
from tests.unit.schemas.samples import image, verdict

pytestmark = pytest.mark.kafka


def test_a_message_larger_than_its_topic_is_refused_and_the_next_one_goes_through(broker):
    async def scenario():
        async with Producer(broker, client_id="test") as producer:
            sealed = image().sealed.model_copy(update={"ciphertext": b"x" * (IMAGE_MAX_BYTES + 1)})
            with pytest.raises(PublishRefused):
                await producer.publish(IMAGES, image(sealed=sealed), key=b"k")
            sealed = image().sealed.model_copy(update={"ciphertext": b"x" * 300_000})
            with pytest.raises(PublishRefused):  # the broker's word, not the client's: verdicts are smaller
                await producer.publish(VERDICTS, image(sealed=sealed), key=b"k")
            assert (await producer.publish(IMAGES, image(), key=b"k")).offset == 0
            assert producer.connected

    asyncio.run(scenario())


def test_without_kafka_starting_fails_by_name_and_publishing_gives_up_when_told():
    nowhere = BrokerSettings(bootstrap_servers="127.0.0.1:9")

    async def scenario():
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9"):
            await Producer(nowhere, client_id="test").start()
        with pytest.raises(BrokerUnavailable):
            await Producer(nowhere, client_id="test").publish(VERDICTS, verdict(), key=b"k", give_up_after=0.5)
        with pytest.raises(BrokerUnavailable):
            await Tail(nowhere, [VERDICTS], since_s=1, on_record=print, client_id="test").start()
        with pytest.raises(BrokerUnavailable):
            await check_topics(nowhere, [VERDICTS])

    asyncio.run(scenario())


def test_a_message_goes_to_the_partition_that_is_named_if_there_is_one_and_else_to_its_keys(broker):
    async def scenario() -> None:
        async with Producer(broker, client_id="test") as producer:
            assert await producer.partition_count(IMAGES) == IMAGES.partitions
            usual = (await producer.publish(IMAGES, image(), key=b"k")).partition
            for named in range(IMAGES.partitions):
                assert (await producer.publish(IMAGES, image(), key=b"k", partition=named)).partition == named
            beyond = await producer.publish(IMAGES, image(), key=b"k", partition=IMAGES.partitions)
            assert beyond.partition == usual

    asyncio.run(scenario())


def test_the_partitions_of_a_topic_that_is_not_there_are_not_known(broker):
    async def scenario() -> None:
        producer = Producer(broker, client_id="test")
        with pytest.raises(BrokerUnavailable, match="images"):
            await producer.partition_count(IMAGES)
        async with producer:
            with pytest.raises(BrokerUnavailable, match="not-there"):
                await producer.partition_count(dataclasses.replace(VERDICTS, name="not-there"))

    asyncio.run(scenario())


def test_what_is_published_to_one_partition_at_once_makes_no_batch_that_is_too_large(broker):
    async def scenario():
        async with Producer(broker, client_id="test") as producer:
            found = await asyncio.gather(
                *(producer.publish(VERDICTS, verdict(scan_id=f"v{number}"), key=b"k") for number in range(2_000))
            )
        assert len({(each.partition, each.offset) for each in found}) == 2_000

    asyncio.run(scenario())
