"""Decisions: a person's, with a reason and mostly an end; at most one of an instance is in force.

One that has come to its end is *due*: it binds nobody any more, and stays on the list until somebody decides anew or
lets it go. Times are milliseconds since the Unix epoch; every change is in the log of actions, in its transaction.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from federation_audit import cases
from federation_audit.accounts.actions import Actor, record
from federation_audit.cases import Action, Level
from federation_audit.deciding.errors import DecidedMeanwhile, NotDecided, NotThere
from federation_audit.deciding.tables import DECISIONS
from federation_audit.deciding.texts import entered
from schemas.domains import normalise_domain
from schemas.topics import DAY_MS

DEFAULT_DAYS: Final = 90
DAYS_MOST: Final = 366
EXPIRING_DAYS: Final = 14
REASON_MOST: Final = 2_000
ANY: Final = -1
"""Given as `instead_of`: whatever is in force is replaced."""


class State(StrEnum):
    """Where a decision stands. expiring: in force, and about to end; due: it has ended by itself, and waits for a
    person; over: it was replaced or withdrawn."""

    IN_FORCE = "in force"
    EXPIRING = "expiring"
    DUE = "due"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Taken:
    """A decision as it was taken. `level` is that of the evidence then; `until` None: it has no end."""

    id: int
    domain: str
    action: Action
    reason: str
    level: Level
    by: str
    at: int
    until: int | None
    ended_at: int | None

    def state(self, now: int, *, expiring_days: int = EXPIRING_DAYS) -> State:
        """Where it stands at `now`."""
        if self.ended_at is not None:
            return State.OVER
        if self.until is None:
            return State.IN_FORCE
        if self.until <= now:
            return State.DUE
        return State.EXPIRING if self.until - now <= expiring_days * DAY_MS else State.IN_FORCE

    def binds(self, now: int) -> bool:
        """Whether it is in force at `now`."""
        return self.state(now) in (State.IN_FORCE, State.EXPIRING)

    def for_case(self) -> cases.Decision:
        """The same, as reports and exports take it."""
        until = None if self.until is None else _moment(self.until)
        return cases.Decision(self.domain, self.action, self.reason, self.by, _moment(self.at), until)


def decide(
    connection: Connection,
    actor: Actor,
    domain: str,
    action: Action,
    reason: str,
    *,
    level: Level,
    days: int | None,
    at: int,
    instead_of: int | None = ANY,
) -> Taken:
    """Take a decision for `days` from now; None: without an end. It replaces the one in force, or due.

    `instead_of` is the id of the decision that the person has seen (None: that there is none), so that nobody replaces
    what they do not know of. Blocks, and whatever is decided on a recommendation (level 2 and more), need an end.
    Raises `NotDecided`, and `NotADomain`.
    """
    name = normalise_domain(domain)
    why = entered(reason, "a reason", most=REASON_MOST, field="reason")
    if days is None and (level >= Level.RESTRICT or action in (Action.RESTRICT_MEDIA, Action.DEFEDERATE)):
        raise NotDecided(f"Say for how many days, such as {DEFAULT_DAYS}: then it comes back to be looked at.", "days")
    if days is not None and not 1 <= days <= DAYS_MOST:
        raise NotDecided(f"A decision holds for 1 to {DAYS_MOST} days; then it comes back to be looked at.", "days")
    before = open_decision(connection, name)
    if instead_of != ANY and instead_of != (None if before is None else before.id):
        raise _meanwhile(name, before)
    if before is not None:
        _end(connection, before, at)
    values: dict[str, Any] = {
        "domain": name,
        "action": action.value,
        "reason": why,
        "level": int(level),
        "decided_by": actor.name[:64],
        "decided_at": at,
        "until": None if days is None else at + days * DAY_MS,
        "ended_at": None,
    }
    try:
        made = connection.execute(insert(DECISIONS).values(values).returning(DECISIONS.c.id)).scalar_one()
    except IntegrityError as error:  # two at the same moment: the index lets one pass
        raise _meanwhile(name, None) from error
    detail = {"action": action.value, "reason": why, "level": int(level), "days": days}
    if before is not None:
        detail["instead of"] = before.action.value
    record(connection, actor, "decided", about=name, at=at, detail=detail)
    return _taken(connection.execute(select(DECISIONS).where(DECISIONS.c.id == made)).one())


def withdraw(connection: Connection, actor: Actor, number: int, *, of: str, at: int) -> Taken:
    """End a decision on the domain `of` before its time, or let go one that is due. Raises `NotThere`."""
    query = select(DECISIONS).where(DECISIONS.c.id == number, DECISIONS.c.domain == of)
    row = connection.execute(query).one_or_none()
    taken = None if row is None else _taken(row)
    if taken is None or taken.ended_at is not None or not _end(connection, taken, at):
        raise NotThere("This decision is over already; reload the page.")
    what = "decision withdrawn" if taken.binds(at) else "decision let go"
    record(connection, actor, what, about=taken.domain, at=at, detail={"action": taken.action.value})
    return taken


def open_decision(connection: Connection, domain: str) -> Taken | None:
    """The decision of `domain` that is in force or due; None where there is none."""
    query = select(DECISIONS).where(DECISIONS.c.domain == domain, DECISIONS.c.ended_at.is_(None))
    row = connection.execute(query).one_or_none()
    return None if row is None else _taken(row)


def decision_in_force(connection: Connection, domain: str, at: int) -> Taken | None:
    """The decision of `domain` that is in force at `at`."""
    taken = open_decision(connection, domain)
    return taken if taken is not None and taken.binds(at) else None


def open_decisions(connection: Connection) -> list[Taken]:
    """Every decision that is in force or due, by domain."""
    query = select(DECISIONS).where(DECISIONS.c.ended_at.is_(None)).order_by(DECISIONS.c.domain)
    return [_taken(row) for row in connection.execute(query)]


def decisions_in_force(connection: Connection, at: int) -> list[Taken]:
    """Every decision that is in force at `at`, by domain."""
    return [each for each in open_decisions(connection) if each.binds(at)]


def decisions_expiring(connection: Connection, at: int, *, days: int = EXPIRING_DAYS) -> list[Taken]:
    """Those in force that end within `days`, the next first."""
    found = [each for each in open_decisions(connection) if each.state(at, expiring_days=days) is State.EXPIRING]
    return sorted(found, key=lambda each: each.until or 0)


def decisions_due(connection: Connection, at: int) -> list[Taken]:
    """Those that have come to their end and wait for a person, the longest first."""
    found = [each for each in open_decisions(connection) if each.state(at) is State.DUE]
    return sorted(found, key=lambda each: each.until or 0)


def decisions_of(connection: Connection, domain: str) -> list[Taken]:
    """Every decision ever taken on `domain`, the latest first."""
    query = select(DECISIONS).where(DECISIONS.c.domain == domain).order_by(DECISIONS.c.id.desc())
    return [_taken(row) for row in connection.execute(query)]


def every_decision(connection: Connection) -> list[Taken]:
    """Every decision ever taken, the latest first."""
    return [_taken(row) for row in connection.execute(select(DECISIONS).order_by(DECISIONS.c.id.desc()))]


def _end(connection: Connection, taken: Taken, at: int) -> bool:
    """End it, unless somebody else just did. What was due stays over since its own end."""
    ending = update(DECISIONS).where(DECISIONS.c.id == taken.id, DECISIONS.c.ended_at.is_(None))
    return connection.execute(ending.values(ended_at=at)).rowcount == 1


def _meanwhile(domain: str, now: Taken | None) -> DecidedMeanwhile:
    said = "somebody else changed the decision" if now is None else f"{now.by} decided “{now.action.value}”"
    return DecidedMeanwhile(f"Nothing was written: {said} on {domain} since you opened the page. Look at it again.")


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)


def _taken(row: Any) -> Taken:
    return Taken(
        id=row.id,
        domain=row.domain,
        action=Action(row.action),
        reason=row.reason,
        level=Level(row.level),
        by=row.decided_by,
        at=row.decided_at,
        until=row.until,
        ended_at=row.ended_at,
    )
