"""What stands in the tests' topics."""

import asyncio
import contextlib

from schemas.broker import BrokerSettings, Received, Tail
from schemas.topics import TopicSpec


def read_topic(kafka: BrokerSettings, topic: TopicSpec) -> list[Received]:
    """Every record of `topic`, as it stands now."""
    records: list[Received] = []

    async def read() -> None:
        async with Tail(kafka, [topic], since_s=7 * 86_400, on_record=records.append, client_id="test") as tail:
            await tail.wait_positioned()

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(read())
    return records
