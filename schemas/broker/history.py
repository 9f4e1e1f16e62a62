"""Reading what stands in topics, once, from a moment in the past to their ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.connecting import connecting
from schemas.broker.errors import is_refusal, unavailable
from schemas.broker.reading import Reader, find_partitions
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.topics import TopicSpec

_START_TIMEOUT_S = 20.0
_POLL_S = 1.0
_RETRY_S = 0.5
_STALLED_AFTER_S = 30.0
_STOP_WITHIN_S = 5.0
_YIELD_EVERY = 100


async def read_history(
    settings: BrokerSettings,
    topics: Sequence[TopicSpec],
    *,
    since_ms: int,
    on_record: Callable[[Received], None],
    on_progress: Callable[[int, int], None] = lambda passed, of: None,
    client_id: str,
) -> None:
    """Hand every record of `topics` that stands there now and was published at `since_ms` or later to `on_record`.

    Each partition is read in order, the partitions interleaved. What is published while this runs is left out. The
    topics must exist. `on_record` is called on the event loop; `on_progress` gets the offsets passed and their number
    in all after every poll. Raises `BrokerRefused`, or `BrokerUnavailable` when nothing comes for half a minute.
    """
    by_name = {topic.full_name(settings.topic_prefix): topic for topic in topics}
    async with open_reader(settings, client_id) as client:
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                spans = await _find_spans(client, list(by_name), since_ms)
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            raise unavailable(settings.bootstrap_servers, error) from error
        client.assign(list(spans))
        await _read(client, settings, by_name, spans, on_record, on_progress)


@asynccontextmanager
async def open_reader(settings: BrokerSettings, client_id: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A connected consumer without a group. Raises `BrokerUnavailable` or `BrokerRefused`."""
    async with connecting(settings, client_id=client_id, offset_reset="earliest") as client:
        pass
    try:
        yield client
    finally:
        await close_client(client, _STOP_WITHIN_S)


async def _find_spans(
    client: AIOKafkaConsumer, names: Sequence[str], since_ms: int
) -> dict[TopicPartition, tuple[int, int]]:
    """Where to begin in each partition, and the end to stop at; partitions without anything to read are left out."""
    found = [TopicPartition(name, partition) for name in names for partition in await find_partitions(client, name)]
    ends = await client.end_offsets(found)
    starts = await client.offsets_for_times(dict.fromkeys(found, since_ms))
    return {tp: (starts[tp].offset, ends[tp]) for tp in found if starts.get(tp) and starts[tp].offset < ends[tp]}


async def _read(
    client: AIOKafkaConsumer,
    settings: BrokerSettings,
    topics: Mapping[str, TopicSpec],
    spans: Mapping[TopicPartition, tuple[int, int]],
    on_record: Callable[[Received], None],
    on_progress: Callable[[int, int], None],
) -> None:
    loop = asyncio.get_running_loop()
    reader = Reader(client, topics)
    for tp, (start, _) in spans.items():
        reader.start_at(tp, start)
    total = sum(end - start for start, end in spans.values())
    at = {tp: start for tp, (start, _) in spans.items()}
    moved_at = loop.time()
    fault: Exception = TimeoutError("nothing came")
    while left := [tp for tp in at if at[tp] < spans[tp][1]]:
        try:
            for number, record in enumerate(await reader.read(left, timeout_s=_POLL_S), 1):
                tp = TopicPartition(record.topic.full_name(settings.topic_prefix), record.partition)
                if record.offset < spans[tp][1]:
                    on_record(record)
                if number % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            async with asyncio.timeout(_POLL_S):
                # By position, for the last records of a partition may be gone (deleted, compacted).
                before, at = at, {tp: min(await client.position(tp), spans[tp][1]) for tp in at}
        except (kafka.KafkaError, TimeoutError) as error:
            if is_refusal(error):
                raise unavailable(settings.bootstrap_servers, error) from error
            fault = error
            await asyncio.sleep(_RETRY_S)
        else:
            if at != before:
                moved_at = loop.time()
                on_progress(total - sum(spans[tp][1] - at[tp] for tp in at), total)
        if loop.time() - moved_at > _STALLED_AFTER_S:
            raise unavailable(settings.bootstrap_servers, fault)
