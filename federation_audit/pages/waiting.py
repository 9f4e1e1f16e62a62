"""What waits for people: images to review, recommendations to decide on, decisions that end."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, tuple_

from federation_audit.assessing.assessor import Assessed
from federation_audit.deciding.tables import DECISIONS
from federation_audit.reviewing.outcomes import Outcome, read_reviewed
from federation_audit.statistics.levels import Level
from federation_audit.store.rows import chunks
from federation_audit.store.tables import FLAGS, MEDIA, TEXTS
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
    """`reviews`: flagged images without a settled outcome; `recommended`: instances that a person has not decided on;
    `ending`, `ended`: decisions that expire soon, or have."""

    reviews: int
    recommended: tuple[str, ...]
    ending: tuple[InForce, ...]
    ended: tuple[InForce, ...]


def read_waiting(connection: Connection, assessed: Assessed, now: int) -> Waiting:
    """What waits at `now`."""
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
        reviews=_count_reviews(connection),
        recommended=tuple(sorted(recommended)),
        ending=tuple(each for each in timed if not each.has_expired(now) and (each.until or 0) <= now + SOON_MS),
        ended=tuple(each for each in timed if each.has_expired(now)),
    )


def read_decisions(connection: Connection) -> dict[str, InForce]:
    """The decision on each domain that nobody ended, expired or not; the newest where there are several."""
    query = select(DECISIONS).where(DECISIONS.c.ended_at.is_(None)).order_by(DECISIONS.c.decided_at, DECISIONS.c.id)
    return {row.domain: InForce(row.domain, row.action, row.until) for row in connection.execute(query)}


def _count_reviews(connection: Connection) -> int:
    """Media flagged now that are neither confirmed nor dismissed."""
    flagged = connection.execute(select(func.count()).where(FLAGS.c.now == 1)).scalar_one()
    settled = [
        key for key, each in read_reviewed(connection).items() if each.outcome in (Outcome.CONFIRMED, Outcome.DISMISSED)
    ]
    done = 0
    for chunk in chunks(settled, 200):
        query = (
            select(func.count())
            .select_from(MEDIA)
            .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
            .join(FLAGS, FLAGS.c.media_id == MEDIA.c.id)
            .where(FLAGS.c.now == 1, tuple_(TEXTS.c.text, MEDIA.c.sha256).in_(list(chunk)))
        )
        done += connection.execute(query).scalar_one()
    return int(flagged) - done
