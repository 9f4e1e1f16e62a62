"""Publishing origins from a process that does not depend on Kafka: connected when Kafka is there, refusing when not."""

import asyncio

import structlog

from schemas.broker import BrokerError, BrokerSettings, BrokerUnavailable, Producer, check_topics
from schemas.messages import OriginObserved
from schemas.topics import ORIGINS

log = structlog.get_logger("federation_audit.publishing")

_GIVE_UP_S = 5.0
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 10.0
_FLUSH_S = 1.0


class OriginPublisher:
    """Publishes origins while `run` runs."""

    def __init__(self, broker: BrokerSettings, *, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._producer: Producer | None = None

    async def publish(self, origin: OriginObserved) -> None:
        """Return when every in-sync replica has `origin`. Raises a `BrokerError` within 5 s when Kafka is away."""
        if self._producer is None:
            raise BrokerUnavailable(f"not connected to Kafka at {self._broker.bootstrap_servers}")
        key = origin.sha256 or (origin.url or origin.alias).encode()
        await self._producer.publish(ORIGINS, origin, key=key, give_up_after=_GIVE_UP_S)

    async def run(self) -> None:
        """Connect, trying until it works, and stay connected until cancelled."""
        pause, said = _RETRY_FIRST_S, ""
        while True:
            try:
                await check_topics(self._broker, (ORIGINS,))
                async with Producer(self._broker, client_id=self._client_id) as producer:
                    await self._publish_through(producer)
            except BrokerError as error:
                if str(error) != said:  # once, not at every try
                    log.warning("origins_not_taken", error=str(error))
                said = str(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MOST_S)

    async def _publish_through(self, producer: Producer) -> None:
        self._producer = producer
        log.info("origins_taken")
        try:
            await asyncio.Event().wait()  # the producer renews itself
        finally:
            self._producer = None
            await producer.stop(within_s=_FLUSH_S)
