"""`fediwarden audit record`: topics into the store, for ever or up to where they end.

Every partition is read from the offset that the store has for it, and the offsets are written with what the records
said. Whatever goes wrong with the database, the process goes on from there once it answers again: what is in memory is
thrown away and read anew. Rights that were never there end it, with a word to whoever starts it; those that are taken
away later are waited for, so that nothing that runs beside it suffers. Any number of these processes may run; the one
that has the store's lease writes, the others wait for it to end.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from federation_audit.presence.service import watching
from federation_audit.recording.metrics import RecorderMetrics
from federation_audit.settings import AuditSettings
from federation_audit.store.engine import Store
from federation_audit.store.errors import LeaseTaken, RebuildWanted, StoreRefused, StoreUnavailable
from federation_audit.store.migrating import migrate
from federation_audit.store.recorder import Recorder
from schemas.broker import AssignedReader, BrokerSettings, BrokerUnavailable, Partition, Received, check_topics
from schemas.telemetry import tracing
from schemas.topics import ANSWERS, ENFORCEMENTS, IMAGES_DEAD, ORIGINS, RESCAN_JOBS, RESCANS, VERDICTS

log = structlog.get_logger("federation_audit.recording")

_FACTS = (VERDICTS, ANSWERS, ORIGINS, ENFORCEMENTS, IMAGES_DEAD)
_RESCANS = (RESCAN_JOBS, RESCANS)
RECORDED_TOPICS = (*_FACTS, *_RESCANS)
_RESCANS_MOST = 40  # each record has up to 500 images: all else waits for no more of them
_POLL_S = 1.0
_WAIT_FOR_LEASE_S = 0.5
_RETRY_S = 2.0
_REFUSED_S = 15.0
_REPORT_EVERY_S = 60.0
_LAG_EVERY_S = 1.0
_LAG_WITHIN_S = 2.0  # well within the lease


async def run_recorder(
    settings: AuditSettings, broker: BrokerSettings, url: str, metrics: RecorderMetrics | None = None
) -> None:
    """Record until SIGTERM or SIGINT. Raises a `schemas.broker.BrokerError` or `StoreError` when it cannot go on."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await record(settings, broker, url, stop, metrics=metrics)


async def record(
    settings: AuditSettings,
    broker: BrokerSettings,
    url: str,
    stop: asyncio.Event,
    *,
    caught_up: Callable[[], None] | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
    metrics: RecorderMetrics | None = None,
) -> None:
    """Record until `stop` is set; `caught_up` is called when all is read that stood in the topics at start."""
    await check_topics(broker, RECORDED_TOPICS)
    metrics = metrics or RecorderMetrics()
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    with Store(url) as store:
        await _patiently(stop, lambda: migrate(store))
        has_recorded = False
        while not stop.is_set():
            session = _Session(settings, broker, store, name, caught_up, on_progress, metrics)
            try:
                await session.run(stop)
            except RebuildWanted:
                log.info("rebuild_begins", recorder=name)
                await _patiently(stop, lambda: _clear(store, name, settings))
            except LeaseTaken as error:  # we were stopped, or slow, for longer than our lease
                log.warning("lease_lost", because=str(error))
            except StoreUnavailable as error:
                log.warning("store_unavailable", error=str(error))
                await _pause(stop, _RETRY_S)
            except StoreRefused as error:
                if not (has_recorded or session.began):  # it never worked: whoever started us is told at once
                    raise
                log.error("store_refused", error=str(error), again_after_s=_REFUSED_S)
                await _pause(stop, _REFUSED_S)
            finally:
                metrics.recording.set(0)
            has_recorded = has_recorded or session.began
    log.info("recorder_stopped", recorder=name)


def _clear(store: Store, name: str, settings: AuditSettings) -> None:
    Recorder(store, holder=name, retention_days=settings.retention_days).clear()


class _Session:
    """From a fresh `Recorder` to its end, by stop or by a fault."""

    def __init__(
        self,
        settings: AuditSettings,
        broker: BrokerSettings,
        store: Store,
        name: str,
        caught_up: Callable[[], None] | None,
        on_progress: Callable[[int], None],
        metrics: RecorderMetrics,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._store = store
        self._name = name
        self._caught_up = caught_up
        self._on_progress = on_progress
        self._metrics = metrics
        self._unreadable: Counter[str] = Counter()
        self.began = False

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for the lease, then record until `stop`."""
        recorder = await self._open(stop)
        if recorder is None:
            return
        self.began = True
        self._metrics.recording.set(1)
        client_id = f"fediwarden-audit-{self._name}"
        async with (
            AssignedReader(self._broker, _FACTS, starts=recorder.offsets, client_id=client_id) as facts,
            AssignedReader(self._broker, _RESCANS, starts=recorder.offsets, client_id=client_id) as rescans,
            watching(self._settings.presence, self._store, self._settings.verified_lists),
        ):
            log.info("recorder_ready", recorder=self._name, store=self._store.name)
            await self._record((facts, rescans), recorder, stop)
        await asyncio.to_thread(recorder.release)

    async def _open(self, stop: asyncio.Event) -> Recorder | None:
        said = False
        while not stop.is_set():
            try:
                return await asyncio.to_thread(
                    Recorder, self._store, holder=self._name, retention_days=self._settings.retention_days
                )
            except LeaseTaken as error:
                if not said:
                    log.info("waiting_for_the_store", because=str(error))
                said = True
                await _pause(stop, _WAIT_FOR_LEASE_S)
        return None

    async def _record(
        self, readers: tuple[AssignedReader, AssignedReader], recorder: Recorder, stop: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        facts, rescans = readers
        ends = await _ends_of(readers) if self._caught_up else {}
        waiting = self._caught_up is not None
        more_to_do = True
        recorded, report_at = 0, loop.time() + _REPORT_EVERY_S
        lag_at = loop.time()
        while not stop.is_set():
            if waiting and await _is_beyond(readers, ends):
                while await asyncio.to_thread(recorder.tidy):
                    pass
                waiting = False
                assert self._caught_up is not None
                self._caught_up()
                continue
            timeout_s = 0.05 if more_to_do else _POLL_S
            records = await facts.poll(timeout_s=timeout_s, most=self._settings.batch)
            of_rescans = await rescans.poll(timeout_s=0.0, most=_RESCANS_MOST)
            records += of_rescans
            self._note_unreadable(records)
            lag = None
            if loop.time() >= lag_at:
                lag = await _lag_of(readers)
                lag_at = loop.time() + _LAG_EVERY_S
            # In a thread: the client goes on fetching meanwhile.
            await asyncio.to_thread(recorder.record, records, offsets_after(records), lag=lag)
            _note_recorded(records)
            self._count(records, lag)
            more_to_do = await asyncio.to_thread(recorder.tidy) or bool(of_rescans)
            recorded += len(records)
            self._on_progress(len(records))
            if loop.time() >= report_at:
                log.info("recorded", records=recorded, unreadable=dict(self._unreadable))
                recorded, report_at = 0, loop.time() + _REPORT_EVERY_S

    def _count(self, records: Sequence[Received], lag: int | None) -> None:
        for topic, count in Counter(record.topic.name for record in records).items():
            self._metrics.records.labels(topic).inc(count)
        if lag is not None:
            self._metrics.lag.set(lag)
        self._metrics.written_at.set_to_current_time()

    def _note_unreadable(self, records: Sequence[Received]) -> None:
        for record in records:
            if record.fault is not None:
                self._unreadable[record.fault.reason] += 1
                self._metrics.unreadable.labels(record.fault.reason).inc()
                place = {"topic": record.topic.name, "partition": record.partition, "offset": record.offset}
                log.warning("record_unreadable", reason=record.fault.reason, **place)


def _note_recorded(records: Sequence[Received]) -> None:
    """Where an image is traced: the moment from which the store has it."""
    for record in records:
        if record.trace:
            with tracing.span("recorded", kind="consumer", parent=record.trace, topic=record.topic.name):
                pass


def offsets_after(records: Sequence[Received]) -> dict[Partition, int]:
    """Where reading goes on once `records` are done."""
    after: dict[tuple[str, int], tuple[Partition, int]] = {}
    for record in records:
        after[record.topic.name, record.partition] = (Partition(record.topic, record.partition), record.offset + 1)
    return dict(after.values())


async def _ends_of(readers: Sequence[AssignedReader]) -> dict[Partition, int]:
    return {partition: end for reader in readers for partition, end in (await reader.ends()).items()}


async def _positions_of(readers: Sequence[AssignedReader]) -> dict[Partition, int]:
    return {partition: at for reader in readers for partition, at in (await reader.positions()).items()}


async def _is_beyond(readers: Sequence[AssignedReader], ends: dict[Partition, int]) -> bool:
    positions = await _positions_of(readers)
    return all(positions.get(partition, 0) >= end for partition, end in ends.items())


async def _lag_of(readers: Sequence[AssignedReader]) -> int:
    """How many records the topics have beyond what was polled; -1 while Kafka does not say."""
    try:
        async with asyncio.timeout(_LAG_WITHIN_S):
            ends, positions = await _ends_of(readers), await _positions_of(readers)
    except (BrokerUnavailable, TimeoutError):
        return -1
    return sum(max(0, end - positions.get(partition, 0)) for partition, end in ends.items())


async def _patiently(stop: asyncio.Event, act: Callable[[], None]) -> None:
    """Do it, again and again while the database is away or another process writes."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(act)
        except (StoreUnavailable, LeaseTaken) as error:
            log.warning("waiting_for_the_store", because=str(error))
            await _pause(stop, _RETRY_S)
        else:
            return


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
