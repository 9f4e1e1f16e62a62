import hashlib
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial

import pytest

from gateway.steering import Steering
from schemas.topics import IMAGES, IMAGES_BACKLOG
from tests.unit.gateway.simulation import Simulation

DEADLINE_S = 3.0
PARTITIONS = 12
LOOK_EVERY_S = 0.05
TO_KAFKA_S = 0.003
FETCH = 8
SESSION_S = 7.0


@dataclass(eq=False)
class Image:
    scan_id: str
    key: bytes
    sent_at: float
    judged_at: float | None = None
    partitions: list[int] = field(default_factory=list)


class Kafka:
    """The partitions of `images`, and who has them."""

    def __init__(self, partitions: int) -> None:
        self.logs: list[deque[Image]] = [deque() for _ in range(partitions)]
        self.owners: dict[int, Scanner] = {}

    def assign(self, *scanners: "Scanner") -> None:
        self.owners = {number: scanners[number % len(scanners)] for number in range(len(self.logs))}
        for scanner in scanners:
            scanner.wake()

    def append(self, number: int, image: Image) -> None:
        self.logs[number].append(image)
        if number in self.owners:
            self.owners[number].wake()


class Scanner:
    """One verdict every `service_s`. Fetches several from one partition after the other, passes over what is late."""

    def __init__(self, name: str, world: "World", service_s: float) -> None:
        self.name = name
        self.world = world
        self.service_s = service_s
        self.fetched: deque[tuple[int, Image]] = deque()
        self.turn = 0
        self.busy = False
        self.alive = True
        self.stopped = False

    def wake(self) -> None:
        if self.busy or self.stopped or not self.alive:
            return
        if not self.fetched:
            self.fetch()
        while self.fetched:
            number, image = self.fetched.popleft()
            if self.world.clock() < image.sent_at + DEADLINE_S:
                self.busy = True
                self.world.clock.after(self.service_s, partial(self.finish, number, image))
                return
            self.commit(number, image)
            if not self.fetched:
                self.fetch()

    def fetch(self) -> None:
        mine = [number for number, owner in self.world.kafka.owners.items() if owner is self]
        for _ in mine:
            self.turn += 1
            number = mine[self.turn % len(mine)]
            self.fetched.extend((number, image) for image in list(self.world.kafka.logs[number])[:FETCH])
            if self.fetched:
                return

    def commit(self, number: int, image: Image) -> None:
        if self.world.kafka.owners.get(number) is self and image in self.world.kafka.logs[number]:
            self.world.kafka.logs[number].remove(image)

    def finish(self, number: int, image: Image) -> None:
        if not self.alive:
            return
        if self.stopped:
            self.world.clock.after(0.1, lambda: self.finish(number, image))
            return
        self.busy = False
        self.commit(number, image)
        self.world.verdict(image, number, self)
        self.wake()


class World:
    """A gateway that steers, and its scanners."""

    def __init__(self, *service_s: float, partitions: int = PARTITIONS) -> None:
        self.clock = Simulation()
        self.start = self.clock()
        self.kafka = Kafka(partitions)
        self.steering = Steering(deadline_s=DEADLINE_S, monotonic=self.clock)
        self.steering.resize(partitions)
        self.scanners = [Scanner(f"scanner-{number}", self, each) for number, each in enumerate(service_s)]
        self.kafka.assign(*self.scanners)
        self.images: dict[str, Image] = {}
        self.hedged: list[float] = []
        self.avoided: list[float] = []
        self.verdicts: list[tuple[float, str]] = []
        self.clock.after(LOOK_EVERY_S, self.look)

    def offer(self, a_second: float, seconds: float, seed: int = 1) -> None:
        chance = random.Random(seed)
        at = self.start
        while (at := at + chance.expovariate(a_second)) < self.start + seconds:
            self.clock.at(at, self.send)

    def send(self) -> None:
        scan_id = f"scan-{len(self.images)}"
        image = Image(scan_id, hashlib.sha256(scan_id.encode()).digest(), self.clock())
        self.images[scan_id] = image
        self.publish(image, again=False)
        self.clock.after(DEADLINE_S, lambda: self.steering.forget(scan_id))

    def publish(self, image: Image, *, again: bool) -> None:
        partition = self.steering.choose(image.key, again=again)
        assert partition is not None
        image.partitions.append(partition)
        self.steering.sent(image.scan_id, partition)
        self.clock.after(TO_KAFKA_S, lambda: self.kafka.append(partition, image))

    def look(self) -> None:
        for scan_id in self.steering.overdue():
            self.hedged.append(self.clock())
            self.publish(self.images[scan_id], again=True)
        if self.steering.avoided:
            self.avoided.append(self.clock())
        self.clock.after(LOOK_EVERY_S, self.look)

    def verdict(self, image: Image, partition: int, scanner: Scanner) -> None:
        def read() -> None:
            self.verdicts.append((self.clock(), scanner.name))
            image.judged_at = image.judged_at or self.clock()
            self.steering.judged(image.scan_id, IMAGES.name, partition, scanner.name)

        self.clock.after(TO_KAFKA_S, read)

    def run(self, seconds: float) -> None:
        self.clock.run(self.start + seconds)

    def in_time(self, start: float, end: float) -> float:
        """The part of the images sent in these seconds that was judged before the deadline."""
        images = [each for each in self.images.values() if start <= each.sent_at - self.start < end]
        judged = [each for each in images if each.judged_at and each.judged_at < each.sent_at + DEADLINE_S]
        return len(judged) / len(images)

    def share(self, scanner: str, start: float, end: float) -> float:
        """The part of these seconds' verdicts that this scanner gave."""
        names = [name for at, name in self.verdicts if start <= at - self.start < end]
        return names.count(scanner) / len(names)


def kill(scanner: Scanner, *others: Scanner) -> None:
    """The others have its partitions when its session is over."""
    scanner.alive = False
    kafka = scanner.world.kafka
    scanner.world.clock.after(SESSION_S, lambda: kafka.assign(*others) if others else kafka.owners.clear())


def hang(scanner: Scanner, other: Scanner, seconds: float) -> None:
    """Stopped for longer than its session; then it goes on with what it had, and joins the group again."""
    clock, kafka = scanner.world.clock, scanner.world.kafka

    def go_on() -> None:
        scanner.stopped = False
        scanner.wake()
        clock.after(1.0, lambda: kafka.assign(other, scanner))

    scanner.stopped = True
    clock.after(SESSION_S, lambda: kafka.assign(other))
    clock.after(seconds, go_on)


SEEDS = pytest.mark.parametrize("seed", range(3))


@SEEDS
def test_when_one_of_two_scanners_is_killed_its_images_are_judged_in_time_by_the_other(seed):
    world = World(0.03, 0.03)
    world.offer(20, 60, seed)
    world.clock.at(world.start + 20, lambda: kill(world.scanners[0], world.scanners[1]))
    world.run(20)
    assert not world.hedged
    world.run(64)
    assert world.in_time(20, 30) >= 0.99
    assert world.in_time(30, 60) == 1.0
    assert 0 < len(world.hedged) < 0.1 * 20 * 10
    assert 20 < min(world.avoided) - world.start < 22
    assert max(world.avoided) - world.start < 20 + SESSION_S + 2


@SEEDS
def test_a_scanner_that_hung_is_steered_around_and_used_again_when_it_goes_on(seed):
    world = World(0.03, 0.03)
    world.offer(20, 70, seed)
    world.clock.at(world.start + 20, lambda: hang(world.scanners[0], world.scanners[1], 8.0))
    world.run(74)
    assert world.in_time(20, 30) >= 0.99
    assert world.in_time(30, 70) == 1.0
    assert world.share("scanner-0", 20.1, 27) == 0
    assert world.share("scanner-0", 31, 70) == pytest.approx(0.5, abs=0.1)
    assert not [at for at in world.avoided if at > world.start + 31]


def test_a_gateway_that_never_heard_of_the_dead_scanner_learns_to_avoid_it():
    world = World(0.03, 0.03)
    world.scanners[0].alive = False
    world.offer(20, 30)
    world.run(34)
    assert world.in_time(0, 30) >= 0.97
    assert 0 < len(world.hedged) < 0.2 * len(world.images)


def test_partitions_that_alone_fall_silent_are_avoided_though_their_scanner_lives():
    world = World(0.03, 0.03)
    world.offer(20, 40)
    gone = [0, 1, 2, 3]

    def lose() -> None:
        for number in gone:
            del world.kafka.owners[number]

    world.clock.at(world.start + 20, lose)
    world.clock.at(world.start + 28, lambda: world.kafka.assign(*world.scanners))
    world.run(44)
    assert world.in_time(20, 40) >= 0.97
    assert not [at for at in world.avoided if at > world.start + 31]


@SEEDS
@pytest.mark.parametrize(
    ("service_s", "a_second"),
    [
        ((0.03, 0.03), 60),
        ((0.03, 0.03), 133),
        ((0.03, 0.03), 660),
        ((1.0, 1.0), 1.6),
        ((1.0, 1.0), 4),
        ((0.03, 0.3), 10),
    ],
    ids=["90 %", "2x", "10x", "slow models", "slow models, 2x", "one much slower"],
)
def test_load_and_slowness_are_not_taken_for_silence(service_s, a_second, seed):
    world = World(*service_s)
    world.offer(a_second, 40, seed)
    world.run(44)
    assert len(world.hedged) <= 0.01 * len(world.images)
    assert len(world.avoided) <= 0.02 * 40 / LOOK_EVERY_S


def test_when_the_only_scanner_dies_nothing_is_sent_twice():
    world = World(0.03)
    world.offer(20, 60)
    world.clock.at(world.start + 20, lambda: kill(world.scanners[0]))
    world.run(64)
    assert world.in_time(25, 60) == 0
    assert not world.hedged
    assert world.steering.waiting == world.steering.avoided == 0


def test_what_is_sent_twice_is_bounded_when_those_left_are_overrun():
    world = World(0.03, 0.03)
    world.offer(60, 60)
    world.clock.at(world.start + 20, lambda: kill(world.scanners[0], world.scanners[1]))
    world.run(64)
    for start in range(20, 60, 10):
        hedged = [at for at in world.hedged if start <= at - world.start < start + 10]
        assert len(hedged) <= 20 + 0.2 * 600


def test_an_image_has_its_partition_and_only_those_of_silent_ones_move_evenly_over_the_others():
    world = World(0.03, 0.03)
    keys = [hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(12_000)]
    usual = [world.steering.choose(key) for key in keys]
    assert Counter(usual).keys() == set(range(PARTITIONS))
    world.offer(20, 25)
    world.clock.at(world.start + 20, lambda: kill(world.scanners[0], world.scanners[1]))
    world.run(24)
    assert world.steering.avoided == PARTITIONS // 2
    moved = [world.steering.choose(key, again=True) for key in keys]
    healthy = {number for number, owner in world.kafka.owners.items() if owner.alive}
    assert all(now == before for now, before in zip(moved, usual, strict=True) if before in healthy)
    counts = Counter(now for now, before in zip(moved, usual, strict=True) if before not in healthy)
    assert counts.keys() == healthy
    assert min(counts.values()) > 0.8 * max(counts.values())


def waiting_for_the_dead(clock: Simulation) -> Steering:
    """Two scanners, two partitions each; b fell silent, with one image waiting in 2, while a goes on."""
    steering = Steering(deadline_s=DEADLINE_S, monotonic=clock)
    steering.resize(4)
    for number, scanner in enumerate("aabb"):
        steering.sent(f"first-{number}", number)
        clock.now += 0.03
        steering.judged(f"first-{number}", IMAGES.name, number, scanner)
    steering.sent("stuck", 2)
    clock.now += steering.patience_s + 0.01
    steering.judged("another gateway's", IMAGES.name, 0, "a")
    assert steering.overdue() == ["stuck"]
    assert steering.avoided == 2
    return steering


def key_of(partition: int) -> bytes:
    return partition.to_bytes(8)


def test_an_image_is_named_once_for_each_copy_and_three_copies_are_the_most():
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    assert steering.overdue() == []
    for _ in range(5):
        steering.sent("stuck", 3)
        clock.now += DEADLINE_S
        named = steering.overdue()
    assert named == []
    steering.sent("other", 2)
    assert steering.overdue() == ["other"]
    steering.sent("other", 0)
    clock.now += DEADLINE_S
    steering.judged("another gateway's", IMAGES.name, 0, "a")
    assert steering.overdue() == []
    assert steering.avoided == 2


def test_further_copies_are_a_share_of_recent_images_however_many_wait():
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    for number in range(2000):
        steering.sent(f"long ago {number}", 0)
        steering.judged(f"long ago {number}", IMAGES.name, 0, "a")
    clock.now += 600
    steering.overdue()
    for number in range(100):
        steering.sent(f"now {number}", 2)
    assert 20 <= len(steering.overdue()) <= 40
    clock.now += 60
    steering.judged("another gateway's", IMAGES.name, 0, "a")
    assert 20 <= len(steering.overdue()) <= 40


def test_a_partition_that_is_overtaken_stays_avoided_while_its_scanner_goes_on_elsewhere():
    clock = Simulation()
    steering = Steering(deadline_s=DEADLINE_S, monotonic=clock)
    steering.resize(2)
    for number in (0, 1):
        steering.judged("old", IMAGES.name, number, "a")
    steering.sent("stuck", 1)
    for number in range(20):
        clock.now += 0.1
        steering.sent(str(number), 0)
        steering.judged(str(number), IMAGES.name, 0, "a")
    assert steering.overdue() == ["stuck"]
    steering.judged("another gateway's", IMAGES.name, 0, "a")
    assert steering.avoided == 1
    steering.judged("another gateway's", IMAGES.name, 1, "a")
    assert steering.avoided == 0


def test_one_image_a_second_tries_a_silent_partition_and_has_a_copy_elsewhere_at_once():
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    assert steering.choose(key_of(2)) == 2
    steering.sent("probe", 2)
    assert steering.overdue() == ["probe"]
    assert steering.choose(key_of(2), again=True) in (0, 1)
    assert steering.choose(key_of(2)) in (0, 1)
    clock.now += 1.01
    assert steering.choose(key_of(2), again=True) in (0, 1)
    assert steering.choose(key_of(3)) == 3


@pytest.mark.parametrize("scanner", ["b", "c"])
def test_any_verdict_from_a_silent_partition_brings_all_of_its_scanner_back(scanner):
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    clock.now += 2
    steering.sent("later", 0)
    steering.judged("later", IMAGES.name, 0, "a")
    steering.judged("old", IMAGES.name, 3, scanner)
    assert steering.overdue() == []
    assert steering.avoided == 0
    assert steering.choose(key_of(2)) == 2


def test_a_scanner_that_lost_its_partitions_is_no_longer_listened_for():
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    steering.judged("old", IMAGES.name, 3, "c")
    clock.now += DEADLINE_S
    assert steering.overdue() == []
    assert steering.avoided == 0
    assert steering._scanners.keys() == {"a", "c"}


def test_a_verdict_from_the_backlog_ends_the_wait_and_says_nothing_of_partitions():
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    steering.judged("stuck", IMAGES_BACKLOG.name, 2, "b")
    assert (steering.avoided, steering.waiting) == (2, 0)


def test_partitions_of_a_scanner_that_leaves_are_not_judged_by_its_silence():
    clock = Simulation()
    steering = Steering(deadline_s=DEADLINE_S, monotonic=clock)
    steering.resize(4)
    for number, scanner in enumerate("aabb"):
        steering.judged("old", IMAGES.name, number, scanner)
    steering.leaving("b")
    steering.sent("waits", 2)
    clock.now += DEADLINE_S / 2
    assert steering.overdue() == []
    assert steering.avoided == 0


def test_partitions_that_were_added_are_used_and_unknown_ones_left_to_the_producer():
    clock = Simulation()
    steering = Steering(deadline_s=DEADLINE_S, monotonic=clock)
    assert steering.choose(key_of(5)) is None
    steering.sent("unknown", None)
    steering.judged("unknown", IMAGES.name, 7, "a")
    steering.resize(4)
    assert steering.choose(key_of(5)) == 1
    steering.resize(8)
    assert steering.choose(key_of(5)) == 5
    steering.sent("waits", 5)
    steering.resize(4)
    steering.judged("waits", IMAGES.name, 5, "a")
    assert (steering.choose(key_of(5)), steering.waiting) == (1, 0)


def test_patience_follows_the_latency_within_its_bounds():
    clock = Simulation()
    steering = Steering(deadline_s=DEADLINE_S, monotonic=clock)
    steering.resize(1)
    seen = [steering.patience_s]
    for latency_s in (0.03, 0.2, 2.0):
        for number in range(200):
            steering.sent(str(number), 0)
            clock.now += latency_s
            steering.judged(str(number), IMAGES.name, 0, "a")
        seen.append(steering.patience_s)
    assert seen == pytest.approx([1.2, 0.4, 0.8, 1.2], rel=0.01)


def test_the_wait_of_an_image_that_was_sent_twice_makes_nobody_more_patient():
    clock = Simulation()
    steering = waiting_for_the_dead(clock)
    before = steering.patience_s
    steering.sent("stuck", 0)
    clock.now += 100
    steering.judged("stuck", IMAGES.name, 0, "a")
    assert steering.patience_s == before
