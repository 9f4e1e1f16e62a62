from datetime import date, timedelta
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from federation_audit.statistics.events import Confirmation, Incident
from federation_audit.statistics.independence import choose_independent, distinct_incidents

DAY = date(2026, 10, 1)


def incidents_of(marks):
    return [
        Incident(f"n{number}", "a.example", actor, DAY + timedelta(days=day), f"c{cluster}", Confirmation.REVIEWERS)
        for number, (actor, day, cluster) in enumerate(marks)
    ]


def brute_force(marks):
    marks = sorted(set(marks))
    for size in range(len(marks), 0, -1):
        for some in combinations(marks, size):
            if all(len({mark[kind] for mark in some}) == size for kind in range(3)):
                return size
    return 0


MARKS = st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.integers(0, 3))


@settings(deadline=None, max_examples=30)
@given(st.lists(MARKS, max_size=10))
def test_it_is_the_largest_set_that_shares_nothing(marks):
    assert len(choose_independent(incidents_of(marks))) == brute_force(marks)


@settings(deadline=None, max_examples=30)
@given(st.lists(MARKS, max_size=25), MARKS)
def test_one_more_incident_adds_one_or_nothing(marks, more):
    before, after = choose_independent(incidents_of(marks)), choose_independent(incidents_of([*marks, more]))
    assert len(before) <= len(after) <= len(before) + 1


@settings(deadline=None, max_examples=30)
@given(st.lists(MARKS, max_size=20).flatmap(lambda marks: st.tuples(st.just(marks), st.permutations(marks))))
def test_the_order_of_incidents_does_not_matter(lists):
    size = {len(choose_independent(incidents_of(marks))) for marks in lists}
    assert len(size) == 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), max_size=6), max_size=4))
def test_a_source_adds_at_most_one_whether_an_account_a_raid_or_a_picture(sources):
    marks = []
    for number, source in enumerate(sources):
        for actor, day, cluster in source:
            mark = [f"a{actor}", day, cluster]
            mark[number % 3] = ["the account", 99, 99][number % 3]  # what all of this source's incidents share
            marks.append(tuple(mark))
    assert len(choose_independent(incidents_of(marks))) <= sum(bool(source) for source in sources)


def test_the_same_account_day_and_picture_twice_is_one_incident():
    twice = incidents_of([("a", 0, 0), ("a", 0, 0)])
    assert [one.incident_id for one in distinct_incidents(reversed(twice))] == ["n0"]


def test_incidents_by_unknown_accounts_stand_alone_at_most_once():
    assert len(choose_independent(incidents_of([("", 0, 0), ("", 1, 1), ("", 2, 2)]))) == 1
    assert len(choose_independent(incidents_of([("", 0, 0), ("a", 1, 1), ("b", 2, 2)]))) == 2


def test_ten_thousand_incidents_of_a_raid_are_counted_at_once():
    marks = [(f"a{number % 700}", number % 30, number) for number in range(10_000)]
    assert len(choose_independent(incidents_of(marks))) == 30
