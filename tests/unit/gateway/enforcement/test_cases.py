import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.enforcement.cases import Case, Rejection
from schemas.broker import Received
from schemas.topics import VERDICTS

CHECKS = (5.0, 30.0, 300.0)


def rejection(scan_id: str = "a", length: int = 10) -> Rejection:
    return Rejection(scan_id, "default", b"\x00" * 32, length, "image/jpeg", 0)


def record(offset: int) -> Received:
    return Received(VERDICTS, 0, offset, 0, None, None, None, 0)


def offsets(records: list[Received]) -> list[int]:
    return [each.offset for each in records]


def test_a_rejected_file_is_looked_at_four_times_and_its_verdict_settled_by_the_last() -> None:
    case = Case()
    case.add(rejection(), record(1), 100.0, CHECKS)
    seen = []
    while look := case.next:
        settled = case.confirm(look, look.at)
        seen.append((look.check, look.at, look.last, offsets(settled)))
    assert seen == [(0, 100.0, False, []), (1, 105.0, False, []), (2, 130.0, False, []), (3, 400.0, True, [1])]


def test_a_verdict_without_later_looks_is_settled_by_the_first() -> None:
    case = Case()
    case.add(rejection(), record(1), 100.0, ())
    look = case.next
    assert look is not None
    assert look.last
    assert offsets(case.confirm(look, 100.0)) == [1]
    assert case.next is None


def test_a_look_that_comes_late_settles_every_verdict_whose_last_look_was_due_by_then() -> None:
    case = Case()
    case.add(rejection("a"), record(1), 100.0, CHECKS)
    case.add(rejection("b"), record(2), 300.0, CHECKS)
    look = case.next
    assert look is not None
    assert (look.check, look.at, case.rejection.scan_id) == (0, 300.0, "b")
    assert offsets(case.confirm(look, 400.0)) == [1]
    assert case.next is not None


def test_a_look_that_began_before_the_file_was_rejected_anew_does_not_count_for_the_new_round() -> None:
    case = Case()
    case.add(rejection(), record(1), 100.0, ())
    look = case.next
    assert look is not None
    case.add(rejection(), record(2), 101.0, CHECKS)
    assert offsets(case.confirm(look, 100.0)) == [1]
    after = case.next
    assert after is not None
    assert (after.round, after.check, after.at) == (2, 0, 101.0)


def test_a_verdict_that_needs_one_look_only_takes_none_from_another() -> None:
    case = Case()
    case.add(rejection("a"), record(1), 100.0, CHECKS)
    case.add(rejection("b", length=0), record(2), 110.0, ())
    assert case.rejection.scan_id == "a"  # which says how long the file is
    first = case.next
    assert first is not None
    assert offsets(case.confirm(first, 110.0)) == [2]
    last = case.next
    assert last is not None
    assert (last.at, last.last) == (400.0, True)
    assert offsets(case.confirm(last, 400.0)) == [1]


def test_waiting_for_a_look_ends_when_the_file_is_rejected_anew() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        case = Case()
        case.add(rejection(), record(1), clock() + 1000, CHECKS)
        look = case.next
        assert look is not None
        waiting = asyncio.create_task(case.reached(look))
        await asyncio.sleep(0)
        case.add(rejection(), record(2), clock(), CHECKS)
        assert await waiting is False
        now = case.next
        assert now is not None
        assert await case.reached(now) is True

    asyncio.run(scenario())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(0, 400), st.booleans()),
        st.tuples(st.just("look"), st.floats(0, 50), st.booleans()),
    ),
    max_size=40,
)


@given(steps)
def test_every_verdict_is_settled_once_and_never_before_its_last_look_was_due(
    steps: list[tuple[str, float, bool]],
) -> None:
    case, now, due, settled = Case(), 0.0, {}, []

    def look(delay: float) -> None:
        nonlocal now
        planned = case.next
        assert planned is not None
        now = max(now, planned.at) + delay
        for each in case.confirm(planned, now):
            settled.append(each.offset)
            assert due[each.offset] <= now

    for number, (step, delay, is_old) in enumerate(steps):
        if step == "add":
            now += delay
            due[number] = now + (0.0 if is_old else CHECKS[-1])
            case.add(rejection(str(number)), record(number), now, () if is_old else CHECKS)
        elif case.next is not None:
            look(delay)
    while case.next is not None:
        look(0.0)
    assert sorted(settled) == sorted(due)
