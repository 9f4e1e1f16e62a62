"""How far a rescan is, from what its group has committed: the same for whoever looks, and after any kill."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.broker import BrokerSettings, Partition, open_logs
from schemas.clock import now_ms
from schemas.messages import RescanOrdered, RescanState
from schemas.topics import TOPICS, TopicSpec

_RATE_OVER_MS = 30_000
_BY_NAME = {spec.name: spec for spec in TOPICS}


@dataclass(frozen=True, slots=True)
class Progress:
    """Records of a rescan's spans: `done` of `total`, at a moment.

    `rate` is records a second and `left_s` the seconds that the rest takes at that rate; None while nobody can say.
    """

    done: int
    total: int
    at_ms: int
    rate: float | None = None
    left_s: float | None = None

    @property
    def left(self) -> int:
        """Records that are not done."""
        return self.total - self.done


def topics_of(job: RescanOrdered) -> tuple[TopicSpec, ...]:
    """The topics that a rescan reads."""
    return tuple(_BY_NAME[name] for name in dict.fromkeys(span.topic for span in job.spans))


def spans_of(job: RescanOrdered) -> dict[Partition, tuple[int, int]]:
    """The offsets, from and up to, that a rescan reads of each partition."""
    return {Partition(_BY_NAME[span.topic], span.partition): (span.begin, span.end) for span in job.spans}


def count_done(
    spans: Mapping[Partition, tuple[int, int]],
    committed: Mapping[Partition, int],
    log_begins: Mapping[Partition, int],
) -> int:
    """How many records of `spans` are done: before what is committed, or deleted by now (nobody reads them again)."""
    done = 0
    for partition, (begin, end) in spans.items():
        front = max(committed.get(partition, begin), log_begins.get(partition, begin))
        done += min(max(front, begin), end) - begin
    return done


async def read_progress(broker: BrokerSettings, job: RescanOrdered) -> Progress:
    """How far `job` is now, without a rate. Raises `BrokerUnavailable` or `BrokerRefused`.

    Of one that is finished, all is done: Kafka forgets what a group committed when it has had no members for a while.
    """
    spans = spans_of(job)
    total = sum(end - begin for begin, end in spans.values())
    if job.state not in (RescanState.RUNNING, RescanState.CANCELLED):
        return Progress(total, total, job.changed_at)
    async with open_logs(broker) as logs:
        committed = await logs.committed(job.group, topics_of(job))
        bounds = await logs.bounds(topics_of(job))
        if (failure := logs.failures.get(f"group {job.group}")) is not None:
            raise failure  # nothing committed is another thing than nothing known
    log_begins = {partition: each.begin for partition, each in bounds.items()}
    return Progress(count_done(spans, committed, log_begins), total, now_ms())


class Meter:
    """Gives rates to what is read of one rescan's progress: over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[Progress] = deque()

    def note(self, progress: Progress) -> Progress:
        """The same with its rate and the time left, as far as they are known by now."""
        while len(self._seen) > 1 and progress.at_ms - self._seen[1].at_ms >= _RATE_OVER_MS:
            self._seen.popleft()
        if self._seen and progress.done < self._seen[-1].done:
            self._seen.clear()
        self._seen.append(progress)
        first = self._seen[0]
        passed_ms, moved = progress.at_ms - first.at_ms, progress.done - first.done
        if progress.left == 0:
            return Progress(progress.done, progress.total, progress.at_ms, left_s=0.0)
        if passed_ms <= 0:
            return progress
        rate = moved * 1000 / passed_ms
        left_s = progress.left / rate if rate else None
        return Progress(progress.done, progress.total, progress.at_ms, rate, left_s)
