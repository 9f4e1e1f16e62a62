"""What erasing records takes: where partitions begin and end, how far groups have come, DeleteRecords."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas.broker.admin import open_admin, read_configs
from schemas.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable, TopicsNotReady, is_refusal
from schemas.broker.history import open_reader
from schemas.broker.reading import Reader
from schemas.broker.settings import BrokerSettings
from schemas.topics import TopicSpec

_CLIENT_ID = "fediwarden-erasure"
_ANSWER_WITHIN_S = 5.0
_PEEK_S = 2.0
_ACLS = "docs/topics.md says which rights the enforcer needs"
_NOBODY = -1  # the leader of a partition that has none, as Kafka names it


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: TopicSpec
    number: int

    def __str__(self) -> str:
        return f"{self.topic.name}-{self.number}"


class Bounds(NamedTuple):
    """The offset of a partition's first record, and the one after its last that every in-sync replica has."""

    begin: int
    end: int


class PartitionLogs:
    """The logs of some partitions on the cluster, for one round of questions and deletions; made by `open_logs`.

    A partition without a leader, or one that we may not touch, keeps nobody from the others: `failures` says why, by
    the partition's name (``images-3``), the topic's (``images``) or the group's (``group scanners``). The methods raise
    what `open_logs` does only when no broker can be asked at all.
    """

    def __init__(self, settings: BrokerSettings, admin: AIOKafkaAdminClient, client: AIOKafkaConsumer) -> None:
        self._prefix = settings.topic_prefix
        self._admin = admin
        self._client = client
        self.failures: dict[str, BrokerError] = {}

    async def bounds(self, topics: Sequence[TopicSpec]) -> dict[Partition, Bounds]:
        """Where every partition of `topics` that can be asked begins and ends now."""
        leaders = await self._find_leaders(topics)
        found: dict[Partition, Bounds] = {}
        for answered in await asyncio.gather(*map(self._ask_bounds, _group(leaders))):
            found |= answered
        return {partition: found[partition] for partition in leaders if partition in found}

    async def committed(self, group: str, topics: Sequence[TopicSpec]) -> dict[Partition, int]:
        """The offsets that `group` (named without the prefix) has committed in `topics`; none when it cannot be asked.

        To be compared with `bounds` it must be asked first: a group never commits beyond an end that is asked later.
        """
        by_name = {topic.full_name(self._prefix): topic for topic in topics}
        try:
            offsets = await self._admin.list_consumer_group_offsets(self._prefix + group)
        except kafka.KafkaError as error:
            self._note_failure([f"group {group}"], error)
            return {}
        return {
            Partition(by_name[tp.topic], tp.partition): found.offset
            for tp, found in offsets.items()
            if tp.topic in by_name and found.offset >= 0
        }

    async def segment_ms(self, topics: Sequence[TopicSpec]) -> dict[TopicSpec, int]:
        """After how many milliseconds a segment of each topic rolls, as the cluster has it."""
        by_name = {topic.full_name(self._prefix): topic for topic in topics}
        found: dict[TopicSpec, int] = {}
        configs = await read_configs(self._admin, list(by_name))
        for name, topic in by_name.items():
            value = next((entry.value for entry in configs.get(name, ()) if entry.name == "segment.ms"), None)
            if value is not None:
                found[topic] = int(value)
            elif name in configs:
                self.failures[topic.name] = BrokerRefused(f"Kafka does not tell us segment.ms ({_ACLS})")
            else:
                self.failures[topic.name] = TopicsNotReady(f"the broker does not know {name}: fediwarden topics apply")
        return found

    async def delete_before(self, offsets: Mapping[Partition, int]) -> set[Partition]:
        """Delete every record before the given offsets: nobody reads them from now on. The partitions where that is so.

        Their bytes leave the disk with their segment: when it has rolled and the broker looks for it.
        """
        if not offsets:
            return set()
        leaders = await self._find_leaders(list(dict.fromkeys(partition.topic for partition in offsets)))
        groups = _group({partition: leader for partition, leader in leaders.items() if partition in offsets})
        deleted = await asyncio.gather(*(self._delete({each: offsets[each] for each in group}) for group in groups))
        return {partition for group in deleted for partition in group}

    async def all_keyed(self, partition: Partition, start: int, end: int, key: bytes) -> bool:
        """Whether every offset from `start` up to `end` holds a record with `key`. False when that cannot be read."""
        tp = self._tp(partition)
        self._client.assign([tp])
        reader = Reader(self._client, {tp.topic: partition.topic})
        reader.start_at(tp, start)
        position = start
        while position < end:
            try:
                records = await reader.read([tp], timeout_s=_PEEK_S)
            except kafka.KafkaError as error:
                self._note_failure([partition], error)
                return False
            for record in records:
                if position < end and (record.offset != position or record.key != key):
                    return False
                position += 1
            if not records:
                return False
        return end > start

    async def published_at(self, partition: Partition, offset: int, end: int, *, but_for: bytes) -> int | None:
        """When the first record from `offset` up to `end` was published, but for those keyed `but_for`.

        Milliseconds since the epoch; None where there is none, or where it cannot be read.
        """
        tp = self._tp(partition)
        self._client.assign([tp])
        reader = Reader(self._client, {tp.topic: partition.topic})
        reader.start_at(tp, offset)
        while offset < end:
            try:
                records = await reader.read([tp], timeout_s=_PEEK_S, most=1)
            except kafka.KafkaError as error:
                self._note_failure([partition], error)
                return None
            if not records or records[0].offset >= end:
                return None
            if records[0].key != but_for:
                return records[0].timestamp_ms
            offset = records[0].offset + 1
        return None

    async def _find_leaders(self, topics: Sequence[TopicSpec]) -> dict[Partition, int]:
        """The partitions of `topics` that have a leader, in order, with its id."""
        by_name = {topic.full_name(self._prefix): topic for topic in topics}
        leaders: dict[Partition, int] = {}
        described = {each["topic"]: each for each in await self._admin.describe_topics(list(by_name))}
        for name, topic in by_name.items():
            if code := described[name]["error_code"]:
                self._note_failure([topic.name], kafka.for_code(code)())
                continue
            for each in sorted(described[name]["partitions"], key=lambda each: int(each["partition"])):
                partition = Partition(topic, each["partition"])
                if each["leader"] == _NOBODY:
                    self._note_failure([partition], kafka.LeaderNotAvailableError())
                else:
                    leaders[partition] = each["leader"]
        return leaders

    async def _ask_bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        tps = [self._tp(partition) for partition in partitions]
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):  # aiokafka asks on while there is no leader
                begins = await self._client.beginning_offsets(tps)
                ends = await self._client.end_offsets(tps)
        except (kafka.KafkaError, TimeoutError) as error:
            self._note_failure(partitions, error)
            return {}
        return {partition: Bounds(begins[tp], ends[tp]) for partition, tp in zip(partitions, tps, strict=True)}

    async def _delete(self, offsets: Mapping[Partition, int]) -> set[Partition]:
        try:
            await self._admin.delete_records({self._tp(each): RecordsToDelete(at) for each, at in offsets.items()})
        except kafka.KafkaError as error:
            # Of an answer for every partition aiokafka hands on the first fault alone: where they begin tells the rest.
            bounds = await self._ask_bounds(list(offsets))
            deleted = {partition for partition, each in bounds.items() if each.begin >= offsets[partition]}
            self._note_failure(offsets.keys() - deleted, error)
            return deleted
        return set(offsets)

    def _note_failure(self, places: Iterable[Partition | str], error: Exception) -> None:
        self.failures |= dict.fromkeys(map(str, places), _typed(error))

    def _tp(self, partition: Partition) -> TopicPartition:
        return TopicPartition(partition.topic.full_name(self._prefix), partition.number)


def _typed(error: Exception) -> BrokerError:
    """What one partition, topic or group answered, as an error of ours with its remedy."""
    what = repr(error)
    if is_refusal(error):
        return BrokerRefused(f"Kafka refuses us ({what}); {_ACLS}")
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return TopicsNotReady(f"it is missing ({what}). Run: fediwarden topics apply")
    return BrokerUnavailable(f"it does not answer ({what}); are all brokers up?")


def _group(leaders: Mapping[Partition, int]) -> list[list[Partition]]:
    """The partitions of one topic with one leader together: a fault of theirs is of no concern to the others."""
    groups: dict[tuple[TopicSpec, int], list[Partition]] = {}
    for partition, leader in leaders.items():
        groups.setdefault((partition.topic, leader), []).append(partition)
    return list(groups.values())


@asynccontextmanager
async def open_logs(settings: BrokerSettings) -> AsyncIterator[PartitionLogs]:
    """Connect, for one round of questions and deletions. Raises `BrokerUnavailable` or `BrokerRefused`."""
    async with open_admin(settings) as admin, open_reader(settings, _CLIENT_ID) as client:
        yield PartitionLogs(settings, admin, client)
