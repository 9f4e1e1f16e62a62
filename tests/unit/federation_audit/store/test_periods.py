"""Periods: weeks from Monday, cut where a quarter begins, each day in exactly one."""

from datetime import date, timedelta

import pytest

from federation_audit.statistics.decision import quarter_start
from federation_audit.store.periods import as_date, as_day, first_day, last_day


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [
        (date(2026, 11, 28), date(2026, 11, 23), date(2026, 11, 29)),
        (date(2026, 12, 31), date(2026, 12, 28), date(2026, 12, 31)),
        (date(2027, 1, 1), date(2027, 1, 1), date(2027, 1, 3)),
        (date(2026, 7, 1), date(2026, 7, 1), date(2026, 7, 5)),
        (date(2026, 6, 30), date(2026, 6, 29), date(2026, 6, 30)),
        (date(1970, 1, 1), date(1970, 1, 1), date(1970, 1, 4)),
    ],
)
def test_a_period_is_a_week_cut_at_the_quarter(day, first, last):
    assert as_date(first_day(as_day(day))) == first
    assert as_date(last_day(as_day(first))) == last


def test_periods_follow_each_other_without_gap_or_overlap():
    day, end = as_day(date(2019, 12, 30)), as_day(date(2029, 1, 1))
    while day < end:
        last = last_day(day)
        assert all(first_day(within) == day for within in range(day, last + 1))
        assert quarter_start(as_date(day)) == quarter_start(as_date(last))
        assert last - day < 7
        day = last + 1
        assert first_day(day) == day
    assert timedelta(days=day - end) < timedelta(days=7)
