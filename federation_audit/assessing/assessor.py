"""The newest assessment of all instances, made anew now and then, beside whatever else the process does."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog

from federation_audit.accounts.database import Database
from federation_audit.assessing.reading import Known, read_known
from federation_audit.statistics.assessment import Assessment, assess
from federation_audit.statistics.rules import DEFAULT_RULES, Rules
from federation_audit.store.errors import StoreError
from federation_audit.store.memory import settle
from schemas.clock import now_ms

log = structlog.get_logger("federation_audit.assessing")


def today_utc() -> date:
    """The day that it is."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class Assessed:
    """An assessment, what it was made from, and when (ms).

    `accused` are the instances that have evidence against them: a level above 0, or a confirmed incident.
    """

    assessment: Assessment
    known: Known
    made_at: int
    accused: frozenset[str]


Preparation = Callable[[Assessed, Database], object]
"""What is made of an assessment before anybody is given it. May raise what the database does."""


class Assessor:
    """Gives the newest assessment. Safe to use from several threads; nobody waits for one but the first who asks.

    An assessment older than `every_s` is made anew in a thread of its own when somebody asks; they are given the old
    one until all of `preparations` are done. What people decide and review is in the next.
    """

    def __init__(
        self,
        database: Database,
        *,
        every_s: float = 60.0,
        verified_lists: Collection[str] = (),
        local_domains: Collection[str] = (),
        rules: Rules = DEFAULT_RULES,
        preparations: Collection[Preparation] = (),
        today: Callable[[], date] = today_utc,
    ) -> None:
        self._database = database
        self._every_s = every_s
        self._verified_lists = frozenset(verified_lists)
        self._local_domains = frozenset(local_domains)
        self._rules = rules
        self._preparations = tuple(preparations)
        self._today = today
        self._making = threading.Lock()
        self._newest: Assessed | None = None
        self._made = 0.0

    def newest(self) -> Assessed:
        """The newest assessment. Raises what the database does, when there is none yet."""
        newest = self._newest
        if newest is None:
            with self._making:
                return self._newest or self._make(None)
        if time.monotonic() - self._made > self._every_s and self._making.acquire(blocking=False):
            threading.Thread(target=self._make_and_release, name="assessing", daemon=True).start()
        return newest

    def refresh(self, at: date | None = None) -> Assessed:
        """Make one now, as of the end of day `at` (today), and give it."""
        with self._making:
            return self._make(at)

    def _make_and_release(self) -> None:
        try:
            self._make(None)
        except StoreError as error:
            log.warning("the assessment could not be made anew; the one before stands", error=str(error))
            self._made = time.monotonic()
        finally:
            self._making.release()

    def _make(self, at: date | None) -> Assessed:
        newest = self._assess(at)
        for prepare in self._preparations:
            prepare(newest, self._database)
        self._newest = newest
        self._made = time.monotonic()
        settle()
        return newest

    def _assess(self, at: date | None) -> Assessed:
        with self._database.reading() as connection:
            table, known = read_known(
                connection, verified_lists=self._verified_lists, local_domains=self._local_domains
            )
        assessment = assess(table, known.evidence, at or self._today(), self._rules)
        accused = frozenset(each.instance for each in assessment if each.level or each.decision.incidents)
        return Assessed(assessment, known, now_ms(), accused)
