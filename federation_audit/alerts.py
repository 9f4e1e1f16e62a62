"""Alerts by Apprise: counts and links to cases, and nothing else: no name, no hash, no address of a post.

Events are noted as they happen; `Alerts.send_due` tells them, several in one message, when the last message is long
enough ago and it is not in the quiet hours. A message that does not get through is told again with the next one.
Nothing here waits by itself: `federation_audit.alerting` calls `send_due` every minute.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final

from federation_audit.alert_settings import AlertSettings
from federation_audit.cases import Level
from federation_audit.neutralising import http_url

LINKS_MOST: Final = 10

Notify = Callable[[str, str], Awaitable[bool]]
"""Tells a title and a text; whether everybody was reached."""


class EventKind(StrEnum):
    """What may be worth an alert."""

    LEVEL = "level"
    CONFIRMED = "confirmed"
    WAITING = "waiting"
    EXPIRING = "expiring"


class NoAlerts(Exception):
    """Alerts cannot be sent with these settings; the message says which one is wrong, never what is in it."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: `count` of its kind, and where to look. With a kind of LEVEL, `level` is the level that
    `count` instances came to. WAITING and EXPIRING give what there is now, the others what is new."""

    kind: EventKind
    count: int
    links: tuple[str, ...] = ()
    level: Level = Level.INSUFFICIENT


@dataclass(frozen=True, slots=True)
class AlertSent:
    """A message as it was told, for the record; `reached` says whether everybody was."""

    at: datetime
    title: str
    text: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Told:
    """When the last message was tried, and how many rows in the queue and expiring decisions were told of: what must be
    known to go on after a restart."""

    last: datetime | None = None
    waiting: int = 0
    expiring: int = 0


class Alerts:
    """What waits to be told, and when it may be, after what has been `told`."""

    def __init__(self, settings: AlertSettings, notify: Notify, told: Told | None = None) -> None:
        self._settings = settings
        self._notify = notify
        self._levels: dict[Level, int] = {}
        self._confirmed = 0
        self._waiting = 0
        told = told or Told()
        self._waiting_told = told.waiting
        self._expiring = 0
        self._expiring_told = told.expiring
        self._links: dict[str, None] = {}
        self._last = told.last

    @property
    def told(self) -> Told:
        """What has been told by now."""
        return Told(self._last, self._waiting_told, self._expiring_told)

    def note(self, event: Event) -> None:
        """Take `event` in; whether it is enough for an alert is for `send_due` to say."""
        if event.count < 0:
            raise ValueError("an event's count is not negative")
        match event.kind:
            case EventKind.LEVEL if event.level >= self._settings.level:
                self._levels[event.level] = self._levels.get(event.level, 0) + event.count
            case EventKind.LEVEL:
                return
            case EventKind.CONFIRMED:
                self._confirmed += event.count
            case EventKind.WAITING:
                self._waiting = event.count
                if event.count < self._settings.waiting:
                    self._waiting_told = 0
            case EventKind.EXPIRING:
                self._expiring = event.count
                self._expiring_told = min(self._expiring_told, event.count)
        self._links |= {url: None for url in map(http_url, event.links) if url}

    def due_at(self, now: datetime) -> datetime | None:
        """When the next message may be told; None while there is nothing to tell."""
        if not self._lines():
            return None
        at = now if self._last is None else max(now, self._last + self._pause)
        return self._end_of_quiet(at)

    async def send_due(self, now: datetime) -> AlertSent | None:
        """Tell what is to be told, if it may be now; None when nothing was told."""
        due = self.due_at(now)
        if due is None or due > now:
            return None
        lines = self._lines()
        links = list(self._links)
        shown = links[:LINKS_MOST]
        if len(links) > len(shown):
            shown.append(f"and {len(links) - LINKS_MOST} more")
        title = "fediwarden: " + (lines[0] if len(lines) == 1 else f"{len(lines)} things to look at")
        text = "\n".join([*lines, *shown])
        self._last = now
        # What comes in while we wait is not of this message, and must not be forgotten with it.
        told = (dict(self._levels), self._confirmed, self._waiting, self._expiring, tuple(links))
        reached = await self._notify(title, text)
        if reached:
            self._forget(*told)
        return AlertSent(now, title, text, reached)

    def _lines(self) -> list[str]:
        settings = self._settings
        lines = [
            f"{_many(count, 'instance')} came to level {int(level)} ({level.name.lower()})"
            for level, count in sorted(self._levels.items(), reverse=True)
            if count
        ]
        if self._confirmed >= settings.confirmed:
            lines.append(f"{_many(self._confirmed, 'incident')} confirmed")
        if self._waiting >= max(settings.waiting, 2 * self._waiting_told):
            lines.append(f"{_many(self._waiting, 'row')} waiting for review")
        if self._expiring >= settings.expiring and self._expiring > self._expiring_told:
            lines.append(f"{_many(self._expiring, 'decision')} about to expire")
        return lines

    def _forget(
        self, levels: dict[Level, int], confirmed: int, waiting: int, expiring: int, links: tuple[str, ...]
    ) -> None:
        for level, count in levels.items():
            self._levels[level] -= count
        if confirmed >= self._settings.confirmed:
            self._confirmed -= confirmed
        if waiting >= max(self._settings.waiting, 2 * self._waiting_told):
            self._waiting_told = waiting
        if expiring >= self._settings.expiring:
            self._expiring_told = expiring
        for url in links:
            self._links.pop(url, None)

    @property
    def _pause(self) -> timedelta:
        return timedelta(minutes=self._settings.at_most_every_min)

    def _end_of_quiet(self, at: datetime) -> datetime:
        """`at`, or the end of the quiet hours that it is in."""
        hours = self._settings.quiet_hours
        if hours is None:
            return at
        begin, end = hours
        local = at.astimezone(self._settings.zone)
        if not _is_between(local.time(), begin, end):
            return at
        day = local.date() if local.time() < end else local.date() + timedelta(days=1)
        return datetime.combine(day, end, self._settings.zone).astimezone(at.tzinfo)


def apprise_notifier(settings: AlertSettings) -> Notify:
    """Tells by Apprise to all of `settings.urls`. Raises `NoAlerts`: none set, or one that Apprise does not know."""
    import apprise

    if settings.urls is None or not settings.urls.get_secret_value().split():
        raise NoAlerts("no alerts are set up: set alerts.urls")
    told = apprise.Apprise()
    for number, url in enumerate(settings.urls.get_secret_value().split(), 1):
        if not told.add(url):
            raise NoAlerts(f"alerts.urls: Apprise does not know address {number}; see https://appriseit.com/services/")

    async def notify(title: str, text: str) -> bool:
        return bool(await told.async_notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT))

    return notify


def _is_between(now: time, begin: time, end: time) -> bool:
    return begin <= now < end if begin < end else now >= begin or now < end


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
