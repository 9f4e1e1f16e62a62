"""Publishing: acks=all, idempotent, and tried again after the client library has given up."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.errors import BrokerError, BrokerUnavailable, PublishRefused, is_unpublishable, unavailable
from schemas.broker.settings import BrokerSettings
from schemas.codec import IMPORTED_HEADER, SCHEMA_HEADER, encode, schema_of
from schemas.messages import Message
from schemas.telemetry import tracing
from schemas.topics import MAX_MESSAGE_BYTES, RECORD_MAX_BYTES, TopicSpec

log = structlog.get_logger("schemas.broker")

_REQUEST_TIMEOUT_MS = 5_000  # shorter than a broker failover (6-9 s): we retry past it, see `Producer.publish`
_METADATA_MAX_AGE_MS = 10_000
_BATCH_BYTES = RECORD_MAX_BYTES
"""Of one partition. Kafka holds a batch to what a topic says of one record; a larger record goes alone."""
_RETRY_FIRST_S = 0.1
_RETRY_MOST_S = 2.0
_SILENT_S = 2.0
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Published:
    """Where a message now stands in Kafka."""

    partition: int
    offset: int


class Producer:
    """A producer shared by everything in one process. Also an async context manager.

    A broker failover outlasts the client's request timeout, after which aiokafka fails the message; some failures
    (a lost sequence number) end aiokafka's producer for good. `publish` survives both: it publishes again, with a
    new client where the old one is dead. A message may therefore be written twice: consumers are idempotent by scan id.
    """

    def __init__(self, settings: BrokerSettings, *, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._client: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()
        self._failing = False
        self._begun: dict[object, float] = {}  # publications under way, in order
        self._succeeded_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether it is started and messages get through."""
        return self._client is not None and self.failing_for_s < _SILENT_S

    @property
    def failing_for_s(self) -> float:
        """For how many seconds messages have waited and none has got through; 0 while none waits.

        Judged by waiting, not by errors: aiokafka's idempotent producer retries for ever without a word.
        """
        begun = next(iter(self._begun.values()), None)
        return 0.0 if begun is None else max(0.0, time.monotonic() - max(begun, self._succeeded_at))

    async def start(self) -> None:
        """Connect. Raises `BrokerUnavailable` or `BrokerRefused`."""
        self._client = await self._connect()
        self._failing = False

    async def stop(self, within_s: float = _STOP_TIMEOUT_S) -> None:
        """Flush what is pending, for at most `within_s` seconds, and disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await close_client(client, within_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def publish(
        self,
        topic: TopicSpec,
        message: Message | None,
        *,
        key: bytes,
        partition: int | None = None,
        give_up_after: float | None = None,
        timestamp_ms: int | None = None,
        imported: bool = False,
    ) -> Published:
        """Publish `message` (None: a tombstone) and wait until every in-sync replica has it.

        It goes to the partition that belongs to `key`, or to `partition` where one is named that the topic has.
        Its time is `timestamp_ms`, or now; `imported` marks it as history that nobody is to act on.
        Tries until it succeeds or `give_up_after` seconds are over (None: for ever).
        Raises `BrokerUnavailable` when it gives up, `PublishRefused` when the message can never be published.
        """
        value = None if message is None else encode(message)
        headers = [] if message is None else [(SCHEMA_HEADER, schema_of(message).encode("ascii"))]
        if imported:
            headers.append((IMPORTED_HEADER, b"1"))
        if traceparent := tracing.current_traceparent():
            headers.append((tracing.HEADER, traceparent.encode("ascii")))
        name = topic.full_name(self._settings.topic_prefix)
        mark = object()
        self._begun[mark] = time.monotonic()
        try:
            async with asyncio.timeout(give_up_after):
                return await self._publish(name, value, key, headers, partition, timestamp_ms)
        except TimeoutError as error:
            self._note_failure(error)
            raise BrokerUnavailable(f"could not publish to {name} within {give_up_after} s") from error
        finally:
            del self._begun[mark]

    async def partition_count(self, topic: TopicSpec) -> int:
        """How many partitions `topic` has now. Raises `BrokerUnavailable`."""
        name = topic.full_name(self._settings.topic_prefix)
        try:
            if self._client is None:
                raise kafka.ProducerClosed
            return len(await self._client.partitions_for(name))
        except kafka.KafkaError as error:
            raise BrokerUnavailable(f"the partitions of {name} are not known: {error!r}") from error

    async def _publish(
        self,
        name: str,
        value: bytes | None,
        key: bytes,
        headers: list[tuple[str, bytes]],
        partition: int | None,
        timestamp_ms: int | None,
    ) -> Published:
        pause = _RETRY_FIRST_S
        while True:
            client = self._client
            try:
                if client is None:
                    raise kafka.ProducerClosed
                if partition is not None and partition not in await client.partitions_for(name):
                    partition = None  # the topic was made anew; aiokafka asserts
                written = await client.send_and_wait(
                    name, value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp_ms
                )
                self._note_success()
                return Published(written.partition, written.offset)
            except kafka.KafkaError as error:
                if is_unpublishable(error):
                    raise PublishRefused(f"{name}: {type(error).__name__}: {error}") from error
                self._note_failure(error)
                if not isinstance(error, kafka.KafkaTimeoutError) and not error.retriable:
                    await self._renew(client)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MOST_S)

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:  # one line an outage, however many messages wait
            log.warning("Kafka does not take messages, trying again until it does", error=repr(error))
        self._failing = True

    def _note_success(self) -> None:
        self._succeeded_at = time.monotonic()
        if self._failing:
            log.info("Kafka takes messages again")
        self._failing = False

    async def _renew(self, dead: AIOKafkaProducer | None) -> None:
        """Replace the client `dead`, once, however many callers noticed that it is."""
        async with self._renewing:
            if self._client is not dead:
                return
            try:
                self._client = await self._connect()
            except BrokerError as error:
                log.warning("no new Kafka producer yet", error=str(error))
                return
        if dead is not None:
            await close_client(dead, _STOP_TIMEOUT_S)

    async def _connect(self) -> AIOKafkaProducer:
        try:
            client = AIOKafkaProducer(
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH_BYTES,
                max_request_size=MAX_MESSAGE_BYTES,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                metadata_max_age_ms=_METADATA_MAX_AGE_MS,
                **self._settings.client_options(),
            )
        except OSError as error:
            raise unavailable(self._settings.bootstrap_servers, error) from error
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await client.start()
        except (kafka.KafkaError, OSError, TimeoutError, ValueError) as error:
            await close_client(client, _STOP_TIMEOUT_S)
            raise unavailable(self._settings.bootstrap_servers, error) from error
        except asyncio.CancelledError:
            await close_client(client, 0.0)  # it ends by itself
            raise
        return client
