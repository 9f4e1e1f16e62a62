"""Consumers without a group, for those who read everything by themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.errors import unavailable
from schemas.broker.settings import BrokerSettings

_WITHIN_S = 20.0
_STOP_WITHIN_S = 5.0


@asynccontextmanager
async def connecting(settings: BrokerSettings, *, client_id: str, offset_reset: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that has connected, for the first questions: they fail when all that takes more than 20 s.

    It stays open afterwards, and is closed where a question fails. `offset_reset` is Kafka's ``auto.offset.reset``.
    Raises `BrokerUnavailable` or `BrokerRefused`.
    """
    try:
        client = AIOKafkaConsumer(
            group_id=None,
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset=offset_reset,
            metadata_max_age_ms=10_000,
            request_timeout_ms=15_000,
            **settings.client_options(),
        )
    except OSError as error:
        raise unavailable(settings.bootstrap_servers, error) from error
    try:
        async with asyncio.timeout(_WITHIN_S):
            await client.start()
            yield client
    except (kafka.KafkaError, OSError, TimeoutError, ValueError) as error:
        await close_client(client, _STOP_WITHIN_S)
        raise unavailable(settings.bootstrap_servers, error) from error
