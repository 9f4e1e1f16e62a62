"""Looks for one tenant's images in its Lemmy, as they become due, and publishes where they are."""

import asyncio
import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from itertools import islice

import structlog

from federation_audit.lemmy.database import LemmyDatabase, Sought
from federation_audit.lemmy.errors import DatabaseAway, LemmyDatabaseError
from federation_audit.lemmy.links import Links
from federation_audit.lemmy.metrics import LemmyMetrics
from federation_audit.lemmy.places import make_origin
from federation_audit.lemmy.queries import Row
from federation_audit.lemmy.schedule import Case, Schedule
from federation_audit.lemmy.settings import LemmySettings
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.messages import OriginObserved
from schemas.pseudonyms import Pseudonyms

log = structlog.get_logger("federation_audit.lemmy")

_BATCH = 500
_SWEEP_BATCH = 10_000
_PACE_S = 1.0  # what becomes due meanwhile is asked for together
_RETRY_FIRST_S = 1.0
_REPORT_EVERY_S = 60.0
_PUBLISHED_MOST = 100_000


class Looker:
    """The looks of one tenant. `add` what was seen; `run` looks until cancelled.

    `done` is told each record whose image has been looked for to the end. `publish` returns when Kafka has the origin.
    """

    def __init__(
        self,
        tenant: str,
        database: LemmyDatabase,
        settings: LemmySettings,
        *,
        links: Links,
        pseudonyms: Pseudonyms,
        publish: Callable[[OriginObserved], Awaitable[None]],
        done: Callable[[Received], None],
        observer: str,
        metrics: LemmyMetrics | None = None,
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._settings = settings
        self._links = links
        self._pseudonyms = pseudonyms
        self._publish = publish
        self._done = done
        self._observer = observer
        self._schedule = Schedule(settings.looks_s)
        self._added = asyncio.Event()
        self._swept_at: float | None = None
        self._published: OrderedDict[bytes, None] = OrderedDict()
        self._fault = ""
        self._looked = self._found = 0
        self._metrics = metrics or LemmyMetrics()
        self._metrics.waiting.labels(tenant).set_function(lambda: len(self._schedule))
        self._reported_at = 0.0
        self.resting = asyncio.Event()
        """Set while no look is in hand."""
        self.resting.set()

    def __len__(self) -> int:
        return len(self._schedule)

    def add(self, sha256: bytes, name: Sought, *, seen_at: int, held: Received | None) -> bool:
        """Look for an image from now on; False where that is being done already, or it was seen too long ago."""
        now = now_ms()
        if seen_at < now - self._settings.max_age_h * 3_600_000:
            return False
        added = self._schedule.add(sha256, name, seen_at=seen_at, now=now, held=held)
        self._added.set()
        return added

    async def run(self) -> None:
        """Look, until cancelled. Raises what `publish` raises."""
        pause = _RETRY_FIRST_S
        self._reported_at = self._clock()
        while True:
            await self._wait()
            self.resting.clear()
            try:
                await self._look()
                await self._sweep_if_due()
            except LemmyDatabaseError as error:
                self._note_fault(error)
                self.resting.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._settings.retry_most_s)
                continue
            finally:
                self.resting.set()
            self._note_answer()
            pause = _RETRY_FIRST_S
            self._report()
            await asyncio.sleep(_PACE_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._database.close()

    async def _wait(self) -> None:
        """Until a look or the sweep may be due."""
        while True:
            self._added.clear()
            due = self._schedule.next_due()
            waits = [] if due is None else [(due - now_ms()) / 1000]
            if len(self._schedule):
                waits.append(self._sweep_in())
            if any(wait <= 0 for wait in waits):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(waits, default=None)):
                    await self._added.wait()

    def _sweep_in(self) -> float:
        """Seconds until the next sweep may run."""
        if self._swept_at is None:
            self._swept_at = self._clock() - self._settings.sweep_every_s / 2
        return max(0.0, self._swept_at + self._settings.sweep_every_s - self._clock())

    async def _look(self) -> None:
        cases = self._schedule.take(now_ms(), _BATCH)
        if not cases:
            return
        try:
            found = await self._publish_places(cases, await self._database.look([case.name for case in cases]))
        except BaseException:
            self._schedule.put_back(cases, now_ms())
            raise
        now = now_ms()
        for case in cases:
            if self._schedule.looked(case, found=case in found, now=now):
                self._release(case)
        self._looked += len(cases)
        self._metrics.looked.labels(self._tenant).inc(len(cases))

    async def _sweep_if_due(self) -> None:
        if self._sweep_in() > 0:
            return
        cases = self._schedule.unswept(now_ms(), _SWEEP_BATCH)
        if cases:
            found = await self._publish_places(cases, await self._database.sweep([case.name for case in cases]))
            for case in cases:
                if self._schedule.swept(case, found=case in found):
                    self._release(case)
        self._swept_at = self._clock()

    async def _publish_places(self, cases: list[Case], rows: list[Row]) -> set[Case]:
        """Publish what has not been; the cases of which a place with an author is new."""
        by_case: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_case[row.number].append(row)
        found = set()
        now = now_ms()
        for number, its_rows in by_case.items():
            case = cases[number]
            for origin in (self._origin(case, row, now) for row in its_rows):
                if origin.origin_id in self._published:
                    continue
                await self._publish(origin)
                self._published[origin.origin_id] = None
                self._found += 1
                self._metrics.found.labels(self._tenant).inc()
                if origin.author is not None:
                    found.add(case)
        for origin_id in list(islice(self._published, max(0, len(self._published) - _PUBLISHED_MOST))):
            del self._published[origin_id]
        return found

    def _origin(self, case: Case, row: Row, now: int) -> OriginObserved:
        return make_origin(
            row,
            tenant=self._tenant,
            sha256=case.sha256 or self._links.hash_of(self._tenant, case.name),
            alias=case.name.alias,
            url=case.name.url,
            received_at=case.seen_at,
            observed_at=now,
            observer=self._observer,
            pseudonyms=self._pseudonyms,
        )

    def _release(self, case: Case) -> None:
        if case.held is not None:
            self._done(case.held)

    def _note_fault(self, error: LemmyDatabaseError) -> None:
        if str(error) != self._fault:  # one line an outage
            tell = log.warning if isinstance(error, DatabaseAway) else log.error
            tell("lemmy_database_not_asked", error=str(error), waiting=len(self._schedule), tenant=self._tenant)
        self._fault = str(error)
        self._metrics.database_up.labels(self._tenant).set(0)

    def _note_answer(self) -> None:
        if self._fault:
            log.info("lemmy_database_answers_again", tenant=self._tenant)
        self._fault = ""
        self._metrics.database_up.labels(self._tenant).set(1)

    def _report(self) -> None:
        if self._clock() - self._reported_at >= _REPORT_EVERY_S:
            counts = {"looked": self._looked, "found": self._found, "waiting": len(self._schedule)}
            log.info("lemmy_looks", tenant=self._tenant, **counts)
            self._looked = self._found = 0
            self._reported_at = self._clock()

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
