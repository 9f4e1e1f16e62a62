import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.broker.offsets import OffsetTracker


@given(st.data(), st.lists(st.integers(0, 1000), min_size=1, max_size=60, unique=True).map(sorted))
def test_the_committed_offset_never_passes_an_unfinished_record(data, offsets):
    tracker = OffsetTracker()
    for offset in offsets:
        tracker.hand_out(offset)
    finished: set[int] = set()
    for offset in data.draw(st.permutations(offsets)):
        tracker.finish(offset)
        finished.add(offset)
        unfinished = [o for o in offsets if o not in finished]
        if tracker.committable is not None:
            assert all(o >= tracker.committable for o in unfinished)
            tracker.note_committed(tracker.committable)
    assert tracker.unfinished == 0
    assert tracker.front == offsets[-1] + 1


class Partition(RuleBasedStateMachine):
    """A partition with crashes: what was not committed is handed out again, and nothing is ever lost."""

    def __init__(self):
        super().__init__()
        self.tracker = OffsetTracker()
        self.next = 0
        self.committed = 0
        self.open: list[int] = []
        self.processed: set[int] = set()

    @rule(gap=st.integers(1, 3))
    def hand_out(self, gap):
        self.next += gap
        self.tracker.hand_out(self.next)
        self.open.append(self.next)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data):
        offset = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.tracker.finish(offset)
        self.processed.add(offset)

    @rule()
    def commit(self):
        offset = self.tracker.committable
        if offset is not None:
            assert offset > self.committed
            self.committed = offset
            self.tracker.note_committed(offset)

    @rule()
    def lose_the_partition(self):
        self.tracker = OffsetTracker()
        self.next = max(0, self.committed - 1)
        self.open = []

    @rule(offset=st.integers(0, 100))
    def finish_something_never_handed_out(self, offset):
        if offset not in self.open:
            before = self.tracker.committable
            self.tracker.finish(offset)
            assert self.tracker.committable == before

    @invariant()
    def everything_before_the_commit_is_processed(self):
        assert all(offset >= self.committed for offset in self.open)


TestPartition = Partition.TestCase


def test_offsets_that_go_back_are_refused():
    tracker = OffsetTracker()
    tracker.hand_out(5)
    with pytest.raises(ValueError, match="offset 5 was handed out after 5"):
        tracker.hand_out(5)


def test_nothing_is_committable_before_anything_is_finished():
    tracker = OffsetTracker()
    tracker.hand_out(0)
    assert tracker.committable is None


def test_the_same_offset_is_not_committed_twice():
    tracker = OffsetTracker()
    tracker.hand_out(0)
    tracker.finish(0)
    assert tracker.committable == 1
    tracker.note_committed(1)
    assert tracker.committable is None
