"""The tick rule against a partition that rolls its segments as Kafka does."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.erasure.ticks import TICK_MARGIN, Ticks
from schemas.broker import Partition
from schemas.topics import IMAGES

SEGMENT_S = 10.0
PASS_S = 3.0
PARTITION = Partition(IMAGES, 0)


@dataclass
class Log:
    """One partition: for each record "image" or "tick", and its time; the open segment begins at `opened`.

    Scanners are done with what stands before `judged`, and nobody can read any more what stands before `begin`.
    """

    records: list[tuple[str, float]] = field(default_factory=list)
    opened: int = 0
    judged: int = 0
    begin: int = 0

    def append(self, what: str, now: float) -> int:
        if len(self.records) > self.opened and now - self.records[self.opened][1] > SEGMENT_S:
            self.opened = len(self.records)
        self.records.append((what, now))
        return len(self.records) - 1

    def open_images(self) -> int:
        return sum(what == "image" for what, _ in self.records[self.opened :])

    def ticks(self) -> int:
        return sum(what == "tick" for what, _ in self.records)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_pass(ticks: Ticks, log: Log, now: float) -> None:
    """What the janitor does in one pass."""
    end, seen = len(log.records), ticks.seen_end(PARTITION)
    can_read = seen is not None and log.begin <= seen < end
    ticks.note_end(PARTITION, end, only_ticks=can_read and all(what == "tick" for what, _ in log.records[seen:end]))
    log.begin = max(log.begin, min(log.judged, end - ticks.ends_with_tick(PARTITION, end)))
    if ticks.is_due(PARTITION, SEGMENT_S):
        ticks.note_tick(PARTITION, log.append("tick", now))


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0.01, 3 * SEGMENT_S)),
        st.tuples(st.just("image"), st.just(0.0)),
        st.tuples(st.just("judge"), st.just(0.0)),
        st.tuples(st.just("pass"), st.integers(0, 1)),
        st.tuples(st.just("restart"), st.integers(0, 1)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(events=EVENTS, janitors=st.integers(1, 2))
def test_whatever_happened_an_idle_partition_ends_with_its_images_rolled_out_and_comes_to_rest(events, janitors):
    clock, log = Clock(), Log()
    watching = [Ticks(clock) for _ in range(janitors)]
    for what, argument in events:
        if what == "wait":
            clock.now += argument
        elif what == "image":
            log.append("image", clock.now)
        elif what == "judge":
            log.judged = len(log.records)
        elif what == "pass":
            make_pass(watching[argument % janitors], log, clock.now)
        else:
            watching[argument % janitors] = Ticks(clock)
    before = log.ticks()
    # From now on nobody writes images: two rounds of quiet are enough.
    until = clock.now + 2 * (SEGMENT_S * (1 + TICK_MARGIN) + 2 * PASS_S)
    while clock.now < until:
        for ticks in watching:
            log.judged = len(log.records)  # scanners read ticks too
            make_pass(ticks, log, clock.now)
            clock.now += PASS_S / janitors
    assert log.open_images() == 0
    assert log.ticks() - before <= 2 * janitors
    at_rest = log.ticks()
    for _ in range(30):
        for ticks in watching:
            clock.now += PASS_S
            log.judged = len(log.records)
            make_pass(ticks, log, clock.now)
    assert log.ticks() == at_rest


def test_a_busy_partition_rolls_by_itself_and_gets_no_tick():
    clock, log = Clock(), Log()
    ticks = Ticks(clock)
    for _ in range(100):
        log.append("image", clock.now)
        make_pass(ticks, log, clock.now)
        clock.now += SEGMENT_S
    assert log.ticks() == 0


def test_an_empty_partition_gets_no_tick():
    clock = Clock()
    ticks = Ticks(clock)
    ticks.note_end(PARTITION, 0)
    clock.now += 100 * SEGMENT_S
    ticks.note_end(PARTITION, 0)
    assert not ticks.is_due(PARTITION, SEGMENT_S)


def test_two_janitors_that_erase_before_the_other_looks_do_not_wake_each_other_for_ever():
    clock, log = Clock(), Log()
    first, second = Ticks(clock), Ticks(clock)
    log.append("image", clock.now)
    for ticks in (first, first, second, second) * 25:
        log.judged = len(log.records)  # of ticks as well
        make_pass(ticks, log, clock.now)
        clock.now += PASS_S
    assert log.open_images() == 0
    assert log.ticks() == 2, "one of each"
    assert log.begin == len(log.records) - 1, "the last can still be read"


def test_an_image_that_was_deleted_before_the_next_look_gets_a_tick():
    clock, log = Clock(), Log()
    ticks = Ticks(clock)
    log.append("image", clock.now)
    for _ in range(10):
        make_pass(ticks, log, clock.now)
        clock.now += PASS_S
    log.append("image", clock.now)
    log.append("tick", clock.now)  # of another janitor, that did not see the image coming
    log.judged = log.begin = 3
    for _ in range(10):
        make_pass(ticks, log, clock.now)
        clock.now += PASS_S
    assert log.open_images() == 0


def test_an_image_between_the_last_look_and_our_tick_gets_a_tick_of_its_own():
    clock, log = Clock(), Log()
    ticks = Ticks(clock)
    log.append("image", clock.now)
    make_pass(ticks, log, clock.now)
    clock.now += 2 * SEGMENT_S
    ticks.note_end(PARTITION, len(log.records))
    assert ticks.is_due(PARTITION, SEGMENT_S)
    log.append("image", clock.now)  # rolls the segment, and opens the next
    ticks.note_tick(PARTITION, log.append("tick", clock.now))
    assert log.open_images() == 1
    for _ in range(10):
        make_pass(ticks, log, clock.now)
        clock.now += PASS_S
    assert log.open_images() == 0
