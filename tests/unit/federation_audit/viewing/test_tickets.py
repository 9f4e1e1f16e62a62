"""One-time addresses of pictures."""

import time

from federation_audit.viewing.tickets import Tickets


def test_a_picture_is_given_once_and_to_its_session_alone() -> None:
    tickets = Tickets()
    ticket = tickets.issue("ada", b"picture")
    assert tickets.redeem("bob", ticket) is None
    assert tickets.redeem("ada", "another") is None
    assert tickets.redeem("ada", ticket) == b"picture"
    assert tickets.redeem("ada", ticket) is None


def test_a_session_has_one_at_a_time() -> None:
    tickets = Tickets()
    first, others, second = tickets.issue("ada", b"1"), tickets.issue("bob", b"b"), tickets.issue("ada", b"2")
    assert tickets.redeem("ada", first) is None
    assert tickets.redeem("ada", second) == b"2"
    assert tickets.redeem("bob", others) == b"b"


def test_what_nobody_fetches_is_dropped_soon_and_many_are_bounded() -> None:
    tickets = Tickets(hold_s=0.05)
    ticket = tickets.issue("ada", b"picture")
    until = time.monotonic() + 10
    while tickets._waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert tickets._waiting == {}  # not only refused: gone from memory
    assert tickets.redeem("ada", ticket) is None
    lasting = Tickets()
    issued = [lasting.issue(f"session-{number}", b"x") for number in range(100)]
    kept = [lasting.redeem(f"session-{number}", ticket) for number, ticket in enumerate(issued)]
    assert kept[:68] == [None] * 68
    assert kept[68:] == [b"x"] * 32
