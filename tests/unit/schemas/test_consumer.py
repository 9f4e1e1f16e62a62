"""The group consumer through rebalances, failing commits and late news of what is done, against a Kafka of dicts."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka import errors as kafka
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.broker import BrokerSettings, BrokerUnavailable, Consumer, InstanceTaken, Received
from schemas.broker.offsets import OffsetTracker
from schemas.broker.reading import Reader
from schemas.topics import IMAGES
from tests.examples import thorough

TOPIC = IMAGES.full_name("t.")
PARTITIONS = [TopicPartition(TOPIC, number) for number in range(2)]


ASSIGNMENTS = st.just(set(PARTITIONS)) | st.sets(st.sampled_from(PARTITIONS))


class Cluster:
    """What aiokafka's consumer shows of a cluster: logs with gaps, committed offsets, an assignment that changes."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[int]] = {tp: [] for tp in PARTITIONS}
        self.committed_offsets = dict.fromkeys(PARTITIONS, 0)
        self.positions: dict[TopicPartition, int] = {}
        self.refuses_commits = False
        self._coordinator = SimpleNamespace(generation=1)

    def give(self, partitions: set[TopicPartition]) -> None:
        """A new assignment; reading begins where the group committed."""
        self.positions = {tp: self.committed_offsets[tp] for tp in partitions}

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self.positions)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        for tp in sorted(partitions or self.positions):
            offsets = [offset for offset in self.logs[tp] if offset >= self.positions[tp]][:max_records]
            if offsets:
                found[tp] = [record(tp, offset) for offset in offsets]
                self.positions[tp] = offsets[-1] + 1
                max_records -= len(offsets)
            if max_records == 0:
                break
        return found

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.refuses_commits or not offsets.keys() <= self.positions.keys():
            raise kafka.CommitFailedError
        self.committed_offsets |= offsets


def record(tp: TopicPartition, offset: int) -> ConsumerRecord:
    return ConsumerRecord(tp.topic, tp.partition, offset, 0, 0, b"key", None, None, 3, 0, ())


class Rebalancing(RuleBasedStateMachine):
    """What is committed never passes a record that nobody finished, and in the end all of it is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.cluster = Cluster()
        self.in_hand: list[tuple[Received, int]] = []
        self.finished: set[tuple[TopicPartition, int]] = set()
        self.assignments = 0

    @initialize()
    def join(self) -> None:
        async def make() -> Consumer:
            return Consumer(BrokerSettings(topic_prefix="t."), [IMAGES], group="g", client_id="c", drain_s=0.0)

        self.consumer = self.runner.run(make())
        self.consumer._client = self.cluster
        self.consumer._reader = Reader(self.cluster, {TOPIC: IMAGES}, epoch=lambda: self.consumer._epoch)
        self.cluster.give(set(PARTITIONS))
        self.consumer.assign()

    @rule(tp=st.sampled_from(PARTITIONS), gap=st.integers(1, 3), count=st.integers(1, 4))
    def publish(self, tp: TopicPartition, gap: int, count: int) -> None:
        log = self.cluster.logs[tp]
        for _ in range(count):
            log.append((log[-1] if log else -1) + gap)

    @rule(most=st.integers(1, 8))
    def poll(self, most: int) -> None:
        taken = self.runner.run(self.consumer.poll(max_messages=most, timeout_s=1, topic=IMAGES))
        assert len(taken) <= most
        self.in_hand += [(received, self.assignments) for received in taken]

    @precondition(lambda self: self.in_hand)
    @rule(oldest=st.booleans(), data=st.data())
    def finish(self, oldest: bool, data: st.DataObject) -> None:
        received, since = self.in_hand.pop(0 if oldest else data.draw(st.integers(0, len(self.in_hand) - 1)))
        self.consumer.done(received)
        if since == self.assignments:  # else the partition was taken away meanwhile: it is another's to finish
            self.finished.add((PARTITIONS[received.partition], received.offset))

    @rule(refused=st.booleans())
    def commit(self, refused: bool) -> None:
        self.cluster.refuses_commits = refused
        self.runner.run(self.consumer._commit(self.cluster))
        self.cluster.refuses_commits = False

    @rule(
        kept=st.just(set(PARTITIONS)) | st.sets(st.sampled_from(PARTITIONS)),
        expelled=st.booleans(),
        others_finish=st.integers(0, 3),
    )
    def rebalance(self, kept: set[TopicPartition], expelled: bool, others_finish: int) -> None:
        self.cluster.refuses_commits = expelled
        self.runner.run(self.consumer.revoke(had_partitions=bool(self.cluster.positions)))
        self.cluster.refuses_commits = False
        assert self.runner.run(self.consumer.poll(max_messages=9, timeout_s=0)) == []
        self.assignments += 1
        for tp in PARTITIONS:
            if tp not in kept:
                self._another_finishes(tp, others_finish)
        self.cluster.give(kept)
        self.consumer.assign()

    def _another_finishes(self, tp: TopicPartition, count: int) -> None:
        committed = self.cluster.committed_offsets[tp]
        for offset in [offset for offset in self.cluster.logs[tp] if offset >= committed][:count]:
            self.finished.add((tp, offset))
            self.cluster.committed_offsets[tp] = offset + 1

    @invariant()
    def nothing_unfinished_is_passed(self) -> None:
        for tp, committed in self.cluster.committed_offsets.items():
            assert all((tp, offset) in self.finished for offset in self.cluster.logs[tp] if offset < committed)

    def teardown(self) -> None:
        if hasattr(self, "consumer"):
            self.rebalance(set(PARTITIONS), expelled=False, others_finish=0)
            while taken := self.runner.run(self.consumer.poll(max_messages=5, timeout_s=0.1)):
                for received in reversed(taken):
                    self.consumer.done(received)
                    self.finished.add((PARTITIONS[received.partition], received.offset))
            self.runner.run(self.consumer._commit(self.cluster))
            self.nothing_unfinished_is_passed()
            for tp, log in self.cluster.logs.items():
                assert not log or self.cluster.committed_offsets[tp] == log[-1] + 1
        self.runner.close()


class Faulty(Cluster):
    """The second partition cannot be unpacked, and the group's offsets cannot be asked for."""

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        if PARTITIONS[1] in partitions:
            raise kafka.CorruptRecordException
        return await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)

    def __init__(self) -> None:
        super().__init__()
        self._group_id = "g"
        self._coordinator = SimpleNamespace(ensure_coordinator_known=self._fail)

    async def _fail(self) -> None:
        raise kafka.KafkaError("an odd answer")


def test_what_was_taken_is_handed_out_though_another_partition_cannot_go_back() -> None:
    cluster = Faulty()
    cluster.give(set(PARTITIONS))
    cluster.logs[PARTITIONS[0]] = [0, 1]
    reader = Reader(cluster, {TOPIC: IMAGES})
    reader._careful = True
    taken = asyncio.run(reader.read(PARTITIONS, timeout_s=1, most=9))
    assert [received.offset for received in taken] == [0, 1]
    assert reader._astray == {PARTITIONS[1]}
    reader.forget()
    assert not reader._astray


def test_an_older_commit_does_not_end_after_a_newer_one() -> None:
    async def scenario() -> None:
        cluster, release, begun = Cluster(), asyncio.Event(), []
        cluster.give(set(PARTITIONS))
        consumer = Consumer(BrokerSettings(topic_prefix="t."), [IMAGES], group="g", client_id="c")
        tracker = consumer._trackers.setdefault(PARTITIONS[0], OffsetTracker())

        async def commit(offsets: dict[TopicPartition, int]) -> None:
            begun.append(offsets)
            if len(begun) == 1:
                await release.wait()
            cluster.committed_offsets |= offsets

        cluster.commit = commit
        tasks = []
        for offset in range(2):
            tracker.hand_out(offset)
            tracker.finish(offset)
            tasks.append(asyncio.create_task(consumer._commit(cluster)))
            for _ in range(3):
                await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
        assert cluster.committed_offsets[PARTITIONS[0]] == 2

    asyncio.run(scenario())


class Stuck(Cluster):
    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> None:
        raise kafka.KafkaError("Unexpected exception in heartbeat task: UnknownError()")


def test_a_client_that_is_stuck_in_an_error_ends_the_process() -> None:
    async def scenario() -> None:
        consumer = Consumer(BrokerSettings(topic_prefix="t."), [IMAGES], group="g", client_id="c")
        consumer._client = cluster = Stuck()
        cluster.give(set())
        consumer._reader = Reader(cluster, {TOPIC: IMAGES})
        consumer.assign()
        with pytest.raises(BrokerUnavailable, match="UnknownError"):
            async with asyncio.timeout(60):
                while True:
                    assert await consumer.poll(max_messages=1, timeout_s=0.1) == []

    asyncio.run(scenario())


class Clock:
    """Takes the place of the module `time`: it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Expelling(Cluster):
    """The group forgets us: aiokafka then tells so before it joins again, and at two polls."""

    def __init__(self) -> None:
        super().__init__()
        self.failing_polls = 0
        self._subscription = SimpleNamespace(abort_waiters=lambda error: None)

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[object, object]:
        if self.failing_polls:
            self.failing_polls -= 1
            raise kafka.KafkaError("FencedInstanceIdError()")
        return {}


@pytest.mark.parametrize(("times", "taken"), [([0.0], False), ([0.0, 3.0], False), ([0.0, 3.0, 6.0], True)])
def test_one_expulsion_counts_once_however_often_it_is_told(
    times: list[float], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("schemas.broker.consumer.time", clock)
    monkeypatch.setattr("schemas.broker.consumer._RETRY_S", 0.0)

    async def scenario() -> None:
        consumer = Consumer(BrokerSettings(topic_prefix="t."), [IMAGES], group="g", client_id="c", instance="i")
        consumer._client = cluster = Expelling()
        consumer._reader = Reader(cluster, {TOPIC: IMAGES})
        cluster.give(set())
        for at in times:
            clock.now = at
            cluster._coordinator.generation = -1
            revoking = asyncio.create_task(consumer.revoke(had_partitions=True))
            while not revoking.done() and not consumer._impersonated:  # one that is to give way must not join again
                await asyncio.sleep(0)
            consumer.assign()
            cluster.failing_polls = 2
            for _ in range(3):
                clock.now += 0.5
                if not taken or at != times[-1]:
                    assert await consumer.poll(max_messages=1, timeout_s=0.1) == []
        if taken:
            with pytest.raises(InstanceTaken, match=r"scanner\.instance"):
                await consumer.poll(max_messages=1, timeout_s=0.1)
        revoking.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("beat_s", [0.4, 0.999, 1.0, 1.001, 1.999, 2.0])
def test_of_two_that_throw_each_other_out_the_older_is_first_to_know(
    beat_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("schemas.broker.consumer.time", clock)
    older, newer = (
        Consumer(BrokerSettings(topic_prefix="t."), [IMAGES], group="g", client_id="c", instance="i") for _ in range(2)
    )
    beats = 0
    while not (older._impersonated or newer._impersonated):
        for member, late_s in ((older, -0.001 * (beats % 2)), (newer, 0.01)):  # a heartbeat comes when it comes
            clock.now = beats * beat_s + late_s
            member._note_expelled(by_poll=False)
            if member._impersonated:
                break
        beats += 1
    assert older._impersonated


TestRebalancing = Rebalancing.TestCase
TestRebalancing.settings = settings(max_examples=thorough(200), stateful_step_count=30, deadline=None)
