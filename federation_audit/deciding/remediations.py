"""That an instance has cleaned up: what was until that day no longer counts against it."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, delete, insert, select

from federation_audit.accounts.actions import Actor, record
from federation_audit.deciding.errors import NotDecided, NotThere
from federation_audit.deciding.letters import check_day
from federation_audit.deciding.tables import REMEDIATIONS
from federation_audit.store.periods import as_date, as_day
from schemas.domains import normalise_domain


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """One time that an instance cleaned up."""

    id: int
    domain: str
    day: date
    by: str
    at: int


def write_down_cleanup(connection: Connection, actor: Actor, domain: str, *, day: date, at: int) -> None:
    """Keep that `domain` cleaned up on `day` (UTC). Raises `NotDecided`, and `NotADomain`."""
    name = normalise_domain(domain)
    check_day(day, at, "day")
    if any(each.day == day for each in cleanups_of(connection, name)):
        raise NotDecided(f"That it cleaned up on {day} is written down already.", "day")
    connection.execute(insert(REMEDIATIONS).values(domain=name, day=as_day(day), noted_by=actor.name[:64], noted_at=at))
    record(connection, actor, "cleanup noted", about=name, at=at, detail={"day": day.isoformat()})


def take_back_cleanup(connection: Connection, actor: Actor, domain: str, number: int, *, at: int) -> None:
    """Take it back: what was until then counts again. Raises `NotThere`."""
    found = next((each for each in cleanups_of(connection, domain) if each.id == number), None)
    if found is None:
        raise NotThere("This is not written down any more; reload the page.")
    connection.execute(delete(REMEDIATIONS).where(REMEDIATIONS.c.id == number))
    record(connection, actor, "cleanup taken back", about=found.domain, at=at, detail={"day": found.day.isoformat()})


def cleanups_of(connection: Connection, domain: str) -> list[CleanedUp]:
    """When `domain` cleaned up, the latest first."""
    query = select(REMEDIATIONS).where(REMEDIATIONS.c.domain == domain)
    return [
        CleanedUp(row.id, row.domain, as_date(row.day), row.noted_by, row.noted_at)
        for row in connection.execute(query.order_by(REMEDIATIONS.c.day.desc(), REMEDIATIONS.c.id.desc()))
    ]
