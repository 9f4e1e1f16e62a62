"""How far erasure may go, and when it is late."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.erasure.progress import WARN_EVERY_S, Lateness, compare_groups
from schemas.broker import Bounds, Partition
from schemas.topics import IMAGES

PARTITION = Partition(IMAGES, 3)


def test_the_slowest_group_decides_and_is_named():
    progress = compare_groups(Bounds(10, 50), {"live": 50, "shadow": 20})
    assert progress == (20, 50, "shadow")


def test_a_group_that_committed_nothing_holds_everything_back():
    assert compare_groups(Bounds(10, 50), {"live": 50, "new": None}) == (10, 50, "new")


def test_a_commit_beyond_the_end_belongs_to_records_that_are_gone_and_erases_none_of_those_that_are_there():
    assert compare_groups(Bounds(0, 5), {"live": 70}) == (0, 0, "live")


@settings(deadline=None)
@given(
    begin=st.integers(0, 20),
    length=st.integers(0, 20),
    committed=st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 60), min_size=1),
)
def test_nothing_is_erasable_that_some_group_is_not_done_with(begin, length, committed):
    bounds = Bounds(begin, begin + length)
    progress = compare_groups(bounds, committed)
    assert begin <= progress.erasable <= progress.judged <= bounds.end
    for offset in range(begin, progress.erasable):
        assert all(commit is not None and offset < commit <= bounds.end for commit in committed.values())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lateness_counts_from_when_the_oldest_record_still_there_was_judged():
    clock = Clock()
    lateness = Lateness(clock)
    assert lateness.measure(PARTITION, begin=0, judged=0) == 0
    clock.now = 100
    assert lateness.measure(PARTITION, begin=0, judged=5) == 0
    clock.now = 160
    assert lateness.measure(PARTITION, begin=0, judged=9) == 60
    clock.now = 200
    assert lateness.measure(PARTITION, begin=4, judged=9) == 100, "record 4 is there still"
    assert lateness.measure(PARTITION, begin=5, judged=9) == 0
    clock.now = 230
    assert lateness.measure(PARTITION, begin=5, judged=9) == 30
    assert lateness.measure(PARTITION, begin=9, judged=9) == 0


def test_a_partition_is_warned_of_once_an_hour():
    clock = Clock()
    lateness = Lateness(clock)
    assert lateness.may_warn(PARTITION)
    clock.now = WARN_EVERY_S - 1
    assert not lateness.may_warn(PARTITION)
    assert lateness.may_warn(Partition(IMAGES, 4))
    clock.now = WARN_EVERY_S
    assert lateness.may_warn(PARTITION)
