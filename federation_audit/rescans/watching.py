"""Looks every few seconds how far the rescan at work is, so that nobody who looks at a page asks Kafka.

Which one is at work the store says. How far it is comes from what its group has committed: the same for every onlooker.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from federation_audit.accounts.database import Database
from federation_audit.store.errors import StoreError
from federation_audit.store.rescans import read_running
from schemas.broker import BrokerError, BrokerSettings
from schemas.messages import RescanOrdered
from schemas.rescan_progress import Meter, Progress, read_progress

log = structlog.get_logger("federation_audit.rescans")

LOOK_EVERY_S: Final = 5.0
IDLE_AFTER_MS: Final = 60_000
"""A rescan that has not moved for so long is worked on by nobody."""

_ANSWER_WITHIN_S: Final = 20.0

ReadProgress = Callable[[BrokerSettings, RescanOrdered], Awaitable[Progress]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen last of a rescan at work. `progress` is None where Kafka has not told yet.

    `since` is when it was first seen, `moved_at` when it was last seen to have moved (None: never), both in
    milliseconds since the epoch; `fault` is why Kafka did not tell at the last look, "" where it did.
    """

    job: RescanOrdered
    progress: Progress | None = None
    since: int = 0
    moved_at: int | None = None
    fault: str = ""

    def is_worked_on(self, at_ms: int) -> bool | None:
        """Whether it moved within the last minute; None where that is not known: nobody has looked for so long, or
        Kafka does not tell."""
        if self.progress is None or at_ms - self.progress.at_ms >= IDLE_AFTER_MS:
            return None
        if self.moved_at is not None and at_ms - self.moved_at < IDLE_AFTER_MS:
            return True
        return False if self.progress.at_ms - self.since >= IDLE_AFTER_MS else None


class RescanWatch:
    """Sees the rescan at work while `run` runs. `seen` is None while none is at work, or nobody has looked."""

    def __init__(self, database: Database, broker: BrokerSettings, *, read: ReadProgress = read_progress) -> None:
        self._database = database
        self._broker = broker
        self._read = read
        self._meter = Meter()
        self.seen: Seen | None = None

    def seen_of(self, rescan: str) -> Seen | None:
        """What was seen last of this rescan."""
        seen = self.seen
        return seen if seen is not None and seen.job.rescan == rescan else None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once. A store or a Kafka that is away is said in what is seen, or in the log."""
        try:
            job = await asyncio.to_thread(self._find)
        except StoreError as error:
            log.warning("rescans unknown", error=str(error))
            return
        if job is None:
            self.seen = None
            return
        before = self.seen_of(job.rescan)
        if before is None:
            self._meter = Meter()
            before = Seen(job)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                progress = await self._read(self._broker, job)
        except (BrokerError, TimeoutError) as error:
            fault = str(error) or "Kafka did not answer in time"
            if not before.fault:
                log.warning("progress unknown", rescan=job.rescan, error=fault)
            self.seen = replace(before, job=job, fault=fault)
            return
        last = before.progress
        moved = last is not None and progress.done != last.done
        self.seen = Seen(
            job,
            self._meter.note(progress),
            progress.at_ms if last is None else before.since,
            progress.at_ms if moved else before.moved_at,
        )

    def _find(self) -> RescanOrdered | None:
        with self._database.reading() as connection:
            return read_running(connection)
