"""What waits for people: rows to review, recommendations to decide on, decisions that end."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from federation_audit.assessing.assessor import Assessed
from federation_audit.deciding.tables import DECISIONS
from federation_audit.reviewing.queue import count_waiting
from federation_audit.statistics.levels import Level
from schemas.topics import DAY_MS

SOON_MS = 14 * DAY_MS
"""A decision that ends within this time is said to end soon."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A decision that holds: nobody ended it. `until`: when it expires (ms), None where it does not."""

    domain: str
    action: str
    until: int | None

    def has_expired(self, now: int) -> bool:
        """Whether its time is over, so that somebody has to decide again."""
        return self.until is not None and self.until <= now


@dataclass(frozen=True, slots=True)
class Waiting:
    """`reviews`: rows of the review queue; `recommended`: instances that a person has not decided on;
    `ending`, `ended`: decisions that expire soon, or have."""

    reviews: int
    recommended: tuple[str, ...]
    ending: tuple[InForce, ...]
    ended: tuple[InForce, ...]


def read_waiting(
    connection: Connection, assessed: Assessed, now: int, *, verified_lists: Collection[str] = ()
) -> Waiting:
    """What waits at `now`; for review as the queue counts it, which leaves hits of `verified_lists` out."""
    decisions = read_decisions(connection)
    recommended = [
        each.instance
        for each in assessed.assessment
        if each.level is Level.RECOMMEND and ((held := decisions.get(each.instance)) is None or held.has_expired(now))
    ]
    timed = sorted(
        (each for each in decisions.values() if each.until is not None), key=lambda each: (each.until, each.domain)
    )
    return Waiting(
        reviews=count_waiting(connection, verified_lists=verified_lists),
        recommended=tuple(sorted(recommended)),
        ending=tuple(each for each in timed if not each.has_expired(now) and (each.until or 0) <= now + SOON_MS),
        ended=tuple(each for each in timed if each.has_expired(now)),
    )


def read_decisions(connection: Connection) -> dict[str, InForce]:
    """The decision on each domain that nobody ended, expired or not; the newest where there are several."""
    query = select(DECISIONS).where(DECISIONS.c.ended_at.is_(None)).order_by(DECISIONS.c.decided_at, DECISIONS.c.id)
    return {row.domain: InForce(row.domain, row.action, row.until) for row in connection.execute(query)}
