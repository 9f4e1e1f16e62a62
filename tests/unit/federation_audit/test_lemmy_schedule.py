from typing import Any

from federation_audit.lemmy.database import Sought
from federation_audit.lemmy.links import Links
from federation_audit.lemmy.schedule import Case, Schedule

LOOKS = (5.0, 60.0, 600.0, 3600.0)
NAME = Sought("a.png", "")
T0 = 1_800_000_000_000


def add(schedule: Schedule, name: Sought = NAME, **options: Any) -> bool:
    return schedule.add(b"", name, **({"seen_at": T0, "now": T0, "held": None} | options))


def looks_of(schedule: Schedule, *, until: int, now: int = T0) -> list[int]:
    """The seconds after T0 at which something is looked for in vain."""
    looks = []
    while (due := schedule.next_due()) is not None and due <= until:
        now = max(now, due)
        for case in schedule.take(now, 10):
            looks.append((now - T0) // 1000)
            schedule.looked(case, found=False, now=now)
    return looks


def test_an_image_that_is_not_found_is_looked_for_four_times() -> None:
    schedule = Schedule(LOOKS)
    assert add(schedule)
    assert looks_of(schedule, until=T0 + 10_000_000) == [5, 60, 600, 3600]


def test_it_ends_when_every_look_and_a_sweep_are_over_in_any_order() -> None:
    for sweep_first in (True, False):
        schedule = Schedule(LOOKS)
        add(schedule)
        (case,) = schedule.unswept(T0 + 60_000, 10)
        if sweep_first:
            assert not schedule.swept(case, found=False)
        looks_of(schedule, until=T0 + 10_000_000)
        assert len(schedule) == (0 if sweep_first else 1)
        if not sweep_first:
            assert schedule.swept(case, found=False)
        assert len(schedule) == 0 and schedule.unswept(T0 + 10_000_000, 10) == []


def test_it_ends_when_it_is_found_and_is_not_due_again() -> None:
    schedule = Schedule(LOOKS)
    add(schedule)
    (case,) = schedule.take(T0 + 5_000, 10)
    assert schedule.looked(case, found=True, now=T0 + 5_000)
    assert (len(schedule), schedule.next_due()) == (0, None)


def test_what_a_sweep_finds_is_not_looked_for_again() -> None:
    schedule = Schedule(LOOKS)
    add(schedule)
    (case,) = schedule.unswept(T0 + 60_000, 10)
    assert schedule.swept(case, found=True)
    assert (len(schedule), schedule.next_due()) == (0, None)


def test_an_image_seen_again_while_it_waits_is_the_same_case_and_learns_its_hash() -> None:
    schedule = Schedule(LOOKS)
    assert add(schedule)
    assert not schedule.add(b"h" * 32, NAME, seen_at=T0 + 1, now=T0 + 1, held=None)
    assert [case.sha256 for case in schedule.take(T0 + 5_000, 10)] == [b"h" * 32]
    assert len(schedule) == 1


def test_looks_that_were_missed_are_made_up_for_by_one() -> None:
    schedule = Schedule(LOOKS)
    add(schedule, seen_at=T0 - 700_000, now=T0)
    assert looks_of(schedule, until=T0 + 10_000_000) == [0, 2900]
    schedule = Schedule(LOOKS)
    add(schedule, seen_at=T0 - 90_000_000, now=T0)
    assert looks_of(schedule, until=T0 + 10_000_000) == [0]


def test_a_clock_that_is_ahead_does_not_put_looks_off() -> None:
    schedule = Schedule(LOOKS)
    add(schedule, seen_at=T0 + 86_400_000, now=T0)
    assert schedule.next_due() == T0 + 5_000


def test_a_case_that_is_put_back_is_due_again() -> None:
    schedule = Schedule(LOOKS)
    add(schedule)
    taken: list[Case] = schedule.take(T0 + 5_000, 10)
    assert schedule.take(T0 + 6_000, 10) == []
    schedule.put_back(taken, T0 + 6_000)
    assert schedule.take(T0 + 6_000, 10) == taken


def test_links_join_names_and_hashes_for_each_tenant() -> None:
    links = Links(10)
    links.learn("a", b"1", Sought("x.png", "https://img.example/1"))
    links.learn("a", b"1", Sought("y.png", ""))
    assert links.names_of("a", b"1") == (Sought("x.png", "https://img.example/1"), Sought("y.png", ""))
    assert links.hash_of("a", Sought("", "https://img.example/1")) == b"1"
    assert links.names_of("b", b"1") == () and links.hash_of("b", Sought("y.png", "")) == b""


def test_an_address_whose_bytes_change_is_the_last_images() -> None:
    links = Links(10)
    name = Sought("", "https://img.example/1")
    links.learn("a", b"1", name)
    links.learn("a", b"2", name)
    assert links.hash_of("a", name) == b"2"
    assert links.names_of("a", b"1") == ()


def test_links_stay_within_their_bounds_and_forget_whole_images() -> None:
    links = Links(3)
    for number in range(50):
        links.learn("a", bytes([number]), Sought(f"{number}.png", ""))
        for alias in range(20):
            links.learn("a", b"many", Sought(f"many{alias}.png", ""))
    assert links.names_of("a", bytes([0])) == () and links.hash_of("a", Sought("0.png", "")) == b""
    assert len(links.names_of("a", b"many")) == 8
    assert (len(links._names), len(links._hashes)) == (3, 2 + 8)
