"""How much a reviewer has done today, and for how long without a pause. Read from the log of actions."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from federation_audit.accounts.tables import ACTIONS
from federation_audit.reviewing.settings import ReviewSettings
from schemas.topics import DAY_MS, MINUTE_MS

GIVEN = "review given"
PUT_OFF = "break put off"
PAUSE_MS = 5 * MINUTE_MS
"""Without an answer for so long, somebody has had a pause."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`done` answers today of `cap`; `stretch_ms` is how long they have gone on since their last pause, 0 in one."""

    done: int
    cap: int
    stretch_ms: int
    break_due: bool

    @property
    def left(self) -> int:
        """How many answers are left today."""
        return max(0, self.cap - self.done)


def read_pace(connection: Connection, reviewer: str, settings: ReviewSettings, now: int) -> Pace:
    """A reviewer's pace at `now`. An answer that was undone counts: it was work all the same."""
    mine = (ACTIONS.c.who == reviewer, ACTIONS.c.at <= now)
    today = ACTIONS.c.at >= now - now % DAY_MS
    given = select(func.count()).select_from(ACTIONS).where(*mine, today, ACTIONS.c.what == GIVEN)
    break_ms = settings.break_after_min * MINUTE_MS
    stretch = _stretch(connection, reviewer, now)
    return Pace(connection.execute(given).scalar_one(), settings.daily_cap, stretch, stretch >= break_ms)


def _stretch(connection: Connection, reviewer: str, now: int) -> int:
    """From the first answer after the last pause, or from when a break was put off, until now."""
    query = (
        select(ACTIONS.c.at, ACTIONS.c.what)
        .where(ACTIONS.c.who == reviewer, ACTIONS.c.what.in_((GIVEN, PUT_OFF)))
        .where(ACTIONS.c.at <= now, ACTIONS.c.at > now - DAY_MS)
        .order_by(ACTIONS.c.at.desc(), ACTIONS.c.id.desc())
    )
    began = now
    for at, what in connection.execute(query):
        if began - at >= PAUSE_MS:
            break
        began = at
        if what == PUT_OFF:
            break
    return now - began
