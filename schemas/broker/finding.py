"""Finding the newest record of one key, without reading its topic."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.partitioner import DefaultPartitioner

from schemas.broker.errors import SearchTooLong, unavailable
from schemas.broker.history import open_reader
from schemas.broker.reading import Reader, find_partitions
from schemas.broker.records import Received
from schemas.broker.settings import BrokerSettings
from schemas.topics import TopicSpec

_POLL_S = 1.0
_POLL_MOST = 50


class Span(NamedTuple):
    """From a moment up to another, both in milliseconds since the epoch and by the records' own times; `until_ms` is
    the end of the log when None."""

    since_ms: int
    until_ms: int | None = None


async def find_newest(
    settings: BrokerSettings,
    topic: TopicSpec,
    *,
    key: bytes,
    spans: Iterable[Span],
    within_s: float,
    most_bytes: int,
    client_id: str,
) -> Received | None:
    """The newest record with `key` in the first of `spans` that has one; None when none has. It may be a tombstone.

    Only the partition is read that `Producer.publish` takes for `key` while the topic has as many as now. Of records
    that are not in order of time, those that stand before the first one of `since_ms` or later are passed over.

    Raises `SearchTooLong` when that takes longer than `within_s` seconds or means reading values of more than
    `most_bytes` together; `BrokerUnavailable` or `BrokerRefused`.
    """
    name = topic.full_name(settings.topic_prefix)
    left = most_bytes
    try:
        async with asyncio.timeout(within_s), open_reader(settings, client_id) as client:
            partitions = sorted(await find_partitions(client, name))
            tp = TopicPartition(name, DefaultPartitioner()(key, partitions, partitions))
            client.assign([tp])
            reader = Reader(client, {name: topic})
            for span in spans:
                newest, left = await _search(client, reader, tp, key, span, left)
                if newest is not None:
                    return newest
            return None
    except _Spent as error:
        raise SearchTooLong(f"{topic.name}: not found within {most_bytes >> 20} MiB") from error
    except TimeoutError as error:
        raise SearchTooLong(f"{topic.name}: not found within {within_s:g} s") from error
    except kafka.KafkaError as error:
        raise unavailable(settings.bootstrap_servers, error) from error


class _Spent(Exception):
    """More bytes would have to be read than are allowed."""


async def _search(
    client: AIOKafkaConsumer, reader: Reader, tp: TopicPartition, key: bytes, span: Span, left: int
) -> tuple[Received | None, int]:
    """The newest record in one span, and the bytes that may be read after that."""
    start = (await client.offsets_for_times({tp: span.since_ms})).get(tp)
    if start is None:
        return None, left
    end = (await client.end_offsets([tp]))[tp]
    reader.start_at(tp, start.offset)
    newest: Received | None = None
    while await client.position(tp) < end:
        for record in await reader.read([tp], timeout_s=_POLL_S, most=_POLL_MOST):
            left -= record.size
            if record.offset >= end or (span.until_ms is not None and record.timestamp_ms > span.until_ms):
                return newest, left
            if record.key == key:
                newest = record
            if left < 0:
                raise _Spent
    return newest, left
