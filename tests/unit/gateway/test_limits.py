import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from gateway.limits import Limit, Ticket
from tests.unit.gateway.simulation import Simulation

DEADLINE_S = 3.0
TARGET_S = 0.7 * DEADLINE_S


@dataclass(eq=False)
class Image:
    came_at: float
    ticket: Ticket
    settled: bool = False


@dataclass
class Tally:
    offered: int = 0
    rejected: int = 0
    in_time: int = 0
    late: int = 0
    times: list[tuple[float, str]] = field(default_factory=list)

    def count(self, what: str, now: float) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self.times.append((now, what))

    def between(self, start: float, end: float, what: str) -> int:
        return sum(1 for at, kind in self.times if start <= at < end and kind == what)


class Scanners:
    """`servers`, one queue; a verdict takes `service()` seconds and comes `fixed_s` after. Late images cost nothing."""

    def __init__(self, clock: Simulation, servers: int, service: Callable[[], float], fixed_s: float = 0.0) -> None:
        self.clock = clock
        self.servers = servers
        self.service = service
        self.fixed_s = fixed_s
        self.busy = 0
        self.queue: deque[tuple[Image, Callable[[], None]]] = deque()

    def submit(self, image: Image, judged: Callable[[], None]) -> None:
        self.queue.append((image, judged))
        self.serve()

    def serve(self) -> None:
        while self.queue and self.busy < self.servers:
            image, judged = self.queue.popleft()
            if self.clock() - image.came_at >= DEADLINE_S:
                continue
            self.busy += 1
            self.clock.after(self.service(), lambda judged=judged: self.finish(judged))

    def finish(self, judged: Callable[[], None]) -> None:
        self.busy -= 1
        self.clock.after(self.fixed_s, judged)
        self.serve()


class Gateway:
    def __init__(self, clock: Simulation, scanners: Scanners, **limit) -> None:
        self.clock = clock
        self.scanners = scanners
        self.limit = Limit(TARGET_S, **({"most": 4096} | limit))
        self.tally = Tally()

    def offer(self) -> None:
        self.tally.count("offered", self.clock())
        if not self.limit.has_room:
            self.tally.count("rejected", self.clock())
            return
        image = Image(self.clock(), self.limit.enter())
        self.clock.after(DEADLINE_S, lambda: self.settle(image, "late"))
        self.scanners.submit(image, lambda: self.settle(image, "in_time"))

    def settle(self, image: Image, how: str) -> None:
        if not image.settled:
            image.settled = True
            image.ticket.leave(self.clock() - image.came_at)
            self.tally.count(how, self.clock())


def offer_poisson(gateway: Gateway, chance: random.Random, a_second: float, start: float, end: float) -> None:
    at = start
    while (at := at + chance.expovariate(a_second)) < end:
        gateway.clock.at(at, gateway.offer)


def exponential(chance: random.Random, mean_s: float) -> Callable[[], float]:
    return lambda: chance.expovariate(1 / mean_s)


def fixed(chance: random.Random, mean_s: float) -> Callable[[], float]:
    return lambda: mean_s


HOUSES = {  # servers, service time of each, what comes on top of it
    "two small models": (2, exponential, 0.030, 0.02),
    "two small models, steady": (2, fixed, 0.030, 0.02),
    "CLIP on a CPU": (1, fixed, 1.0, 0.03),
    "CLIP on four CPUs": (4, fixed, 1.0, 0.02),
    "a GPU": (1, fixed, 0.002, 0.05),
    "a GPU far away": (1, exponential, 0.002, 1.2),
}


def build(house: str, seed: int = 1, **limit) -> tuple[Simulation, Gateway, random.Random, float]:
    servers, shape, mean_s, fixed_s = HOUSES[house]
    clock, chance = Simulation(), random.Random(seed)
    gateway = Gateway(clock, Scanners(clock, servers, shape(chance, mean_s), fixed_s), **limit)
    return clock, gateway, chance, servers / mean_s


@pytest.mark.parametrize("load", [2.0, 10.0])
@pytest.mark.parametrize("house", HOUSES)
def test_under_overload_what_can_be_judged_in_time_is(house, load):
    clock, gateway, chance, capacity = build(house)
    start = clock()
    offer_poisson(gateway, chance, load * capacity, start, start + 45)
    clock.run(start + 45)
    assert gateway.tally.between(start + 15, start + 45, "in_time") >= 0.9 * 30 * capacity
    assert gateway.tally.between(start + 15, start + 45, "late") <= 0.02 * 30 * capacity


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("house", ["two small models", "two small models, steady", "a GPU"])
def test_nothing_is_turned_away_where_there_is_capacity(house, load, seed):
    clock, gateway, chance, capacity = build(house, seed)
    offer_poisson(gateway, chance, load * capacity, clock(), clock() + 60)
    clock.run(clock() + 60)
    assert gateway.tally.rejected == gateway.tally.late == 0
    assert gateway.tally.in_time > 0.9 * gateway.tally.offered


@pytest.mark.parametrize("house", ["two small models", "two small models, steady", "a GPU"])
def test_a_burst_from_idle_is_let_in_once_the_limit_is_learnt(house):
    clock, gateway, _, _ = build(house)
    for _ in range(2):
        before = gateway.tally.in_time
        for _ in range(100):
            gateway.offer()
        clock.run(clock() + 10)
    assert gateway.tally.in_time - before == 100


def test_a_burst_at_a_slow_model_is_let_in_as_far_as_it_can_be_judged():
    clock, gateway, _, capacity = build("CLIP on four CPUs")
    for _ in range(5):
        before, late = gateway.tally.in_time, gateway.tally.late
        for _ in range(100):
            gateway.offer()
        clock.run(clock() + 10)
    assert gateway.tally.in_time - before >= 0.8 * TARGET_S * capacity
    assert gateway.tally.late == late


@pytest.mark.parametrize("house", ["two small models", "CLIP on four CPUs", "a GPU", "a GPU far away"])
def test_capacity_that_halves_and_comes_back_is_followed(house):
    clock, gateway, chance, capacity = build(house)
    start, scanners = clock(), gateway.scanners
    normal = scanners.service
    servers = scanners.servers
    offer_poisson(gateway, chance, 2 * capacity, start, start + 75)
    halve = {"servers": servers // 2} if servers > 1 else {"service": lambda: 2 * normal()}
    clock.at(start + 20, lambda: vars(scanners).update(halve))
    clock.at(start + 45, lambda: vars(scanners).update(servers=servers, service=normal))
    clock.run(start + 75)
    assert gateway.tally.between(start + 32, start + 45, "in_time") >= 0.9 * 13 * capacity / 2
    assert gateway.tally.between(start + 55, start + 75, "in_time") >= 0.9 * 20 * capacity


@pytest.mark.parametrize("house", HOUSES)
def test_when_nothing_is_judged_few_wait_for_it_and_it_recovers_when_something_is(house):
    clock, gateway, chance, capacity = build(house)
    start, scanners = clock(), gateway.scanners
    servers = scanners.servers
    offer_poisson(gateway, chance, 2 * capacity, start, start + 100)
    clock.at(start + 20, lambda: vars(scanners).update(servers=0))

    def come_back() -> None:
        scanners.servers = servers
        for _ in range(servers):
            scanners.serve()

    clock.run(start + 60)
    assert gateway.limit.in_flight <= max(1, 0.02 * TARGET_S * capacity)
    waiting = gateway.tally.late
    come_back()
    clock.run(start + 100)
    assert waiting > 0
    assert gateway.tally.between(start + 80, start + 100, "in_time") >= 0.9 * 20 * capacity


@pytest.mark.parametrize("house", HOUSES)
def test_gateways_that_share_the_scanners_without_talking_share_their_capacity(house):
    clock, one, chance, capacity = build(house)
    other = Gateway(clock, one.scanners)
    start = clock()
    offer_poisson(one, chance, 2 * capacity, start, start + 60)
    offer_poisson(other, chance, 2 * capacity, start + 10, start + 60)
    clock.run(start + 60)
    in_time = [each.tally.between(start + 25, start + 60, "in_time") for each in (one, other)]
    assert sum(in_time) >= 0.85 * 35 * capacity
    assert all(in_time)


def test_a_long_way_to_the_first_verdict_is_not_taken_for_little_capacity_even_from_the_least():
    clock, gateway, chance, capacity = build("a GPU far away", first=1)
    gateway.scanners.fixed_s = 0.8 * TARGET_S
    start = clock()
    offer_poisson(gateway, chance, capacity, start, start + 120)
    clock.run(start + 120)
    assert gateway.tally.between(start + 100, start + 120, "in_time") >= 0.9 * 20 * capacity


def test_one_that_was_late_while_all_was_quiet_turns_no_burst_away():
    limit = Limit(TARGET_S, most=512)
    limit.enter().leave(DEADLINE_S)
    tickets = [limit.enter() for _ in range(30)]
    assert limit.has_room
    before = limit.limit
    for ticket in tickets:
        ticket.leave(0.1)
    assert limit.limit > before


def test_a_quiet_night_does_not_unlearn_the_limit():
    limit = Limit(TARGET_S, most=512)
    for _ in range(100):
        limit.enter().leave(1.0)
    assert limit.limit == pytest.approx(64)


def test_what_ended_otherwise_teaches_nothing_and_a_ticket_counts_once():
    limit = Limit(TARGET_S, most=10, first=2)
    one, two = limit.enter(), limit.enter()
    assert not limit.has_room
    one.drop()
    one.leave(DEADLINE_S)
    two.drop()
    two.drop()
    assert (limit.in_flight, limit.limit) == (0, pytest.approx(2))


def test_the_limit_stays_between_its_bounds():
    limit = Limit(TARGET_S, least=4, most=10, first=8)
    for _ in range(100):
        limit.enter().leave(100.0)
    assert limit.limit == pytest.approx(4)
    for _ in range(1000):
        tickets = [limit.enter() for _ in range(10)]
        for ticket in tickets:
            ticket.leave(0.001)
    assert limit.limit == pytest.approx(10)
    with pytest.raises(ValueError, match="least"):
        Limit(TARGET_S, least=0, most=10)
