"""Topics on a real Apache Kafka: applied, compared, and refused where a service could not work."""

import asyncio
import dataclasses

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.broker import (
    TopicsNotReady,
    apply_topics,
    check_topics,
    diff_topics,
)
from schemas.topics import IMAGES, IMAGES_BACKLOG, SCANNERS, VERDICTS

pytestmark = pytest.mark.kafka


def test_applied_topics_do_not_differ_from_their_declaration(broker):
    assert asyncio.run(diff_topics(broker, [IMAGES, IMAGES_BACKLOG, VERDICTS, SCANNERS])) == []
    asyncio.run(check_topics(broker, [IMAGES, VERDICTS]))


def test_a_drifted_topic_is_told_and_mended_and_does_not_stop_a_service(broker):
    wanted = dataclasses.replace(VERDICTS, retention_ms=123_000, partitions=VERDICTS.partitions + 2)

    async def scenario():
        changes = await diff_topics(broker, [wanted])
        assert {c.setting for c in changes} == {"retention.ms", "partitions"}
        await check_topics(broker, [wanted])
        assert await apply_topics(broker, [wanted]) == changes
        assert await diff_topics(broker, [wanted]) == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wanted",
    [
        dataclasses.replace(VERDICTS, name="not.there"),
        dataclasses.replace(VERDICTS, cleanup="compact"),
        dataclasses.replace(VERDICTS, max_message_bytes=VERDICTS.max_message_bytes * 2),
    ],
    ids=["missing", "wrong cleanup policy", "too small records"],
)
def test_a_topic_a_service_cannot_work_with_names_the_command(broker, wanted):
    with pytest.raises(TopicsNotReady, match="Run: fediwarden topics apply"):
        asyncio.run(check_topics(broker, [wanted]))


def test_settings_of_an_admins_own_are_kept_and_durability_is_never_lowered(kafka, broker):
    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        name = VERDICTS.full_name(broker.topic_prefix)
        own = VERDICTS.config(min_insync=1) | {"retention.ms": "777", "flush.ms": "12345", "min.insync.replicas": "2"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, own)])
        await until_config(admin, name, "retention.ms", "777")
        assert [change.setting for change in await apply_topics(broker, [VERDICTS])] == ["retention.ms"]
        await until_config(admin, name, "flush.ms", "12345")
        await until_config(admin, name, "min.insync.replicas", "2")
        own = VERDICTS.config(min_insync=1) | {"compression.type": "zstd"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, own)])
        await until_config(admin, name, "compression.type", "zstd")
        with pytest.raises(TopicsNotReady, match=r"compression\.type"):
            await check_topics(broker, [VERDICTS])
        await admin.close()

    asyncio.run(scenario())


async def until_config(admin: AIOKafkaAdminClient, name: str, setting: str, value: str) -> None:
    async with asyncio.timeout(20):
        while True:
            (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
            if {entry[0]: entry[1] for entry in response.resources[0][4]}[setting] == value:
                return
            await asyncio.sleep(0.05)
