"""What tests of our Kafka client share."""

import asyncio
import uuid

import pytest

from schemas.broker import (
    BrokerSettings,
    apply_topics,
)
from schemas.topics import IMAGES, IMAGES_BACKLOG, SCANNERS, VERDICTS


@pytest.fixture
def broker(kafka: BrokerSettings) -> BrokerSettings:
    """The session's Kafka with topics of this test's own."""
    settings = kafka.model_copy(update={"topic_prefix": f"t{uuid.uuid4().hex[:8]}."})
    asyncio.run(apply_topics(settings, [IMAGES, IMAGES_BACKLOG, VERDICTS, SCANNERS]))
    return settings
