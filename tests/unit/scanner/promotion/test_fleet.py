"""Whose turn it is to leave: never two scanners of a group at a time, and all of them in the end."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.promotion.fleet import AWAY_MOST_S, HEARD_WITHIN_S, LOST_AFTER_S, SILENT_MOST_S, Fleet
from schemas.messages import EVERY_TENANT, ScannerAnnounced

OLD, NEW = ("safety-s",), ("safety-m",)
BACK_AFTER_S = 3.0


def says(
    scanner: str,
    at: float = 0.0,
    *,
    models: tuple[str, ...] = OLD,
    changing: bool = False,
    leaving: bool = False,
    group: str = "g",
    instance: str = "",
) -> ScannerAnnounced:
    return ScannerAnnounced(
        scanner=scanner,
        group=group,
        models=dict.fromkeys(models, "id"),
        policies={EVERY_TENANT: "p"},
        device="cpu",
        changing=changing,
        leaving=leaving,
        instance=instance,
        announced_at=int(at * 1000),
    )


def fleet(*said: ScannerAnnounced) -> Fleet:
    made = Fleet("g")
    for each in said:
        made.observe(each, each.announced_at / 1000)
    return made


def test_a_lone_scanner_goes_at_once_when_it_has_said_so_and_read_it():
    alone = fleet(says("a"))
    assert not alone.turn("a", NEW, 0).mine
    alone.observe(says("a", changing=True), 0)
    assert alone.turn("a", NEW, 0).mine


def test_nobody_goes_by_what_it_has_not_read():
    assert "does not come back" in fleet().turn("a", NEW, 0).why
    deaf = fleet(says("a", changing=True))
    assert "does not come back" in deaf.turn("a", NEW, 60).why


def test_who_said_so_first_goes_first_and_the_next_when_somebody_new_is_there():
    seen = fleet(says("b", changing=True), says("a", changing=True))
    assert seen.turn("b", NEW, 1).mine
    assert seen.turn("a", NEW, 1).why == "it is the turn of b"
    seen.observe(says("b", 2, changing=True, leaving=True), 2)
    assert "b has left" in seen.turn("a", NEW, 2).why
    assert seen.away == ["b"]
    seen.observe(says("b2", 5, models=NEW), 5)
    assert seen.turn("a", NEW, 5).mine
    assert seen.away == []


def test_who_stops_for_good_is_not_waited_for():
    seen = fleet(says("b", changing=True), says("a", changing=True), says("b", 1, leaving=True))
    assert seen.turn("a", NEW, 1).mine


def test_who_no_longer_wants_to_leaves_its_place():
    seen = fleet(says("b", changing=True), says("a", changing=True), says("b", 1))
    assert seen.turn("a", NEW, 1).mine


def test_a_dead_one_loses_its_place_and_a_silent_one_stands_behind():
    seen = fleet(says("b", changing=True), says("a", changing=True))
    later = LOST_AFTER_S + 1
    seen.observe(says("a", later - 15, changing=True), later - 15)
    assert not fleet(says("b", changing=True), says("a", 1, changing=True)).turn("a", NEW, 10).mine
    again = fleet(says("b", changing=True), says("a", 15, changing=True), says("b", SILENT_MOST_S + 1, changing=True))
    assert again.turn("a", NEW, 25).mine
    for at in range(5, int(later) + 1, 5):
        seen.observe(says("a", at, changing=True), at)
    assert seen.turn("a", NEW, later).mine


def test_models_that_nobody_came_up_with_cost_one_scanner_and_no_more():
    seen = fleet(says("b", changing=True), says("a", changing=True), says("b", 1, changing=True, leaving=True))
    late = AWAY_MOST_S + 10
    seen.observe(says("a", late, changing=True), late)
    assert not seen.turn("a", NEW, late).mine
    seen.observe(says("c", late, models=NEW, instance="another"), late)
    assert seen.turn("a", NEW, late).mine


def test_other_models_are_not_held_up_for_ever_by_who_left_for_the_earlier_ones():
    seen = fleet(says("a"), says("b", changing=True, leaving=True))
    seen.note_promotion()
    seen.observe(says("a", 100, changing=True), 100)
    assert not seen.turn("a", NEW, 100).mine
    late = AWAY_MOST_S + 10
    seen.observe(says("a", late, changing=True), late)
    assert seen.turn("a", NEW, late).mine


def test_a_new_scanner_is_not_taken_for_one_of_another_instance():
    seen = fleet(says("a", changing=True, instance="i-a"), says("b", 1, changing=True, leaving=True, instance="i-b"))
    seen.observe(says("c", 2, models=NEW, instance="i-c"), 2)
    assert not seen.turn("a", NEW, 2).mine
    seen.observe(says("d", 3, models=NEW, instance="i-b"), 3)
    assert seen.turn("a", NEW, 3).mine


def test_other_groups_do_not_count_and_members_are_those_heard_of_lately():
    seen = fleet(says("x", group="g-shadow"), says("b", 0), says("a", 20, changing=True))
    assert [each.scanner for each in seen.members(HEARD_WITHIN_S + 1)] == ["a"]
    assert [each.scanner for each in seen.members(25)] == ["a", "b"]


@dataclass
class Scanner:
    """One process after another of one instance, each with its own reading of the topic."""

    instance: str
    models: tuple[str, ...] = OLD
    number: int = 0
    running: bool = True
    left_at: float | None = None
    changing: bool = False
    said_at: float = float("-inf")
    read: int = 0
    view: Fleet = field(default_factory=lambda: Fleet("g"))

    @property
    def name(self) -> str:
        return f"{self.instance}-{self.number}"


class World:
    """Scanners, the topic that they write to and read at their own pace, and one clock."""

    def __init__(self, count: int) -> None:
        self.now = 0.0
        self.topic: list[ScannerAnnounced] = []
        self.scanners = [Scanner(f"i{number}") for number in range(count)]
        for each in self.scanners:
            self.announce(each)

    def announce(self, who: Scanner, *, leaving: bool = False) -> None:
        self.topic.append(
            says(
                who.name,
                self.now,
                models=who.models,
                changing=who.changing,
                leaving=leaving,
                instance=who.instance,
            )
        )
        who.said_at = self.now

    def read(self, who: Scanner, most: int = 1_000_000) -> None:
        for said in self.topic[who.read : who.read + most]:
            who.view.observe(said, said.announced_at / 1000 if said.scanner == who.name else self.now)
        who.read = min(len(self.topic), who.read + most)

    def act(self, who: Scanner) -> None:
        """What a follower does: say so, and leave when it is its turn."""
        if not who.running or who.models == NEW:
            return
        if not who.changing:
            who.changing = True
            self.announce(who)
        elif who.view.turn(who.name, NEW, self.now).mine:
            self.announce(who, leaving=True)
            who.running, who.left_at = False, self.now

    def start(self, who: Scanner) -> None:
        """A new process of an instance that does not run: it loads what is promoted."""
        if who.running:
            return
        who.number += 1
        who.models, who.running, who.left_at, who.changing = NEW, True, None, False
        who.read, who.view = 0, Fleet("g")
        self.announce(who)

    def kill(self, who: Scanner) -> None:
        who.running = False

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for each in self.scanners:
            if each.running and self.now - each.said_at >= 5:
                self.announce(each)

    @property
    def away(self) -> list[Scanner]:
        """Who has left, and is still waited for."""
        return [each for each in self.scanners if each.left_at is not None and self.now - each.left_at <= AWAY_MOST_S]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "read some", "act", "act", "act", "return", "kill", "start", "time"]),
        st.integers(0, 4),
        st.integers(1, 6),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 5), steps=STEPS, come_back=st.booleans())
def test_no_two_are_away_at_a_time_and_all_get_there_whoever_dies(count, steps, come_back):
    world = World(count)
    for what, which, how_many in steps:
        who = world.scanners[which % count]
        match what:
            case "read":
                world.read(who)
            case "read some":
                world.read(who, how_many)
            case "act":
                world.act(who)
            case "return" if who.left_at is not None:
                world.start(who)
            case "kill":
                world.kill(who)
            case "start":
                world.start(who)
            case "time":
                world.pass_time(how_many)
        assert len(world.away) <= 1

    dead = [each for each in world.scanners if not each.running and each.left_at is None]
    lost = [each for each in world.away if not come_back]
    if come_back:
        for each in dead:
            world.start(each)
    proven = any(each.running and each.models == NEW for each in world.scanners)
    for _ in range(int(AWAY_MOST_S + LOST_AFTER_S + 20 * count)):
        world.pass_time(1)
        for each in world.scanners:
            if each.left_at is not None and each not in lost and world.now - each.left_at >= BACK_AFTER_S:
                world.start(each)
            if each.running:
                world.read(each)
                world.act(each)
        assert len([each for each in world.away if each not in lost]) <= 1
        if all(each.models == NEW for each in world.scanners if each.running or each.left_at is not None):
            break
    running = [each for each in world.scanners if each.running]
    if lost and not proven:
        assert all(each.models == OLD for each in running)
    else:
        assert all(each.models == NEW for each in running)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_fleet_without_names_changes_one_after_another(count):
    world = World(count)
    for each in world.scanners:
        each.instance = ""
        each.number = id(each)
    world.topic.clear()
    for each in world.scanners:
        each.view, each.read = Fleet("g"), 0
        world.announce(each)
    for _ in range(20 * count):
        world.pass_time(1)
        for each in world.scanners:
            if each.left_at is not None and world.now - each.left_at >= BACK_AFTER_S:
                each.number += 10**20
                world.start(each)
            if each.running:
                world.read(each)
                world.act(each)
        assert len(world.away) <= 1
    assert {each.models for each in world.scanners} == {NEW}
    assert world.now <= 20 * count
