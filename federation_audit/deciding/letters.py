"""Letters to the admins of an instance, and whether they answered: no answer within a week weighs in the evidence."""

from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import Connection, insert, select, update

from federation_audit.accounts.actions import Actor, record
from federation_audit.deciding.errors import NotDecided, NotThere
from federation_audit.deciding.tables import LETTERS
from federation_audit.deciding.texts import entered
from federation_audit.store.periods import as_date, as_day
from schemas.domains import normalise_domain
from schemas.topics import DAY_MS

WAY_MOST: Final = 300


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter: the day it was sent (UTC), by what way, and the day of the answer; None: none has come."""

    id: int
    domain: str
    sent: date
    answered: date | None
    way: str
    by: str
    at: int


def write_down_letter(connection: Connection, actor: Actor, domain: str, way: str, *, sent: date, at: int) -> None:
    """Keep that its admins were written to. Raises `NotDecided`, and `NotADomain`."""
    name, kept = normalise_domain(domain), entered(way, "a way, such as mail to abuse@…", most=WAY_MOST, field="way")
    check_day(sent, at, "sent")
    connection.execute(
        insert(LETTERS).values(
            domain=name, sent_day=as_day(sent), answered_day=None, way=kept, noted_by=actor.name[:64], noted_at=at
        )
    )
    record(connection, actor, "letter noted", about=name, at=at, detail={"sent": sent.isoformat(), "way": kept})


def write_down_answer(connection: Connection, actor: Actor, domain: str, number: int, *, day: date, at: int) -> None:
    """Keep that a letter to `domain` was answered. Raises `NotThere`, `NotDecided`."""
    letter = next((each for each in letters_of(connection, domain) if each.id == number), None)
    if letter is None:
        raise NotThere("There is no such letter; reload the page.")
    check_day(day, at, "answered")
    if day < letter.sent:
        raise NotDecided(f"It was sent on {letter.sent}: an answer cannot have come before.", "answered")
    connection.execute(update(LETTERS).where(LETTERS.c.id == number).values(answered_day=as_day(day)))
    record(
        connection,
        actor,
        "answer noted",
        about=letter.domain,
        at=at,
        detail={"sent": letter.sent.isoformat(), "answered": day.isoformat()},
    )


def letters_of(connection: Connection, domain: str) -> list[Letter]:
    """The letters to the admins of `domain`, the latest first."""
    query = select(LETTERS).where(LETTERS.c.domain == domain)
    return [
        Letter(
            row.id,
            row.domain,
            as_date(row.sent_day),
            None if row.answered_day is None else as_date(row.answered_day),
            row.way,
            row.noted_by,
            row.noted_at,
        )
        for row in connection.execute(query.order_by(LETTERS.c.sent_day.desc(), LETTERS.c.id.desc()))
    ]


def check_day(day: date, at: int, field: str) -> None:
    """Return when `day` has begun somewhere on Earth at `at`. Raises `NotDecided`."""
    if as_day(day) > at // DAY_MS + 1:
        raise NotDecided(f"{day} is yet to come.", field)
    if day.year < 2000:
        raise NotDecided(f"{day} is too long ago.", field)
