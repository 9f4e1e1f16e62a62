"""The janitor: deletes judged images from the live lanes, and rolls idle partitions so that their bytes leave the disk.

Committed offsets say how far each scanner group is done ("judged, answered for, archived if kept"). Every pass deletes
what lies behind the slowest group's (Kafka's DeleteRecords, as Kafka Streams does with its repartition topics): from
then on nobody can read it. The bytes leave the disk with their segment. On the embedded Kafka, of an image in a live
lane, from the moment it is judged:

- the next pass: `every_s`, 30 s;
- its segment rolls: 5 min after the segment's first record, by the next image or by a tick (`gateway.erasure.ticks`);
- the broker looks for segments to delete: every minute (``log.retention.check.interval.ms``), and removes their files
  a second later (``log.segment.delete.delay.ms``).

Together 7 minutes after the last image of a partition, and 13 at worst, where images kept coming just too early to roll
the segment. images.archive is compacted (see `schemas.topics`); there the janitor only writes the ticks.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from prometheus_client import CollectorRegistry

from gateway.erasure.metrics import JanitorMetrics
from gateway.erasure.progress import Lateness, Progress, compare_groups
from gateway.erasure.settings import ErasureSettings
from gateway.erasure.ticks import TICK_KEY, Ticks
from schemas.broker import (
    Bounds,
    BrokerError,
    BrokerSettings,
    Partition,
    PartitionLogs,
    Producer,
    Received,
    Tail,
    open_logs,
)
from schemas.clock import now_ms
from schemas.messages import ScannerAnnounced
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG, SCANNERS, TopicSpec

log = structlog.get_logger("gateway.erasure")

LANES = (IMAGES, IMAGES_BACKLOG)
REGISTERED_FOR_S = 24 * 3600.0
_POSITION_POLL_S = 0.2
_PEEK_MOST = 16
_TICK_WITHIN_S = 10.0
_SHOW_WITHIN_S = 10.0  # a partition that cannot be read costs two seconds
_EVERYWHERE = "Kafka"
_REMEDY_GROUP = (
    "start scanners of this group; a group that is given up counts no more 24 hours after its scanners were last heard"
    " of, once erasure.groups does not name it"
)
_REMEDY_DELETE = "see the errors before this one; the brokers must let us delete records (ACL: Delete on the topic)"


class Janitor:
    """Erases what every registered scanner group is done with, for ever. Several at a time do no harm.

    Registered are the groups that the settings name, and all that scanners announced in the last 24 hours. One that has
    committed nothing yet in a partition holds all of it back: nothing unjudged is ever deleted. `monotonic` is a clock
    in seconds.

    `failures` is how it fares: what the latest pass could not do, by partition, topic or group (`PartitionLogs` names
    them so), or "Kafka" when no broker could be asked. It is empty while all goes well. The log tells of each change.
    """

    def __init__(
        self,
        settings: ErasureSettings,
        broker: BrokerSettings,
        producer: Producer,
        *,
        metrics: JanitorMetrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._metrics = metrics or JanitorMetrics(CollectorRegistry())
        self._broker = broker
        self._producer = producer
        self._ticks = Ticks(monotonic)
        self._lateness = Lateness(monotonic)
        self._announced: dict[str, int] = {}
        self.failures: Mapping[str, BrokerError] = {}

    async def run(self) -> None:
        """Make a pass every `every_s` seconds until cancelled. Outages of Kafka are waited out, logged once each."""
        while True:
            try:
                async with Tail(
                    self._broker,
                    [SCANNERS],
                    since_s=REGISTERED_FOR_S,
                    on_record=self._note_scanner,
                    client_id="fediwarden-erasure",
                ) as tail:
                    await self._make_passes(tail)
            except BrokerError as error:  # from the start of the tail alone: later it waits by itself
                self._note_outage(error)
                await asyncio.sleep(self._settings.every_s)

    async def _make_passes(self, tail: Tail) -> None:
        ended = asyncio.create_task(tail.wait_ended())
        try:
            while not ended.done():
                if tail.positioned:  # before that, a group might be registered that we have not read of
                    try:
                        await self._make_pass()
                    except BrokerError as error:
                        self._note_outage(error)
                await asyncio.wait([ended], timeout=self._settings.every_s if tail.positioned else _POSITION_POLL_S)
            ended.result()
        finally:
            ended.cancel()

    async def _make_pass(self) -> None:
        async with open_logs(self._broker) as logs:
            committed = {group: await logs.committed(group, LANES) for group in self._registered()}
            bounds = await logs.bounds((*LANES, IMAGES_ARCHIVE))
            await self._look(logs, bounds)
            if committed:
                await self._erase(logs, bounds, committed)
            unticked = await self._tick_idle(await logs.segment_ms((*LANES, IMAGES_ARCHIVE)), bounds)
            await self._show_lanes(logs, bounds, committed)
        self._note_failures(logs.failures | unticked)
        self._metrics.passed_at.set_to_current_time()

    async def _show_lanes(
        self, logs: PartitionLogs, bounds: Mapping[Partition, Bounds], committed: Mapping[str, Mapping[Partition, int]]
    ) -> None:
        """Measure how far each group is behind, and since when the first image that it is not done with waits."""
        lags: dict[tuple[str, Partition], int] = {}
        oldest_s: dict[tuple[str, str], float] = {(group, lane.name): 0.0 for group in committed for lane in LANES}
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + _SHOW_WITHIN_S
        published: dict[tuple[Partition, int], int | None] = {}  # most groups stand at the same record
        for group, offsets in committed.items():
            for partition, (begin, end) in bounds.items():
                if partition.topic not in LANES:
                    continue
                offset = offsets.get(partition, begin)
                front = begin if offset > end else max(begin, offset)  # as `compare_groups` takes it
                lags[group, partition] = end - front
                if front == end:
                    continue
                if (partition, front) not in published and clock() < give_up_at:
                    published[partition, front] = await logs.published_at(partition, front, end, but_for=TICK_KEY)
                at_ms = published.get((partition, front))
                if at_ms is not None:
                    place = (group, partition.topic.name)
                    oldest_s[place] = max(oldest_s[place], (now_ms() - at_ms) / 1000)
        self._metrics.show_lanes(lags, oldest_s)

    async def _look(self, logs: PartitionLogs, bounds: Mapping[Partition, Bounds]) -> None:
        """Note how far each partition goes, and whether ticks alone have come since the last look."""
        for partition, (begin, end) in bounds.items():
            seen = self._ticks.seen_end(partition)
            only_ticks = False
            # Other janitors' ticks must not call for ours, or there would be no end of them.
            if seen is not None and begin <= seen < end <= seen + _PEEK_MOST:
                only_ticks = await logs.all_keyed(partition, seen, end, TICK_KEY)
            self._ticks.note_end(partition, end, only_ticks=only_ticks)

    async def _tick_idle(
        self, segment_ms: Mapping[TopicSpec, int], bounds: Mapping[Partition, Bounds]
    ) -> dict[str, BrokerError]:
        """Write the ticks that are due; where that failed, and why."""
        due = [
            partition
            for partition in bounds
            if partition.topic in segment_ms and self._ticks.is_due(partition, segment_ms[partition.topic] / 1000)
        ]
        faults = await asyncio.gather(*map(self._tick, due))
        if due:
            log.debug("ticked idle partitions", partitions=len(due))
        return {str(partition): fault for partition, fault in zip(due, faults, strict=True) if fault is not None}

    async def _tick(self, partition: Partition) -> BrokerError | None:
        try:
            written = await self._producer.publish(
                partition.topic, None, key=TICK_KEY, partition=partition.number, give_up_after=_TICK_WITHIN_S
            )
        except BrokerError as error:
            return error
        self._ticks.note_tick(partition, written.offset)
        return None

    async def _erase(
        self, logs: PartitionLogs, bounds: Mapping[Partition, Bounds], committed: Mapping[str, Mapping[Partition, int]]
    ) -> None:
        erasable: dict[Partition, int] = {}
        for partition, each in bounds.items():
            if partition.topic not in LANES:
                continue
            progress = compare_groups(each, {group: offsets.get(partition) for group, offsets in committed.items()})
            if self._ticks.ends_with_tick(partition, each.end):
                progress = progress.before(each.end - 1)  # other janitors must be able to read that it is one
            self._check_promise(partition, each, progress)
            if progress.erasable > each.begin:
                erasable[partition] = progress.erasable
        erased = await logs.delete_before(erasable)
        if erased:
            records = sum(erasable[partition] - bounds[partition].begin for partition in erased)
            self._metrics.erased.inc(records)
            log.info("erased judged images", partitions=len(erased), records=records)

    def _check_promise(self, partition: Partition, bounds: Bounds, progress: Progress) -> None:
        late_s = self._lateness.measure(partition, begin=bounds.begin, judged=progress.judged)
        if late_s <= self._settings.within_s or not self._lateness.may_warn(partition):
            return
        held_back = progress.erasable < progress.judged
        log.warning(
            "judged images stay longer than promised",
            topic=partition.topic.name,
            partition=partition.number,
            records=progress.judged - bounds.begin,
            for_s=round(late_s),
            within_s=self._settings.within_s,
            held_back_by=progress.slowest if held_back else "DeleteRecords fails",
            remedy=_REMEDY_GROUP if held_back else _REMEDY_DELETE,
        )

    def _note_scanner(self, received: Received) -> None:
        if isinstance(received.message, ScannerAnnounced):
            group = received.message.group
            self._announced[group] = max(received.timestamp_ms, self._announced.get(group, 0))

    def _registered(self) -> set[str]:
        since = now_ms() - int(REGISTERED_FOR_S * 1000)
        return {*self._settings.groups, *(group for group, at in self._announced.items() if at >= since)}

    def _note_failures(self, failures: Mapping[str, BrokerError]) -> None:
        """Tell, once each, where erasure has begun to fail and where it goes on."""
        new: dict[str, list[str]] = {}
        for place in sorted(failures.keys() - self.failures.keys()):
            new.setdefault(str(failures[place]), []).append(place)
        for error, places in new.items():
            log.warning("erasure fails, trying again until it does not", places=places, error=error)
        if mended := sorted(self.failures.keys() - failures.keys()):
            log.info("erasure goes on", places=mended, still_failing=len(failures))
        self.failures = failures
        self._metrics.failures.set(len(failures))

    def _note_outage(self, error: BrokerError) -> None:
        self._note_failures({**self.failures, _EVERYWHERE: error})
