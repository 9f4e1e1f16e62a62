"""Spans of time as spans of offsets, and groups that begin to read at such a span."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from schemas.broker.closing import close_client
from schemas.broker.erasing import Partition
from schemas.broker.errors import unavailable
from schemas.broker.history import open_reader
from schemas.broker.positions import fetch_committed
from schemas.broker.reading import find_partitions
from schemas.broker.settings import BrokerSettings
from schemas.topics import TopicSpec

_WITHIN_S = 20.0
_STOP_WITHIN_S = 5.0
_RETRY_S = 0.2


class Window(NamedTuple):
    """What of one partition was published in a span of time: the offsets from `begin` up to `end`, without it.

    `log_begin` is the first offset that is still there, 0 where nothing was deleted; `oldest_ms` is when the oldest
    record was published, None where there is none.
    """

    begin: int
    end: int
    log_begin: int
    oldest_ms: int | None


async def find_windows(
    settings: BrokerSettings, topic: TopicSpec, *, since_ms: int, until_ms: int, client_id: str
) -> dict[Partition, Window]:
    """What was published from `since_ms` on and before `until_ms`, for every partition of `topic`, which must exist.

    Offsets are in the order of publication, times only almost: the ends may take in some records more. Raises
    `BrokerUnavailable` or `BrokerRefused`.
    """
    async with open_reader(settings, client_id) as client:
        try:
            async with asyncio.timeout(_WITHIN_S):
                name = topic.full_name(settings.topic_prefix)
                tps = [TopicPartition(name, number) for number in sorted(await find_partitions(client, name))]
                log_begins = await client.beginning_offsets(tps)
                ends = await client.end_offsets(tps)
                oldest, first, after = [
                    await client.offsets_for_times(dict.fromkeys(tps, at)) for at in (0, since_ms, until_ms)
                ]
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            raise unavailable(settings.bootstrap_servers, error) from error
    windows = {}
    for tp in tps:
        end = ends[tp] if after.get(tp) is None else min(after[tp].offset, ends[tp])
        begin = end if first.get(tp) is None else min(first[tp].offset, end)
        oldest_ms = None if oldest.get(tp) is None else oldest[tp].timestamp
        windows[Partition(topic, tp.partition)] = Window(begin, end, log_begins[tp], oldest_ms)
    return windows


async def _ask_committed(client: AIOKafkaConsumer, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
    """What the group has committed, once its coordinator is found and has loaded: a new group's is just being made."""
    while True:
        try:
            return await fetch_committed(client, tps)
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(_RETRY_S)


async def start_group(settings: BrokerSettings, group: str, starts: Mapping[Partition, int], *, client_id: str) -> None:
    """Have `group` (named without the prefix) begin at `starts`, where it has committed nothing yet.

    Does nothing to a group with members: Kafka lets nobody else commit for it, and its members go by what it has.
    Raises `BrokerUnavailable` or `BrokerRefused`.
    """
    wanted = {
        TopicPartition(at.topic.full_name(settings.topic_prefix), at.number): offset for at, offset in starts.items()
    }
    try:
        client = AIOKafkaConsumer(
            group_id=settings.topic_prefix + group,
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=15_000,
            **settings.client_options(),
        )
    except OSError as error:
        raise unavailable(settings.bootstrap_servers, error) from error
    try:
        async with asyncio.timeout(_WITHIN_S):
            await client.start()
            client.assign(list(wanted))
            committed = await _ask_committed(client, list(wanted))
            new = {tp: offset for tp, offset in wanted.items() if tp not in committed}
            if new:
                await client.commit(new)
    except (kafka.CommitFailedError, kafka.IllegalStateError):
        pass  # it has members
    except (kafka.KafkaError, OSError, TimeoutError, ValueError) as error:
        raise unavailable(settings.bootstrap_servers, error) from error
    finally:
        await close_client(client, _STOP_WITHIN_S)
