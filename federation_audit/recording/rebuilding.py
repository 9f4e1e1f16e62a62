"""A store made anew from the topics.

Asking is a number in the store: whichever process writes sees it before its next batch, clears what came from messages,
with the offsets, and reads the topics from their beginnings. The one who asks takes part: where no other process
records, it does so itself until all is read that stood in the topics when it asked.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from federation_audit.recording.service import RECORDED_TOPICS, record
from federation_audit.settings import AuditSettings
from federation_audit.store.dump import digest
from federation_audit.store.engine import Store
from federation_audit.store.errors import StoreUnavailable
from federation_audit.store.migrating import migrate
from federation_audit.store.queries import read_offsets
from federation_audit.store.state import read_state, write_state
from schemas.broker import AssignedReader, BrokerSettings, Partition

_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many records were read, and the digest of what they made (`store.dump`)."""

    records: int
    digest: str


async def rebuild(
    settings: AuditSettings, broker: BrokerSettings, url: str, *, on_progress: Callable[[int, int], None]
) -> Rebuilt:
    """Make the store anew, and wait until it is. `on_progress` gets the records read and their number in all.

    Raises a `schemas.broker.BrokerError` or `StoreError`. Interrupted, it goes on with the next process that records.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with Store(url) as store:
        migrate(store)
        wanted = _ask(store)
        spans = await _find_spans(broker)
        recording = asyncio.create_task(record(settings, broker, url, stop))
        watching = asyncio.create_task(_watch(store, wanted, spans, on_progress))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((recording, watching, stopped), return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await recording
            if not watching.done():
                raise StoreUnavailable("stopped before the end; the next `fediwarden audit record` goes on with it")
            watching.result()
        finally:
            for task in (recording, watching, stopped):
                task.cancel()
            await asyncio.gather(recording, watching, stopped, return_exceptions=True)
        with store.reading() as connection:
            return Rebuilt(sum(end - first for first, end in spans.values()), digest(connection))


def _ask(store: Store) -> int:
    with store.writing() as connection:
        wanted = read_state(connection).wanted + 1
        write_state(connection, wanted=wanted)
    return wanted


async def _find_spans(broker: BrokerSettings) -> dict[Partition, tuple[int, int]]:
    """Where each partition begins and ends now."""
    client_id = f"fediwarden-audit-rebuild-{os.getpid()}"
    async with AssignedReader(broker, RECORDED_TOPICS, starts={}, client_id=client_id) as reader:
        beginnings, ends = await reader.positions(), await reader.ends()
    return {partition: (beginnings[partition], end) for partition, end in ends.items()}


async def _watch(
    store: Store,
    wanted: int,
    spans: Mapping[Partition, tuple[int, int]],
    on_progress: Callable[[int, int], None],
) -> None:
    total = sum(end - first for first, end in spans.values())
    passed = -1
    while passed < total:
        await asyncio.sleep(_LOOK_EVERY_S)
        with contextlib.suppress(StoreUnavailable):
            passed = await asyncio.to_thread(_passed, store, wanted, spans)
            on_progress(max(0, passed), total)


def _passed(store: Store, wanted: int, spans: Mapping[Partition, tuple[int, int]]) -> int:
    """How many records of `spans` are in the store; -1 before the rebuild has begun."""
    with store.reading() as connection:
        if read_state(connection).generation < wanted:
            return -1
        offsets = read_offsets(connection)
    return sum(
        min(max(offsets.get((partition.topic.name, partition.number), first), first), end) - first
        for partition, (first, end) in spans.items()
    )
