"""Periods that exposure is counted in: ISO weeks, cut where a quarter begins. Days are since the epoch (UTC)."""

from datetime import date
from functools import lru_cache

EPOCH = date(1970, 1, 1).toordinal()
"""Day 0 as `date.toordinal` counts."""

_DAYS = 7


@lru_cache(maxsize=4_096)
def first_day(day: int) -> int:
    """The first day of the period that `day` is in."""
    at = date.fromordinal(EPOCH + day)
    monday = day - at.weekday()
    return max(monday, _quarter(at).toordinal() - EPOCH)


@lru_cache(maxsize=4_096)
def last_day(first: int) -> int:
    """The last day of the period that begins on `first`."""
    at = date.fromordinal(EPOCH + first)
    sunday = first - at.weekday() + _DAYS - 1
    following = date(at.year + (at.month > 9), (_quarter(at).month + 3 - 1) % 12 + 1, 1)
    return min(sunday, following.toordinal() - EPOCH - 1)


def as_date(day: int) -> date:
    """A day since the epoch as a date."""
    return date.fromordinal(EPOCH + day)


def as_day(at: date) -> int:
    """A date as a day since the epoch."""
    return at.toordinal() - EPOCH


def _quarter(at: date) -> date:
    return date(at.year, (at.month - 1) // 3 * 3 + 1, 1)
