"""Reading topics without a group, from offsets that somebody else keeps."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.connecting import connecting
from schemas.broker.erasing import Partition
from schemas.broker.errors import is_refusal, unavailable
from schemas.broker.reading import Reader, find_partitions
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.topics import TopicSpec

log = structlog.get_logger("schemas.broker")

_ASK_TIMEOUT_S = 20.0
_NEW_PARTITIONS_EVERY_S = 30.0
_RETRY_S = 0.5
_STOP_WITHIN_S = 5.0


class AssignedReader:
    """All partitions of `topics`, each read in order from where `starts` says, else from its beginning, or its end.

    For a reader that keeps its offsets with what it made of the records: nothing is committed to Kafka, and nobody
    shares the work. An offset that the log does not have (any more) is taken for its beginning. Partitions added later
    are picked up. Also an async context manager.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topics: Sequence[TopicSpec],
        *,
        starts: Mapping[Partition, int],
        client_id: str,
        others_from_end: bool = False,
    ) -> None:
        self._settings = settings
        self._topics = {topic.full_name(settings.topic_prefix): topic for topic in topics}
        self._starts = {TopicPartition(self._full_name(at.topic), at.number): offset for at, offset in starts.items()}
        self._client_id = client_id
        self._others_from_end = others_from_end
        self._client: AIOKafkaConsumer | None = None
        self._reader: Reader | None = None
        self._look_again_at = 0.0

    async def start(self) -> None:
        """Connect, and take every partition. Raises `BrokerUnavailable` or `BrokerRefused`."""
        # "none": the reader goes on at the start of the log, and says so.
        async with connecting(self._settings, client_id=self._client_id, offset_reset="none") as client:
            reader = Reader(client, self._topics)
            await self._assign(client, reader)
        self._client, self._reader = client, reader

    async def stop(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await close_client(self._client, _STOP_WITHIN_S)
            self._client = self._reader = None

    async def poll(self, *, timeout_s: float, most: int) -> list[Received]:
        """At most `most` records; [] when `timeout_s` seconds pass without one, or Kafka is away.

        Raises `BrokerRefused`.
        """
        assert self._client is not None and self._reader is not None, "start comes first"
        try:
            if asyncio.get_running_loop().time() >= self._look_again_at:
                await self._assign(self._client, self._reader)
            return await self._reader.read((), timeout_s=timeout_s, most=most)
        except kafka.KafkaError as error:
            if is_refusal(error):
                raise unavailable(self._settings.bootstrap_servers, error) from error
            log.warning("reading failed, trying again", error=repr(error))
            await asyncio.sleep(_RETRY_S)
            return []

    async def ends(self) -> dict[Partition, int]:
        """The offset after the last record of each partition, now. Raises `BrokerUnavailable` or `BrokerRefused`."""
        return await self._ask(lambda client: client.end_offsets(list(client.assignment())))

    async def positions(self) -> dict[Partition, int]:
        """Where the next `poll` goes on, in each partition: beyond records that are gone. Raises as `ends` does."""

        async def positions(client: AIOKafkaConsumer) -> dict[TopicPartition, int]:
            return {tp: await client.position(tp) for tp in client.assignment()}

        return await self._ask(positions)

    async def _ask(
        self, question: Callable[[AIOKafkaConsumer], Awaitable[dict[TopicPartition, int]]]
    ) -> dict[Partition, int]:
        assert self._client is not None, "start comes first"
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                found = await question(self._client)
        except (kafka.KafkaError, TimeoutError) as error:
            raise unavailable(self._settings.bootstrap_servers, error) from error
        return {Partition(self._topics[tp.topic], tp.partition): offset for tp, offset in found.items()}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _assign(self, client: AIOKafkaConsumer, reader: Reader) -> None:
        self._look_again_at = asyncio.get_running_loop().time() + _NEW_PARTITIONS_EVERY_S
        before = {tp: await client.position(tp) for tp in client.assignment()}
        found = [
            TopicPartition(name, partition)
            for name in self._topics
            for partition in await find_partitions(client, name)
        ]
        if set(found) == set(before):
            return
        client.assign(found)
        for tp, offset in before.items():
            reader.start_at(tp, offset)
        new = [tp for tp in found if tp not in before]
        beginnings = await client.beginning_offsets(new)
        others = await client.end_offsets(new) if self._others_from_end else beginnings
        for tp in new:
            reader.start_at(tp, max(self._starts.get(tp, others[tp]), beginnings[tp]))

    def _full_name(self, topic: TopicSpec) -> str:
        return topic.full_name(self._settings.topic_prefix)
