"""Notes: what people want to remember about an instance. They are never changed; a mistake is another note."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from federation_audit.accounts.actions import Actor, record
from federation_audit.deciding.tables import NOTES
from federation_audit.deciding.texts import entered
from schemas.domains import normalise_domain

NOTE_MOST: Final = 5_000


@dataclass(frozen=True, slots=True)
class Note:
    """One note."""

    id: int
    domain: str
    text: str
    by: str
    at: int


def note(connection: Connection, actor: Actor, domain: str, text: str, *, at: int) -> None:
    """Keep a note. Raises `NotDecided`, and `NotADomain`."""
    name, kept = normalise_domain(domain), entered(text, "a note", most=NOTE_MOST, field="text")
    connection.execute(insert(NOTES).values(domain=name, text=kept, noted_by=actor.name[:64], noted_at=at))
    record(connection, actor, "noted", about=name, at=at, detail={"characters": len(kept)})


def notes_of(connection: Connection, domain: str) -> list[Note]:
    """The notes about `domain`, the latest first."""
    query = select(NOTES).where(NOTES.c.domain == domain).order_by(NOTES.c.id.desc())
    return [Note(row.id, row.domain, row.text, row.noted_by, row.noted_at) for row in connection.execute(query)]
