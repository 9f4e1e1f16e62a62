"""What erasing records takes: where partitions begin and end, how far groups have come, DeleteRecords."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas.broker.admin import open_admin, read_configs
from schemas.broker.history import open_reader
from schemas.broker.reading import Reader, find_partitions
from schemas.broker.settings import BrokerSettings
from schemas.topics import TopicSpec

_CLIENT_ID = "fediwarden-erasure"
_PEEK_S = 2.0


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: TopicSpec
    number: int


class Bounds(NamedTuple):
    """The offset of a partition's first record, and the one after its last that every in-sync replica has."""

    begin: int
    end: int


class PartitionLogs:
    """The logs of some partitions on the cluster; made by `open_logs`, whose errors its methods raise."""

    def __init__(self, settings: BrokerSettings, admin: AIOKafkaAdminClient, client: AIOKafkaConsumer) -> None:
        self._prefix = settings.topic_prefix
        self._admin = admin
        self._client = client

    async def bounds(self, topics: Sequence[TopicSpec]) -> dict[Partition, Bounds]:
        """Where every partition of `topics` begins and ends now."""
        found = {
            self._tp(partition): partition
            for topic in topics
            for number in sorted(await find_partitions(self._client, topic.full_name(self._prefix)))
            if (partition := Partition(topic, number))
        }
        begins = await self._client.beginning_offsets(list(found))
        ends = await self._client.end_offsets(list(found))
        return {partition: Bounds(begins[tp], ends[tp]) for tp, partition in found.items()}

    async def committed(self, group: str, topics: Sequence[TopicSpec]) -> dict[Partition, int]:
        """The offsets that `group` (named without the prefix) has committed in `topics`.

        To be compared with `bounds` it must be asked first: a group never commits beyond an end that is asked later.
        """
        by_name = {topic.full_name(self._prefix): topic for topic in topics}
        offsets = await self._admin.list_consumer_group_offsets(self._prefix + group)
        return {
            Partition(by_name[tp.topic], tp.partition): found.offset
            for tp, found in offsets.items()
            if tp.topic in by_name and found.offset >= 0
        }

    async def segment_ms(self, topics: Sequence[TopicSpec]) -> dict[TopicSpec, int]:
        """After how many milliseconds a segment of each topic rolls, as the cluster has it."""
        configs = await read_configs(self._admin, [topic.full_name(self._prefix) for topic in topics])
        values = {name: {entry.name: entry.value for entry in entries} for name, entries in configs.items()}
        return {topic: int(values[topic.full_name(self._prefix)]["segment.ms"]) for topic in topics}

    async def delete_before(self, offsets: Mapping[Partition, int]) -> None:
        """Delete every record before the given offsets: nobody reads them from now on.

        Their bytes leave the disk with their segment: when it has rolled and the broker looks for it.
        """
        if offsets:
            await self._admin.delete_records(
                {self._tp(partition): RecordsToDelete(offset) for partition, offset in offsets.items()}
            )

    async def all_keyed(self, partition: Partition, start: int, end: int, key: bytes) -> bool:
        """Whether every offset from `start` up to `end` holds a record with `key`. False when that cannot be read."""
        tp = self._tp(partition)
        self._client.assign([tp])
        reader = Reader(self._client, {tp.topic: partition.topic})
        reader.start_at(tp, start)
        position = start
        while position < end:
            records = await reader.read([tp], timeout_s=_PEEK_S)
            for record in records:
                if position < end and (record.offset != position or record.key != key):
                    return False
                position += 1
            if not records:
                return False
        return end > start

    def _tp(self, partition: Partition) -> TopicPartition:
        return TopicPartition(partition.topic.full_name(self._prefix), partition.number)


@asynccontextmanager
async def open_logs(settings: BrokerSettings) -> AsyncIterator[PartitionLogs]:
    """Connect, for one round of questions and deletions. Raises `BrokerUnavailable` or `BrokerRefused`."""
    async with open_admin(settings) as admin, open_reader(settings, _CLIENT_ID) as client:
        yield PartitionLogs(settings, admin, client)
