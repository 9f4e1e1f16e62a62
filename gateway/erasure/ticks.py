"""When an idle partition needs a record that says nothing.

Kafka rolls a segment only when a record is appended whose time is more than ``segment.ms`` past that of the segment's
first record (https://kafka.apache.org/documentation/#topicconfigs_segment.ms), and it deletes and compacts rolled
segments alone. A partition that nobody writes to any more would keep its last images on disk for ever. A tick, written
once the partition has been quiet for that long, rolls them out; it is a tombstone, which every reader passes over.

Several janitors must not take each other's ticks for images, or each would write one after the other's for ever. What
has been deleted cannot be told from an image, for its bytes may still wait to be rolled out. Therefore a tick that is a
partition's last record is left there by whoever erases; it holds no pixels.
"""

import time
from collections.abc import Callable

from schemas.broker import Partition

TICK_KEY = b"tick"

TICK_MARGIN = 0.1
"""Share of ``segment.ms`` that a tick comes later: writers' clocks, which Kafka goes by, may differ by so much."""

_LITTLE_S = 0.05


class Ticks:
    """Which partitions are quiet, with something in them that no tick has followed.

    Tell it where each partition ends, as often as you like; `is_due` then says when to write a tick. What a partition
    held before the first look may be in its open segment: it counts as written just then. At most one tick follows
    each look that found new records, so that an idle partition comes to rest: one that holds nothing but ticks since
    its last image was rolled out gets no more. `monotonic` is a clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ends: dict[Partition, int] = {}
        self._quiet_since: dict[Partition, float] = {}
        self._ticked: dict[Partition, int] = {}

    def seen_end(self, partition: Partition) -> int | None:
        """Where the partition ended at the last look; None before the first."""
        return self._ends.get(partition)

    def note_end(self, partition: Partition, end: int, *, only_ticks: bool = False) -> None:
        """Note that `partition` ends at `end`. `only_ticks`: what came since the last look are ticks of others."""
        moved = end != self._ends.get(partition, 0)
        self._ends[partition] = end
        if moved and only_ticks:
            self._ticked[partition] = end
        elif moved:
            self._quiet_since[partition] = self._monotonic()

    def is_due(self, partition: Partition, segment_s: float) -> bool:
        """Whether a tick written now rolls the segment that holds the last record, and is needed for that."""
        since = self._quiet_since.get(partition)
        return since is not None and self._monotonic() - since > segment_s * (1 + TICK_MARGIN) + _LITTLE_S

    def ends_with_tick(self, partition: Partition, end: int) -> bool:
        """Whether the last record before `end`, where the partition ends, is known to be a tick."""
        return self._ticked.get(partition) == end

    def note_tick(self, partition: Partition, offset: int) -> None:
        """Note that a tick of ours stands at `offset`."""
        if offset == self._ends.get(partition):
            self._ends[partition] = offset + 1
        self._ticked[partition] = offset + 1
        self._quiet_since.pop(partition, None)
