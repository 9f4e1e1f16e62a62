"""Looks at posts that are due, a few instances at a time.

A look is written down before it is made: whoever ends in between has asked at most once, and the next one keeps the
distance that this one owed. What came out is written after it; where that fails, the post is asked for again later, as
after a look that told nothing.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection
from typing import Any

import structlog
from sqlalchemy import Row, func, select, update

from federation_audit.cases import Presence
from federation_audit.presence.asking import Answer, ask
from federation_audit.presence.posts import update_watched
from federation_audit.presence.schedule import next_look, next_try
from federation_audit.presence.settings import PresenceSettings
from federation_audit.presence.tables import PRESENCES
from federation_audit.store.engine import Store
from schemas.clock import now_ms
from schemas.topics import DAY_MS

log = structlog.get_logger("federation_audit.presence")

UPDATE_EVERY_MS = 300_000
_IDLE_MS = 30_000


class Looker:
    """Give it turns. Each raises `StoreError` where the database does not answer; the next goes on from there."""

    def __init__(
        self,
        settings: PresenceSettings,
        store: Store,
        *,
        verified_lists: Collection[str] = (),
        now: Callable[[], int] = now_ms,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._verified_lists = frozenset(verified_lists)
        self._now = now
        self._tls = tls
        self._limits = settings.limits
        self._between_ms = int(settings.between_s * 1000)
        self._updated_at: int | None = None

    async def turn(self) -> float:
        """Take up new posts where that is due, and make one look at each of a few instances; the seconds to wait."""
        now = self._now()
        if self._updated_at is None or not 0 <= now - self._updated_at < UPDATE_EVERY_MS:
            new = await asyncio.to_thread(
                update_watched,
                self._store,
                self._verified_lists,
                now=now,
                waiting_most=self._settings.waiting_posts,
            )
            if new:
                log.info("posts_watched", new=new)
            self._updated_at = now
        claimed, wait_ms = await asyncio.to_thread(self._claim, now)
        answers = await asyncio.gather(
            *(ask(row.post_url, row.domain, self._limits, now=now, tls=self._tls) for row in claimed)
        )
        if claimed:
            await asyncio.to_thread(self._note, list(zip(claimed, answers, strict=True)))
            for row, answer in zip(claimed, answers, strict=True):
                log.info("post_looked_at", domain=row.domain, state=answer.presence.value, because=answer.because)
        return wait_ms / 1000

    def _claim(self, now: int) -> tuple[list[Row[Any]], int]:
        """The posts that are looked at now, written down as asked for; and how long to wait after that, in ms."""
        with self._store.reading() as connection:
            due = (
                select(PRESENCES.c.domain, func.min(PRESENCES.c.next_at).label("since"))
                .where(PRESENCES.c.next_at <= now)
                .group_by(PRESENCES.c.domain)
                .subquery()
            )
            asked = (
                select(PRESENCES.c.domain, func.max(PRESENCES.c.asked_at).label("asked_at"))
                .where(PRESENCES.c.domain.in_(select(due.c.domain)))
                .group_by(PRESENCES.c.domain)
                .subquery()
            )
            query = select(due.c.domain, due.c.since, asked.c.asked_at).join(asked, asked.c.domain == due.c.domain)
            waiting = connection.execute(query.order_by(due.c.since, due.c.domain)).all()
            # A last question in the future is one from before the clock was set back.
            free = [row for row in waiting if row.asked_at is None or not -1 < now - row.asked_at < self._between_ms]
            posts = [
                connection.execute(
                    select(PRESENCES)
                    .where(PRESENCES.c.domain == row.domain, PRESENCES.c.next_at <= now)
                    .order_by(PRESENCES.c.next_at, PRESENCES.c.digest)
                    .limit(1)
                ).one()
                for row in free[: self._settings.instances_at_once]
            ]
        if not posts:
            return [], min(_IDLE_MS, self._between_ms) if waiting else _IDLE_MS
        claimed = []
        with self._store.writing() as connection:
            for row in posts:
                mine = (PRESENCES.c.digest == row.digest, PRESENCES.c.looks == row.looks)
                values = {"looks": row.looks + 1, "asked_at": now, "next_at": next_try(row.known_at, now)}
                if connection.execute(update(PRESENCES).where(*mine).values(values)).rowcount:
                    claimed.append(row)
        return claimed, 0 if len(free) > len(posts) else 1_000

    def _note(self, looked: list[tuple[Row[Any], Answer]]) -> None:
        now = self._now()
        with self._store.writing() as connection:
            for row, answer in looked:
                values = _outcome(row, answer, now)
                here = (PRESENCES.c.digest == row.digest, PRESENCES.c.looks == row.looks + 1)
                connection.execute(update(PRESENCES).where(*here).values(values))
                if answer.wait_ms:
                    until = now + answer.wait_ms
                    others = (PRESENCES.c.domain == row.domain, PRESENCES.c.next_at < until)
                    connection.execute(update(PRESENCES).where(*others).values(next_at=until))


def _outcome(row: Row[Any], answer: Answer, now: int) -> dict[str, Any]:
    """What a look changes. A look that told nothing leaves what an earlier one found."""
    if answer.presence is Presence.UNKNOWN:
        return {"next_at": next_try(row.known_at, now)}
    if answer.presence is Presence.UP:
        return {
            "state": answer.presence.value,
            "looked_at": now,
            "gone_at": None,
            "next_at": next_look(row.known_at, now),
        }
    found_before = row.state == Presence.GONE.value
    return {
        "state": answer.presence.value,
        "looked_at": now,
        "gone_at": row.gone_at if found_before else now,
        "next_at": None if answer.final or found_before else now + DAY_MS,
    }
