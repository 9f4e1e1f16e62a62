"""What runs alerts: a look at the store every minute, what is new since it was last told, and the word about it.

It runs in the pages' process, which makes the assessment anyway. What has been told stands in the store (`STATE`, names
that begin with ``alerts/``), and each look begins from there: a restart tells nothing again, and loses nothing. Of
several processes one sends each message. Every message is in the log of actions.

New is: an instance at a higher level than it was told to have; an incident whose first confirmation is younger than the
last message that told of incidents; more in the queue, or about to expire, as `Alerts` says. Levels that fell are taken
back after a day only, so that a rebuild of the store, in which everything falls and rises again, tells nobody.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection, func, select

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.database import Database
from federation_audit.alerts import Alerts, AlertSent, Event, EventKind, NoAlerts, Notify, Told, apprise_notifier
from federation_audit.assessing.assessor import Assessor
from federation_audit.assessing.reading import read_hits, read_media
from federation_audit.cases import Level
from federation_audit.deciding.tables import DECISIONS
from federation_audit.reviewing.outcomes import Outcome, read_reviewed
from federation_audit.reviewing.queue import count_waiting
from federation_audit.settings import AuditSettings
from federation_audit.store.errors import StoreError
from federation_audit.store.rows import among, chunks
from federation_audit.store.state import read_numbers, write_numbers
from federation_audit.store.tables import EVIDENCE, FLAGS, TEXTS

log = structlog.get_logger("federation_audit.alerts")

WHO: Final = "alerts"
EXPIRES_WITHIN: Final = timedelta(days=7)
_EVERY_S = 60.0
_FALLEN_FOR = timedelta(days=1)
_TEXT_MOST = 3_000
_PREFIX = "alerts/"
_LEVELS = _PREFIX + "level/"
_LAST, _WAITING, _EXPIRING, _CONFIRMED = "last", "waiting", "expiring", "confirmed"


@dataclass(frozen=True, slots=True)
class _New:
    """What a look found: levels to be told by domain, newly confirmed incidents, and when it looked (ms)."""

    levels: dict[str, int]
    confirmed: int
    at: int


class AlertRunner:
    """Looks, and tells. `clock` gives the time with its zone."""

    def __init__(
        self,
        settings: AuditSettings,
        database: Database,
        assessor: Assessor,
        notify: Notify,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._database = database
        self._assessor = assessor
        self._notify = notify
        self._clock = clock
        self._fell_at: dict[str, datetime] = {}

    async def run(self) -> None:
        """Look every minute, until cancelled."""
        log.info("alerts_on")
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.warning("alerts_wait_for_the_store", error=str(error))
            except Exception:  # the edge of a task: the next look may go well
                log.exception("alerts failed")
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> AlertSent | None:
        """Look now; what was sent, if anything was due. Raises a `StoreError`."""
        now = self._clock()
        alerts, new, before = await asyncio.to_thread(self._gather, now)
        due = alerts.due_at(now)
        if due is None or due > now or not await asyncio.to_thread(self._claim, now, before.last):
            if alerts.told != before:
                await asyncio.to_thread(self._write, _as_numbers(alerts.told))
            return None
        sent = await alerts.send_due(now)
        assert sent is not None, "it was due"
        log.info("alert_sent" if sent.reached else "alert_not_delivered")
        await asyncio.to_thread(self._keep, sent, alerts.told, new)
        return sent

    def _gather(self, now: datetime) -> tuple[Alerts, _New, Told]:
        at = _ms(now)
        found = {each.instance: int(each.level) for each in self._assessor.newest().assessment}
        with self._database.reading() as connection:
            numbers = read_numbers(connection, _PREFIX)
            told_levels = read_numbers(connection, _LEVELS)
            confirmed, domains = _newly_confirmed(
                connection, numbers.get(_CONFIRMED, 0), verified_lists=self._settings.verified_lists
            )
            waiting = count_waiting(connection, verified_lists=self._settings.verified_lists)
            expiring = _expiring(connection, at)
        last = numbers.get(_LAST)
        before = Told(
            None if last is None else datetime.fromtimestamp(last / 1000, UTC),
            numbers.get(_WAITING, 0),
            numbers.get(_EXPIRING, 0),
        )
        self._take_back(found, told_levels, now)
        least = self._settings.alerts.level
        risen = {name: level for name, level in found.items() if level >= least and level > told_levels.get(name, 0)}
        alerts = Alerts(self._settings.alerts, self._notify, before)
        for name, level in sorted(risen.items(), key=lambda each: (-each[1], each[0])):
            alerts.note(Event(EventKind.LEVEL, 1, self._links((name,)), Level(level)))
        links = self._links(domains) if confirmed >= self._settings.alerts.confirmed else ()
        alerts.note(Event(EventKind.CONFIRMED, confirmed, links))
        alerts.note(Event(EventKind.WAITING, waiting))
        alerts.note(Event(EventKind.EXPIRING, expiring))
        return alerts, _New(risen, confirmed, at), before

    def _links(self, domains: Iterable[str]) -> tuple[str, ...]:
        """Where the cases are for whoever gets the message; none while the pages have no address for others."""
        url = self._settings.pages.public_url
        return tuple(f"{url}/instances/{domain}" for domain in domains) if url else ()

    def _take_back(self, found: dict[str, int], told: dict[str, int], now: datetime) -> None:
        fallen = {name: found.get(name, 0) for name, level in told.items() if found.get(name, 0) < level}
        self._fell_at = {name: self._fell_at.get(name, now) for name in fallen}
        over = {name: level for name, level in fallen.items() if now - self._fell_at[name] >= _FALLEN_FOR}
        if over:
            with self._database.writing() as connection:
                write_numbers(connection, _LEVELS, {name: level or None for name, level in over.items()})
            told.update(over)

    def _claim(self, now: datetime, last: datetime | None) -> bool:
        """Whether this process is to send: nobody has since `last`."""
        with self._database.writing() as connection:
            if read_numbers(connection, _PREFIX).get(_LAST) != (None if last is None else _ms(last)):
                return False
            write_numbers(connection, _PREFIX, {_LAST: _ms(now)})
        return True

    def _write(self, numbers: dict[str, int | None]) -> None:
        with self._database.writing() as connection:
            write_numbers(connection, _PREFIX, numbers)

    def _keep(self, sent: AlertSent, told: Told, new: _New) -> None:
        numbers = _as_numbers(told)
        if sent.reached and new.confirmed >= self._settings.alerts.confirmed:
            numbers[_CONFIRMED] = new.at
        with self._database.writing() as connection:
            write_numbers(connection, _PREFIX, numbers)
            if sent.reached:
                write_numbers(connection, _LEVELS, new.levels)
            what = "alert sent" if sent.reached else "alert not delivered"
            detail = {"text": sent.text[:_TEXT_MOST]}
            record(connection, Actor(WHO), what, about=sent.title, at=_ms(sent.at), detail=detail)


def make_runner(settings: AuditSettings, database: Database, assessor: Assessor) -> AlertRunner | None:
    """What sends alerts; None where they are not set up, or (the log says it) not rightly: pages are served all the
    same."""
    if settings.alerts.urls is None:
        return None
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs addresses, which hold secrets
    try:
        notify = apprise_notifier(settings.alerts)
    except NoAlerts as error:
        log.error("alerts_off", error=str(error))
        return None
    if settings.pages.public_url is None:
        log.warning("alerts_without_links", remedy="set audit.pages.public_url")
    return AlertRunner(settings, database, assessor, notify)


def _newly_confirmed(connection: Connection, since: int, *, verified_lists: Collection[str]) -> tuple[int, list[str]]:
    """Incidents whose first confirmation, by two reviewers or a verified list, is younger than `since` (ms), and the
    domains of the instances that they came from."""
    reviewed = read_reviewed(connection)
    outcomes = {medium: each.outcome for medium, each in reviewed.items()}
    looked_at = read_media(connection, reviewed)
    confirmed_at = read_hits(connection, verified_lists)
    for number, medium in looked_at.items():
        if outcomes[medium] is Outcome.DISMISSED:  # people know better than a list
            confirmed_at.pop(number, None)
        elif outcomes[medium] is Outcome.CONFIRMED:
            settled = reviewed[medium].settled_at
            assert settled is not None, "it is confirmed"
            confirmed_at[number] = min(settled, confirmed_at.get(number, settled))
    if max(confirmed_at.values(), default=0) <= since:
        return 0, []
    first: dict[tuple[int, int, int, int], int] = {}
    for chunk in chunks(confirmed_at):
        query = (
            select(EVIDENCE.c.instance_id, EVIDENCE.c.actor_id, EVIDENCE.c.day, FLAGS.c.cluster_id, EVIDENCE.c.media_id)
            .join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
            .where(among(connection, EVIDENCE.c.media_id, chunk))
        )
        for instance, actor, day, cluster, number in connection.execute(query):
            key = (instance, actor, day, cluster)
            first[key] = min(confirmed_at[number], first.get(key, confirmed_at[number]))
    named = {(instance, cluster) for instance, actor, _, cluster in first if actor}
    new = {
        key for key, at in first.items() if at > since and (key[1] or (key[0], key[3]) not in named)
    }  # who is known by instance alone is no second actor
    instances = {key[0] for key in new}
    domains = [
        name
        for chunk in chunks(instances)
        for name in connection.scalars(select(TEXTS.c.text).where(among(connection, TEXTS.c.id, chunk)))
    ]
    return len(new), sorted(domains)


def _expiring(connection: Connection, at: int) -> int:
    """How many decisions in force end within a week."""
    query = select(func.count()).select_from(DECISIONS)
    soon = DECISIONS.c.until.between(at, at + round(EXPIRES_WITHIN.total_seconds() * 1000))
    return connection.execute(query.where(soon, DECISIONS.c.ended_at.is_(None))).scalar_one()


def _as_numbers(told: Told) -> dict[str, int | None]:
    last = None if told.last is None else _ms(told.last)
    return {_LAST: last, _WAITING: told.waiting or None, _EXPIRING: told.expiring or None}


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
