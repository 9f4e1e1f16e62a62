"""Reading topics without a group: every partition, from the recent past, for ever."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.connecting import connecting
from schemas.broker.errors import is_refusal, unavailable
from schemas.broker.reading import Reader, find_partitions
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.clock import now_ms
from schemas.topics import TopicSpec

log = structlog.get_logger("schemas.broker")

_POLL_S = 1.0
_NEW_PARTITIONS_EVERY_S = 30.0
_RETRY_S = 0.5
_STOP_WITHIN_S = 5.0
_AT_ONCE = 100
"""Records decoded and handed on without a pause: hours of verdicts at start must not hold up the event loop."""


class Tail:
    """Hands every record of `topics` that is younger than `since_s` seconds, and all to come, to `on_record`.

    Of a topic that is only compacted, a record is as good as new however old it is: it is read from its beginning.

    `on_record` is called on the event loop and must not block. `positioned` turns True when everything that stood in
    the topics at start has been handed on. Partitions added later are picked up. Also an async context manager.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topics: Sequence[TopicSpec],
        *,
        since_s: float,
        on_record: Callable[[Received], None],
        client_id: str,
    ) -> None:
        self._settings = settings
        self._topics = {topic.full_name(settings.topic_prefix): topic for topic in topics}
        self._since_s = since_s
        self._on_record = on_record
        self._client_id = client_id
        self._client: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None
        self._behind: dict[TopicPartition, int] = {}
        self._positioned = asyncio.Event()

    @property
    def positioned(self) -> bool:
        """Whether what stood in the topics at start has been read, and reading goes on."""
        return self._positioned.is_set() and self._reading is not None and not self._reading.done()

    async def wait_positioned(self) -> None:
        """Wait until `positioned`. Raises what ended the reading before that, which is a fault of ours."""
        if self._reading is None:
            await self._positioned.wait()
            return
        waiting = asyncio.create_task(self._positioned.wait())
        try:
            await asyncio.wait((waiting, self._reading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._reading.done() and not self._positioned.is_set():
            self._reading.result()

    async def wait_ended(self) -> None:
        """Wait until reading ends; raises what ended it, which is a fault of ours: outages are waited out."""
        if self._reading is not None:
            await asyncio.shield(self._reading)

    async def start(self) -> None:
        """Connect and begin to read. Raises `BrokerUnavailable` or `BrokerRefused`."""
        async with connecting(self._settings, client_id=self._client_id, offset_reset="earliest") as client:
            reader = Reader(client, self._topics)
            await self._assign(client, reader)
        self._client = client
        self._reading = asyncio.create_task(self._read(client, reader), name="tail")

    async def stop(self) -> None:
        """Stop reading and disconnect."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._client is not None:
            await close_client(self._client, _STOP_WITHIN_S)
            self._client = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _assign(self, client: AIOKafkaConsumer, reader: Reader) -> None:
        """Take every partition there is; new ones are read from `since_s` ago, the others from where we are."""
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
        ends = await client.end_offsets(new)
        starts = await client.offsets_for_times({tp: self._since_ms(tp) for tp in new})
        for tp in new:
            at = starts.get(tp)
            start = ends[tp] if at is None else at.offset
            reader.start_at(tp, start)
            if start < ends[tp]:
                self._behind[tp] = ends[tp]
        if not self._behind:
            self._positioned.set()

    def _since_ms(self, tp: TopicPartition) -> int:
        return 0 if self._topics[tp.topic].is_state else now_ms() - int(self._since_s * 1000)

    async def _read(self, client: AIOKafkaConsumer, reader: Reader) -> None:
        loop = asyncio.get_running_loop()
        look_again_at = loop.time() + _NEW_PARTITIONS_EVERY_S
        while True:
            try:
                if loop.time() >= look_again_at:
                    look_again_at = loop.time() + _NEW_PARTITIONS_EVERY_S
                    await self._assign(client, reader)
                records = await reader.read((), timeout_s=_POLL_S, most=_AT_ONCE)
            except kafka.KafkaError as error:
                if is_refusal(error):
                    log.error("tail refused", error=str(unavailable(self._settings.bootstrap_servers, error)))
                else:
                    log.warning("tail failed, trying again", error=repr(error))
                await asyncio.sleep(_RETRY_S)
                continue
            for record in records:
                self._on_record(record)
            await asyncio.sleep(0)  # aiokafka does not pause while it has records
            if self._behind:
                await self._note_positions(client)

    async def _note_positions(self, client: AIOKafkaConsumer) -> None:
        # The last records may be gone (deleted, compacted): then only the position tells that we are there.
        for tp in list(self._behind):
            self._note_read(tp, await client.position(tp))

    def _note_read(self, tp: TopicPartition, position: int) -> None:
        if position >= self._behind.get(tp, position + 1):
            del self._behind[tp]
        if not self._behind:
            self._positioned.set()
