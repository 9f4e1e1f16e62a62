"""The journal of what was sent, in the audit's store: an entry before anything leaves, and what came of it after.

An entry that was begun and never finished stands for a process that died in between: nobody knows whether it left, so
that its outcome is unknown for good. A digest is begun once: who confirms the same thing twice sends it once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.database import Database
from federation_audit.neutralising import one_line
from federation_audit.sending.confirming import Channel, Confirmation, Outcome, Plan, Sent
from federation_audit.sending.errors import NotConfirmed
from federation_audit.sending.tables import JOURNAL
from schemas.clock import now_ms

ABANDONED: Final = "abandoned"
"""The outcome of what was begun, and did not leave after all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `domain` is '' where many instances are in it; `outcome` an `Outcome`, or `ABANDONED`."""

    digest: str
    domain: str
    channel: Channel
    to: str
    request: str
    payload: dict[str, Any]
    changes: tuple[str, ...]
    confirmed_by: str
    confirmed_at: int
    begun_at: int
    finished_at: int | None
    outcome: str
    status: int | None
    answer: str

    @property
    def is_interrupted(self) -> bool:
        """Whether nobody knows what came of it, as it was never finished (or is being sent right now)."""
        return self.finished_at is None


class StoreJournal:
    """The journal for what is sent about `domain` ('' for many). `then` runs in the transaction of the last entry."""

    def __init__(
        self,
        database: Database,
        actor: Actor,
        domain: str,
        *,
        then: Callable[[Connection, Sent, int], None] | None = None,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._database = database
        self._actor = actor
        self._domain = domain
        self._then = then
        self._now = now

    async def begin(self, plan: Plan, confirmation: Confirmation) -> None:
        """Note, on disk, that this is about to be sent. Raises `NotConfirmed` when it was begun before."""
        await asyncio.to_thread(self._begin, plan, confirmation)

    async def finish(self, record: Sent) -> None:
        """Note what came of it."""
        await asyncio.to_thread(self._finish, record)

    async def abandon(self, plan: Plan) -> None:
        """Note that nothing was sent after all."""
        await asyncio.to_thread(self._abandon, plan)

    def _begin(self, plan: Plan, confirmation: Confirmation) -> None:
        at = self._now()
        try:
            with self._database.writing(durably=True) as connection:
                connection.execute(
                    insert(JOURNAL).values(
                        digest=plan.digest,
                        domain=self._domain,
                        channel=plan.channel.value,
                        recipient=plan.to,
                        request=plan.request,
                        payload=orjson.dumps(plan.payload).decode(),
                        changes=orjson.dumps(list(plan.changes)).decode(),
                        confirmed_by=confirmation.by,
                        confirmed_at=round(confirmation.at.timestamp() * 1000),
                        begun_at=at,
                        finished_at=None,
                        outcome=Outcome.UNKNOWN.value,
                        status=None,
                        answer="",
                    )
                )
                record(connection, self._actor, "sending begun", about=self._domain, at=at, detail=_named(plan))
        except IntegrityError as error:
            raise NotConfirmed(
                "this was confirmed and sent before; one confirmation is good for one sending"
            ) from error

    def _finish(self, sent: Sent) -> None:
        at = self._now()
        with self._database.writing(durably=True) as connection:
            connection.execute(
                update(JOURNAL)
                .where(JOURNAL.c.digest == sent.digest)
                .values(finished_at=at, outcome=sent.outcome.value, status=sent.status, answer=sent.answer)
            )
            detail = _named(sent) | {"outcome": sent.outcome.value}
            record(connection, self._actor, "sent", about=self._domain, at=at, detail=detail)
            if self._then is not None:
                self._then(connection, sent, at)

    def _abandon(self, plan: Plan) -> None:
        at = self._now()
        with self._database.writing() as connection:
            connection.execute(
                update(JOURNAL)
                .where(JOURNAL.c.digest == plan.digest)
                .values(finished_at=at, outcome=ABANDONED, answer="nothing was sent")
            )
            record(connection, self._actor, "not sent after all", about=self._domain, at=at, detail=_named(plan))


def entry_of(connection: Connection, digest: str) -> Entry | None:
    """The entry with this digest."""
    row = connection.execute(select(JOURNAL).where(JOURNAL.c.digest == digest)).one_or_none()
    return None if row is None else as_entry(row)


def entries_about(connection: Connection, domain: str) -> list[Entry]:
    """What was sent about `domain`, the latest first."""
    query = select(JOURNAL).where(JOURNAL.c.domain == domain).order_by(JOURNAL.c.begun_at.desc(), JOURNAL.c.digest)
    return [as_entry(row) for row in connection.execute(query)]


def as_entry(row: Any) -> Entry:
    """A row of the table as an entry."""
    return Entry(
        digest=row.digest,
        domain=row.domain,
        channel=Channel(row.channel),
        to=row.recipient,
        request=row.request,
        payload=orjson.loads(row.payload),
        changes=tuple(orjson.loads(row.changes)),
        confirmed_by=row.confirmed_by,
        confirmed_at=row.confirmed_at,
        begun_at=row.begun_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        status=row.status,
        answer=row.answer,
    )


def _named(what: Plan | Sent) -> dict[str, Any]:
    return {"by": what.channel.value, "to": one_line(what.to, 300), "digest": what.digest}
