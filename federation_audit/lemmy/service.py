"""The process that looks origins up in Lemmy's database: a member of a group over `answers` and `origins`.

A committed offset means: the image of every record before it has been looked for to the end. So the schedule needs no
store of its own: what a stop or a crash leaves open is read again, and a look that is made twice finds the same places,
whose origins have the same ids. An image that is seen again while it waits is looked for once.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import structlog
from pydantic import SecretStr

from federation_audit.lemmy.database import Home, LemmyDatabase, Sought
from federation_audit.lemmy.links import Links
from federation_audit.lemmy.looker import Looker
from federation_audit.lemmy.metrics import LemmyMetrics
from federation_audit.lemmy.settings import LemmySettings
from schemas.broker import BrokerSettings, Consumer, Producer, Received, check_topics
from schemas.messages import AnswerGiven, OriginMethod, OriginObserved
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ANSWERS, ORIGINS

log = structlog.get_logger("federation_audit.lemmy")

NEEDED_TOPICS = (ANSWERS, ORIGINS)
_POLL_TIMEOUT_S = 1.0
_POLL_MOST = 500
_DRAIN_S = 1.0  # most of what is in hand waits for an hour: another begins it anew


class NoDatabase(Exception):
    """No tenant has a Lemmy database; the message names the setting."""


async def run_lemmy(
    settings: LemmySettings,
    databases: Mapping[str, SecretStr],
    broker: BrokerSettings,
    pseudonyms: Pseudonyms,
    metrics: LemmyMetrics | None = None,
) -> None:
    """Look for images in the databases (by tenant) until SIGTERM or SIGINT.

    Raises `NoDatabase`, and a `schemas.broker.BrokerError` when it cannot start or go on. A database that is away or
    may not be read is logged, and asked again.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, databases, broker, pseudonyms, stop, metrics)


async def serve(
    settings: LemmySettings,
    databases: Mapping[str, SecretStr],
    broker: BrokerSettings,
    pseudonyms: Pseudonyms,
    stop: asyncio.Event,
    metrics: LemmyMetrics | None = None,
) -> None:
    """Look for images until `stop` is set; otherwise as `run_lemmy`."""
    _check_any(databases)
    await check_topics(broker, NEEDED_TOPICS)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    client_id = f"fediwarden-lemmy-{name}"
    async with AsyncExitStack() as open_:
        producer = await open_.enter_async_context(Producer(broker, client_id=client_id))
        consumer = await open_.enter_async_context(
            Consumer(broker, NEEDED_TOPICS, group=settings.group, client_id=client_id, drain_s=_DRAIN_S)
        )

        async def publish(origin: OriginObserved) -> None:
            key = origin.sha256 or (origin.url or origin.alias).encode()
            await producer.publish(ORIGINS, origin, key=key)

        metrics = metrics or LemmyMetrics()
        metrics.kafka.watch_producer(producer)
        metrics.kafka.watch_consumer(settings.group, consumer)
        links = Links(settings.known_links)
        lookers = {
            tenant: Looker(
                tenant,
                LemmyDatabase(tenant, url.get_secret_value(), settings),
                settings,
                links=links,
                pseudonyms=pseudonyms,
                publish=publish,
                done=consumer.done,
                observer=f"lemmy-{name}",
                metrics=metrics,
            )
            for tenant, url in databases.items()
        }
        for looker in lookers.values():
            open_.push_async_callback(looker.close)
        log.info("lemmy_ready", group=settings.group, tenants=sorted(lookers))
        await _run_until(stop, Sightings(consumer, lookers, links, max_open=settings.max_open), stop_s=settings.stop_s)
    log.info("lemmy_stopped")


async def check_databases(settings: LemmySettings, databases: Mapping[str, SecretStr]) -> dict[str, Home]:
    """What each tenant's Lemmy is. Raises `NoDatabase`, or the first `LemmyDatabaseError`."""
    _check_any(databases)
    homes = {}
    for tenant, url in databases.items():
        database = LemmyDatabase(tenant, url.get_secret_value(), settings)
        homes[tenant] = await database.home()
        await database.close()
    return homes


def _check_any(databases: Mapping[str, SecretStr]) -> None:
    if not databases:
        raise NoDatabase("no tenant has a Lemmy database to ask; set tenants.<name>.lemmy_database (see docs/lemmy.md)")


class Sightings:
    """Hands each image that a record speaks of to its tenant's looker.

    An origin names its image, and, where it bears a hash, teaches which names are one image's. An answer knows the hash
    alone: it is looked for under the names that are known of it.
    """

    def __init__(self, consumer: Consumer, lookers: Mapping[str, Looker], links: Links, *, max_open: int) -> None:
        self._consumer = consumer
        self._lookers = lookers
        self._links = links
        self._max_open = max_open
        self._full = False

    @property
    def lookers(self) -> tuple[Looker, ...]:
        """Whom they are handed to."""
        return tuple(self._lookers.values())

    async def take(self) -> None:
        """Read records until cancelled. Raises a `BrokerError`."""
        while True:
            most = min(_POLL_MOST, self._max_open - sum(map(len, self._lookers.values())))
            if most <= 0:
                if not self._full:
                    log.warning("too_many_images_wait", setting="lemmy.max_open", max_open=self._max_open)
                self._full = True
                await asyncio.sleep(_POLL_TIMEOUT_S)
                continue
            self._full = False
            for received in await self._consumer.poll(max_messages=most, timeout_s=_POLL_TIMEOUT_S):
                if not self._take(received):
                    self._consumer.done(received)

    def _take(self, received: Received) -> bool:
        """Whether the record's offset has to wait."""
        message = received.message
        if received.fault is not None:
            place = {"topic": received.topic.name, "partition": received.partition, "offset": received.offset}
            log.error("record_unreadable", reason=received.fault.reason, error=str(received.fault), **place)
        if not isinstance(message, AnswerGiven | OriginObserved) or message.tenant not in self._lookers:
            return False
        if received.imported:  # a year of it, of images that were looked for when they came
            return False
        if isinstance(message, AnswerGiven):
            names = self._links.names_of(message.tenant, message.sha256)
            seen_at = message.answered_at
        else:
            name = Sought(message.alias, message.url)
            names = (name,) if message.alias or message.url else ()
            seen_at = message.observed_at
            if names and message.sha256:
                self._links.learn(message.tenant, message.sha256, name)
            told = message.method is OriginMethod.HTTP and message.author is not None
            if message.method is OriginMethod.DATABASE or told:
                return False
        looker = self._lookers[message.tenant]
        held: Received | None = replace(received, message=None, key=None)
        for name in names:
            if looker.add(message.sha256, name, seen_at=seen_at, held=held):
                held = None  # one case holds the offset
        return bool(names) and held is None


async def _run_until(stop: asyncio.Event, sightings: Sightings, *, stop_s: float) -> None:
    """Run the parts until `stop`, or until one of them fails; let looks in hand end; raise what failed."""
    stopped = asyncio.create_task(stop.wait())
    taking = asyncio.create_task(sightings.take())
    looking = [asyncio.create_task(looker.run()) for looker in sightings.lookers]
    parts: list[asyncio.Task[None]] = [taking, *looking]
    try:
        await asyncio.wait([stopped, *parts], return_when=asyncio.FIRST_COMPLETED)
        taking.cancel()
        resting = [asyncio.create_task(looker.resting.wait()) for looker in sightings.lookers]
        await asyncio.wait(resting, timeout=stop_s)
        for waiting in resting:
            waiting.cancel()
        for part in parts:
            if part.done() and not part.cancelled():
                part.result()
    finally:
        stopped.cancel()
        for part in parts:
            part.cancel()
        await asyncio.gather(stopped, *parts, return_exceptions=True)
