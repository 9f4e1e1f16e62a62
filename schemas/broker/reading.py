"""Reading records so that one batch that cannot be read costs nothing but itself."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka import errors as kafka

from schemas.broker.positions import find_starts
from schemas.broker.records import Received, read_record
from schemas.codec import NO_VIEWS, CodecError, Views
from schemas.topics import TopicSpec

log = structlog.get_logger("schemas.broker")

_TRIES = 3
_SINGLES = 50
_CAREFUL_POLL_S = 0.1


class BatchUnreadable(CodecError):
    """The broker's bytes at this offset are no batch: a checksum that does not fit, or a compression we do not know."""

    reason = "batch-unreadable"


class Reader:
    """Records from an aiokafka consumer, in order of each partition, none left out.

    When aiokafka cannot unpack one partition's batch, its `getmany` raises and forgets what it had taken from others,
    whose positions have moved on by then. A reader therefore remembers where each partition goes on, goes back there,
    and reads one partition at a time, the faulty one record by record, until all can be read again. An offset that
    stays unreadable is handed on as a `Received` with the fault `BatchUnreadable`, and passed.

    A member of a group, made with ``auto_offset_reset="none"``, begins where `find_starts` says. Where that is out of
    the log's range (its records were deleted, or the log was cut back), it goes on at the start of the log.
    """

    def __init__(
        self,
        client: AIOKafkaConsumer,
        topics: Mapping[str, TopicSpec],
        *,
        epoch: Callable[[], int] = lambda: 0,
        views: Views = NO_VIEWS,
    ) -> None:
        self._client = client
        self._topics = topics
        self._epoch = epoch
        self._views = views
        self._next: dict[TopicPartition, int] = {}
        self._failures: dict[TopicPartition, int] = {}
        self._singles: dict[TopicPartition, int] = {}
        self._astray: set[TopicPartition] = set()
        self._careful = False

    def start_at(self, tp: TopicPartition, offset: int) -> None:
        """Go on reading `tp` at `offset`."""
        self._client.seek(tp, offset)
        self._next[tp] = offset
        self._astray.discard(tp)

    def forget(self) -> None:
        """The partitions were taken away: their next owner starts where the group committed."""
        self._next.clear()
        self._failures.clear()
        self._singles.clear()
        self._astray.clear()

    async def read(
        self, partitions: Sequence[TopicPartition], *, timeout_s: float, most: int | None = None
    ) -> list[Received]:
        """At most `most` records of `partitions` (all when empty); [] when `timeout_s` seconds pass without one.

        Each bears the epoch of the moment it was taken: partitions may come and go while this waits. Raises aiokafka's
        errors, but for those about a batch's bytes.
        """
        await self._go_back_to(self._astray & self._client.assignment())
        if self._careful:
            return await self._read_one_by_one(partitions, most)
        try:
            batches = await self._fetch(partitions, timeout_s=timeout_s, most=most)
        except Exception as error:
            if _is_stop(error):
                raise
            await self._go_back_to(self._client.assignment())
            if not _is_batch_fault(error):
                raise
            log.error("a fetch cannot be read, reading partition by partition", error=repr(error))
            self._careful = True
            return []
        return [received for records in batches.values() for received in self._take(records)]

    async def _read_one_by_one(self, partitions: Sequence[TopicPartition], most: int | None) -> list[Received]:
        taken: list[Received] = []
        for tp in partitions or sorted(self._client.assignment()):
            room = None if most is None else most - len(taken)
            if room == 0:
                return taken
            single = tp in self._failures  # what came before the fault in one call would be forgotten with it
            try:
                batches = await self._fetch([tp], timeout_s=_CAREFUL_POLL_S, most=1 if single else room)
            except Exception as error:
                if _is_stop(error):
                    raise
                try:
                    await self._go_back_to([tp])
                except Exception:
                    if taken:
                        return taken  # of other partitions, which have moved on; `tp` goes back before the next read
                    raise
                if not _is_batch_fault(error):
                    if taken:
                        return taken  # of other partitions, which have moved on; the error will come again
                    raise
                taken += self._note_failure(tp, error) if single else []
                self._failures.setdefault(tp, 0)
            else:
                for records in batches.values():
                    taken += self._take(records)
                self._note_success(tp, any(batches.values()))
        if not self._failures:
            self._careful = False
        return taken

    async def _fetch(
        self, partitions: Sequence[TopicPartition], *, timeout_s: float, most: int | None
    ) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """aiokafka's `getmany`, once every partition that it has no place in has been given one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            left_ms = max(0, int((until - loop.time()) * 1000))
            try:
                found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await self._client.getmany(
                    *partitions, timeout_ms=left_ms, max_records=most
                )
            except kafka.NoOffsetForPartitionError as error:
                assigned = self._client.assignment()
                await self._go_back_to(assigned & {*error.args, *(assigned - self._next.keys())})
            except kafka.OffsetOutOfRangeError as error:
                (offsets,) = error.args
                await self._start_over(offsets)
            else:
                return found

    def _take(self, records: Sequence[ConsumerRecord]) -> list[Received]:
        for record in records[-1:]:
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
        epoch = self._epoch()
        return [read_record(record, self._topics, epoch, self._views) for record in records]

    async def _go_back_to(self, partitions: Iterable[TopicPartition]) -> None:
        """Go back in each of `partitions`; those that an error leaves out are gone back to before the next read."""
        self._astray |= set(partitions)
        for tp in [tp for tp in self._astray if tp in self._next]:
            self.start_at(tp, self._next[tp])
        if not self._astray:
            return
        epoch = self._epoch()
        starts = await find_starts(self._client, self._astray)
        for tp in self._astray & starts.keys() - self._next.keys():  # as they are by now: another read may run beside
            if self._epoch() == epoch:
                self.start_at(tp, starts[tp])

    async def _start_over(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Go to the start of the log in each partition that has no such offset as the one it is at."""
        epoch = self._epoch()
        for tp, start in (await self._client.beginning_offsets(list(offsets))).items():
            if self._epoch() == epoch:
                place = {"topic": tp.topic, "partition": tp.partition, "offset": offsets[tp]}
                log.warning("offset out of range, going on at the start of the log", start=start, **place)
                self.start_at(tp, start)

    def _note_success(self, tp: TopicPartition, found: bool) -> None:
        """Trust a partition again once it has nothing more for now, or gave many single records without a fault."""
        if tp in self._failures:
            self._singles[tp] = self._singles.get(tp, 0) + 1
            if not found or self._singles[tp] >= _SINGLES:
                del self._failures[tp], self._singles[tp]

    def _note_failure(self, tp: TopicPartition, error: Exception) -> list[Received]:
        self._failures[tp] += 1
        if self._failures[tp] < _TRIES:
            return []
        offset = self._next[tp]
        log.error("offset cannot be read, passing it", topic=tp.topic, partition=tp.partition, offset=offset)
        self.start_at(tp, offset + 1)
        self._failures[tp] = 0
        fault = BatchUnreadable(f"{type(error).__name__}: {error}")
        return [Received(self._topics[tp.topic], tp.partition, offset, 0, None, None, fault, 0, self._epoch())]


async def find_partitions(client: AIOKafkaConsumer, name: str) -> set[int]:
    """The partitions of the topic `name`; raises aiokafka's errors."""
    partitions = client.partitions_for_topic(name)
    if not partitions:
        # aiokafka knows only topics that it was asked for; asking for the offsets of partition 0 adds this one.
        await client.end_offsets([TopicPartition(name, 0)])
        partitions = client.partitions_for_topic(name)
    return partitions or {0}


def _is_stop(error: Exception) -> bool:
    """Whether there is no assignment to go on with."""
    return isinstance(error, (kafka.ConsumerStoppedError, kafka.IllegalStateError))


def _is_batch_fault(error: Exception) -> bool:
    """Whether a batch's bytes are at fault: Kafka's two words for it, or whatever a decompressor raises."""
    faults = (kafka.CorruptRecordException, kafka.UnsupportedCodecError)
    return isinstance(error, faults) or not isinstance(error, (kafka.KafkaError, OSError))
