"""A SegmentLog against a plain model, with crashes between any two bytes of any two writes."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.spool.errors import SpoolFailed, SpoolFull
from gateway.spool.segments import SegmentLog
from tests.examples import thorough
from tests.unit.gateway.spool.disks import RecordedDisk

MAX_BYTES = 3_000
SEGMENT_BYTES = 300

payloads = st.binary(max_size=120) | st.just(b"FW\x01" * 20)
groups = st.lists(payloads, min_size=1, max_size=4)


class CrashingLog(RuleBasedStateMachine):
    """`kept` must be there, `gone` must not come back (after a power failure it may), `doubtful` may be either."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="spool-crashes-"))
        self.life = 0
        self.kept: dict[int, bytes] = {}
        self.gone: dict[int, bytes] = {}
        self.doubtful: dict[int, bytes] = {}
        self.highest = -1
        self.power_failed = False

    @initialize(sync=st.booleans())
    def begin(self, sync):
        self.sync = sync
        self.start(self.root / "0")

    def start(self, folder):
        self.disk = RecordedDisk(folder)
        self.disk.__enter__()
        self.log = SegmentLog(folder, max_bytes=MAX_BYTES, segment_bytes=SEGMENT_BYTES, sync=self.sync)
        self.log.open()

    def crash(self, data, before, *, power):
        """Die at some point since `before` operations were done, and come back."""
        self.disk.__exit__(None, None, None)
        self.log.close()
        operations = data.draw(st.integers(before, len(self.disk.operations)), "operations")
        if power:
            state = self.disk.after_power_loss(operations, lambda most: data.draw(st.integers(0, most)))
            self.power_failed = True
            if not self.sync:
                self.doubtful |= self.kept
                self.kept, self.highest = {}, -1
        else:
            cut = self.disk.operations[operations : operations + 1]
            state = self.disk.after_kill(operations, data.draw(st.integers(0, len(cut[0].data) if cut else 0), "cut"))
        self.life += 1
        folder = self.root / str(self.life)
        state.save(folder)
        self.start(folder)
        self.compare()

    def compare(self):
        """What the log has is what it must have and may have; the doubtful are decided by it."""
        found = [(entry.sequence, entry.payload) for entry in self.log.pending()]
        numbers = [sequence for sequence, _ in found]
        assert numbers == sorted(set(numbers))
        assert set(self.kept) <= set(numbers), "an entry is lost"
        for sequence, payload in found:
            if sequence in self.kept:
                assert payload == self.kept[sequence]
            elif sequence in self.doubtful:
                assert payload == self.doubtful[sequence]
            else:
                assert self.power_failed, "a released entry came back"
                assert payload == self.gone.pop(sequence)
        self.gone |= {s: p for s, p in self.doubtful.items() if s not in numbers}
        self.kept, self.doubtful = dict(found), {}

    def append_group(self, group):
        """Append for real; what was appended: all of it, or nothing."""
        first = self.log._next
        try:
            numbers = self.log.append_many(group)
        except (SpoolFull, SpoolFailed):
            self.gone |= {first + i: payload for i, payload in enumerate(group)}
            return {}
        assert numbers == list(range(numbers[0], numbers[0] + len(group)))
        assert numbers[0] > self.highest
        self.highest = numbers[-1]
        return dict(zip(numbers, group, strict=True))

    @rule(group=groups)
    def append(self, group):
        self.kept |= self.append_group(group)

    @rule(data=st.data())
    @precondition(lambda self: self.kept)
    def release(self, data):
        sequence = data.draw(st.sampled_from(sorted(self.kept)))
        self.log.release(sequence)
        self.gone[sequence] = self.kept.pop(sequence)

    @rule()
    @precondition(lambda self: self.kept)
    def release_all(self):
        for sequence in list(self.kept):
            self.log.release(sequence)
        self.gone |= self.kept
        self.kept = {}

    @rule(sequence=st.integers(-1, 50))
    def release_what_is_not_pending(self, sequence):
        if sequence not in self.kept:
            self.log.release(sequence)

    @rule(group=groups, room=st.integers(0, 200))
    def append_on_a_disk_that_fills_up(self, group, room):
        self.disk.room = room
        self.kept |= self.append_group(group)
        self.disk.room = None

    @rule(group=groups)
    def append_on_a_disk_that_fails(self, group):
        self.disk.broken = True
        self.kept |= self.append_group(group)
        self.disk.broken = False

    @rule(data=st.data(), power=st.booleans(), group=groups)
    def crash_in_an_append(self, data, power, group):
        before, highest = len(self.disk.operations), self.highest
        self.doubtful = self.append_group(group)
        self.highest = highest  # nobody was told those numbers
        self.crash(data, before, power=power)

    @rule(data=st.data(), power=st.booleans())
    @precondition(lambda self: self.kept)
    def crash_in_a_release(self, data, power):
        before = len(self.disk.operations)
        sequence = data.draw(st.sampled_from(sorted(self.kept)))
        self.doubtful = {sequence: self.kept.pop(sequence)}
        self.log.release(sequence)
        self.crash(data, before, power=power)

    @rule(data=st.data(), power=st.booleans())
    def crash_in_recovery(self, data, power):
        self.disk.__exit__(None, None, None)
        self.log.close()
        self.start(self.disk.folder)
        self.crash(data, 0, power=power)

    @rule()
    def stop_and_start(self):
        self.log.close()
        self.disk.__exit__(None, None, None)
        self.start(self.disk.folder)
        self.compare()

    @invariant()
    def it_holds_what_the_model_holds(self):
        if hasattr(self, "log"):
            assert {entry.sequence: entry.payload for entry in self.log.pending()} == self.kept
            assert self.log.count == len(self.kept)
            assert self.log.damaged == 0 or self.power_failed
            on_disk = sum(path.stat().st_size for path in self.log._folder.iterdir())
            assert self.log.size == on_disk <= MAX_BYTES

    def teardown(self):
        if hasattr(self, "log"):
            self.disk.__exit__(None, None, None)
            self.log.close()
        shutil.rmtree(self.root)


TestCrashingLog = CrashingLog.TestCase
TestCrashingLog.settings = settings(max_examples=thorough(150), stateful_step_count=40, deadline=None)
TestCrashingLog.pytestmark = [pytest.mark.timeout(600)]
