"""Where a consumer begins to read, by answers of Kafka that were looked at for their errors.

aiokafka takes an OffsetFetch answer that holds nothing but an error of the whole group (its coordinator is loading, or
has moved) for "nothing committed", and would begin at the start of the log, days before what the group has done.
"""

from collections import defaultdict
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.protocol.commit import OffsetFetchRequest

_NOTHING_COMMITTED = -1
_COORDINATOR_GONE = (kafka.NotCoordinatorForGroupError, kafka.GroupCoordinatorNotAvailableError)


async def find_starts(client: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The offset to begin at in each of `partitions`: what the group has committed, else the start of the log.

    A client without a group begins at the start. Raises aiokafka's errors: then nothing is known about any of them, and
    the question is to be asked again.
    """
    committed = {} if client._group_id is None else await fetch_committed(client, partitions)
    starts: dict[TopicPartition, int] = await client.beginning_offsets([tp for tp in partitions if tp not in committed])
    return starts | committed


async def fetch_committed(
    client: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """What the group of `client` has committed in `partitions`; those are left out in which it has nothing.

    Raises aiokafka's errors, among them every error that the answer holds, for the group or for a partition.
    """
    by_topic: dict[str, list[int]] = defaultdict(list)
    for tp in partitions:
        by_topic[tp.topic].append(tp.partition)
    coordinator = client._coordinator
    await coordinator.ensure_coordinator_known()
    answer = await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, list(by_topic.items())))
    found = {
        TopicPartition(topic, number): (offset, code)
        for topic, entries in answer.topics
        for number, offset, _metadata, code in entries
    }
    for code in (answer.error_code, *(code for _, code in found.values())):
        error = kafka.for_code(code)
        if issubclass(error, _COORDINATOR_GONE):
            coordinator.coordinator_dead()
        if error is not kafka.NoError:
            raise error(f"the committed offsets of group {coordinator.group_id}")
    if missing := set(partitions) - found.keys():
        raise kafka.UnknownTopicOrPartitionError(f"no word about {missing}")
    return {tp: offset for tp, (offset, _) in found.items() if offset != _NOTHING_COMMITTED}
