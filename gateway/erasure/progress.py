"""How far erasure may go in a partition, and for how long it has not got there."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from schemas.broker import Bounds, Partition

WARN_EVERY_S = 3600.0


class Progress(NamedTuple):
    """One partition: every group is done with what stands before `erasable`, some group with all before `judged`.

    `slowest` names the group that erasure waits for.
    """

    erasable: int
    judged: int
    slowest: str

    def before(self, offset: int) -> "Progress":
        """The same of what stands before `offset` alone."""
        return self._replace(erasable=min(self.erasable, offset), judged=min(self.judged, offset))


def compare_groups(bounds: Bounds, committed: Mapping[str, int | None]) -> Progress:
    """The progress of one partition by what each registered group has committed there (None: nothing).

    A commit beyond the end says nothing about the records that are there now (the partition lost its end, or was made
    anew): its group starts again at the beginning, and holds everything back until then.
    """
    fronts = {
        group: bounds.begin if offset is None or offset > bounds.end else max(offset, bounds.begin)
        for group, offset in committed.items()
    }
    slowest = min(fronts, key=lambda group: (fronts[group], group))
    return Progress(fronts[slowest], max(fronts.values()), slowest)


class Lateness:
    """Since when each partition has held records that some group is done with. `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._marks: dict[Partition, tuple[int, float]] = {}
        self._warned_at: dict[Partition, float] = {}

    def measure(self, partition: Partition, *, begin: int, judged: int) -> float:
        """For how many seconds, at least, a record before `judged` has been waiting to be deleted; 0 for none."""
        now = self._monotonic()
        offset, since = self._marks.get(partition, (begin, now))
        if begin >= offset:  # all that the mark stood for is gone; what is judged now starts its own time
            offset, since = judged, now
        self._marks[partition] = (offset, since)
        return now - since

    def may_warn(self, partition: Partition) -> bool:
        """Whether the last warning about `partition` is an hour old, or there was none; counts as one if so."""
        now = self._monotonic()
        if now - self._warned_at.get(partition, -WARN_EVERY_S) < WARN_EVERY_S:
            return False
        self._warned_at[partition] = now
        return True
