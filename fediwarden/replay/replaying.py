"""Reading a span of images.archive into another topic."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fediwarden.replay.errors import NothingToReplay
from fediwarden.replay.records import Unreadable, decrypted
from fediwarden.replay.targets import Target
from gateway.erasure.ticks import TICK_KEY
from schemas.broker import (
    AssignedReader,
    BrokerSettings,
    BrokerUnavailable,
    Partition,
    Producer,
    Received,
    Window,
    check_topics,
    find_windows,
    read_history,
)
from schemas.keyring import Keyring
from schemas.messages import ImageSubmitted, Message
from schemas.topics import IMAGES_ARCHIVE

CLIENT_ID: Final = "fediwarden-replay"

UNREADABLE_RECORD: Final = "the record is no image"
TURNED_AGAINST: Final = "turned against since"
OTHER_TENANT: Final = "of another tenant"

_AT_ONCE: Final = 20
_POLL_S: Final = 0.2
_STALLED_AFTER_S: Final = 30.0
_GIVE_UP_S: Final = 60.0

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """Images archived from `since_ms` on and before `until_ms`, of `tenants` (none: all), at most `rate` a second."""

    since_ms: int
    until_ms: int
    tenants: tuple[str, ...] = ()
    rate: float = 100.0


@dataclass(slots=True)
class Replayed:
    """What came of it so far: images `written`, others by the reason why they are `left_out`.

    `go_on_ms` is where another replay would have to begin so that none is missed; None when there is nothing left.
    `oldest_ms` is when the oldest that is still archived came, None where nothing was deleted yet.
    """

    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    go_on_ms: int | None = None
    oldest_ms: int | None = None


async def replay(
    broker: BrokerSettings,
    target: Target,
    asked: Asked,
    replayed: Replayed,
    *,
    keyring: Keyring | None = None,
    on_progress: OnProgress = lambda passed, of: None,
) -> None:
    """Publish the archived images asked for to `target`, in the clear where a `keyring` is given, and note it in
    `replayed` as it goes.

    An image that somebody has turned against by the time that this begins is left out, though its record may still be
    there. One that was archived more than once comes as often. Raises `NothingToReplay`, or a `BrokerError`.
    """
    await check_topics(broker, (IMAGES_ARCHIVE,))
    windows = await find_windows(
        broker, IMAGES_ARCHIVE, since_ms=asked.since_ms, until_ms=asked.until_ms, client_id=CLIENT_ID
    )
    if any(window.log_begin for window in windows.values()):
        oldest = [window.oldest_ms for window in windows.values() if window.oldest_ms is not None]
        replayed.oldest_ms = min(oldest, default=None)
    windows = {partition: window for partition, window in windows.items() if window.begin < window.end}
    if not windows:
        raise NothingToReplay(
            "--from: no image was archived in that time; images.archive keeps 7 days and 5 GB, of what was not rejected"
        )
    replayed.go_on_ms = asked.since_ms
    run = _Run(asked, replayed, keyring, windows, await _find_turned_against(broker, asked.since_ms))
    starts = {partition: window.begin for partition, window in windows.items()}
    async with (
        Producer(target.broker, client_id=CLIENT_ID) as producer,
        AssignedReader(broker, (IMAGES_ARCHIVE,), starts=starts, client_id=CLIENT_ID, others_from_end=True) as reader,
    ):
        await _copy(broker, reader, producer, target, run, on_progress)
    replayed.go_on_ms = None


class _Run:
    """What becomes of each record, and how far each partition is."""

    def __init__(
        self,
        asked: Asked,
        replayed: Replayed,
        keyring: Keyring | None,
        windows: Mapping[Partition, Window],
        turned_against: dict[tuple[int, bytes], int],
    ) -> None:
        self.asked = asked
        self._replayed = replayed
        self._keyring = keyring
        self._ends = {partition.number: window.end for partition, window in windows.items()}
        self._turned_against = turned_against
        self._fronts = dict.fromkeys(self._ends, asked.since_ms)
        self.total = sum(window.end - window.begin for window in windows.values())

    def message_for(self, received: Received) -> Message | None:
        """What is to be published for a record; None for nothing, and then it is counted why."""
        if received.offset >= self._ends.get(received.partition, 0):
            return None
        image = received.message
        left_out = self._replayed.left_out
        if received.fault is not None:
            left_out[UNREADABLE_RECORD] += 1
        if not isinstance(image, ImageSubmitted):
            return None
        if self._turned_against.get((received.partition, received.key or b""), -1) > received.offset:
            left_out[TURNED_AGAINST] += 1
        elif self.asked.tenants and image.tenant not in self.asked.tenants:
            left_out[OTHER_TENANT] += 1
        elif self._keyring is None:
            return image
        else:
            try:
                return decrypted(image, self._keyring)
            except Unreadable as error:
                left_out[str(error)] += 1
        return None

    def note_written(self, count: int) -> None:
        """So many more are in the topic."""
        self._replayed.written += count

    def note_done(self, records: Sequence[Received], positions: Mapping[Partition, int]) -> int:
        """These are dealt with, and all before `positions`; how many records of the windows are left."""
        for received in records:
            if received.partition in self._fronts:
                self._fronts[received.partition] = received.timestamp_ms
        left = 0
        for partition, position in positions.items():
            behind = max(0, self._ends.get(partition.number, 0) - position)
            left += behind
            if not behind:
                self._fronts.pop(partition.number, None)
        # From the front of the partition that is furthest behind, what others are ahead comes twice; nothing is missed.
        self._replayed.go_on_ms = min(self._fronts.values(), default=None)
        return left


async def _copy(
    broker: BrokerSettings,
    reader: AssignedReader,
    producer: Producer,
    target: Target,
    run: _Run,
    on_progress: OnProgress,
) -> None:
    loop = asyncio.get_running_loop()
    most = max(1, min(_AT_ONCE, int(run.asked.rate)))
    next_at = moved_at = loop.time()
    left, before = run.total, -1
    while left:
        records = await reader.poll(timeout_s=_POLL_S, most=most)
        messages = [(each.key or b"", message) for each in records if (message := run.message_for(each)) is not None]
        await asyncio.sleep(max(0.0, next_at - loop.time()))
        next_at = max(next_at, loop.time()) + len(messages) / run.asked.rate
        await asyncio.gather(
            *(producer.publish(target.topic, message, key=key, give_up_after=_GIVE_UP_S) for key, message in messages)
        )
        run.note_written(len(messages))
        left = run.note_done(records, await reader.positions())
        if left != before:
            before, moved_at = left, loop.time()
            on_progress(run.total - left, run.total)
        elif loop.time() - moved_at > _STALLED_AFTER_S:
            raise BrokerUnavailable(f"{broker.bootstrap_servers}: no images came for {_STALLED_AFTER_S:g} s")


async def _find_turned_against(broker: BrokerSettings, since_ms: int) -> dict[tuple[int, bytes], int]:
    """Where the newest tombstone of each image stands, by partition and key: it may come long after the image."""
    found: dict[tuple[int, bytes], int] = {}

    def take(received: Received) -> None:
        is_tombstone = received.message is None and received.fault is None
        if is_tombstone and received.key is not None and received.key != TICK_KEY:
            found[received.partition, received.key] = received.offset

    await read_history(broker, (IMAGES_ARCHIVE,), since_ms=since_ms, on_record=take, client_id=CLIENT_ID)
    return found
