"""When a post is looked at again. Times and durations are in milliseconds."""

from typing import Final

from schemas.topics import DAY_MS

HOUR_MS: Final = 3_600_000
LOOKS_MS: Final = (HOUR_MS, 6 * HOUR_MS, DAY_MS, 3 * DAY_MS, 7 * DAY_MS, 14 * DAY_MS)
"""Ages at which a post is looked at. Of those that went by before anybody knew that it was to be, one look is made."""

WATCHED_MS: Final = LOOKS_MS[-1]
GIVEN_UP_MS: Final = 21 * DAY_MS
"""The age up to which a last look that told nothing is tried again."""


def first_look(known_at: int) -> int:
    """When a post is due that was never looked at."""
    return known_at + LOOKS_MS[0]


def next_look(known_at: int, now: int) -> int | None:
    """When it is looked at after `now`; None: no more."""
    return next((known_at + age for age in LOOKS_MS if known_at + age > now), None)


def next_try(known_at: int, now: int) -> int | None:
    """When it is looked at after a look that told nothing: after an hour, the older the post the later, and not after
    the next look; None: no more."""
    age = now - known_at
    retry = now + max(HOUR_MS, age // 4)
    due = next_look(known_at, now)
    if due is not None:
        return min(due, retry)
    return retry if age < GIVEN_UP_MS else None
