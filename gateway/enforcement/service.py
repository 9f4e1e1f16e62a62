"""The enforcer's process: from settings to a member of the group, and back out again."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

import structlog

from gateway.enforcement.denials import Denials
from gateway.enforcement.enforcer import Enforcer, Store
from gateway.enforcement.metrics import EnforcerMetrics
from gateway.enforcement.pace import Pace
from gateway.enforcement.pict_rs import PictRs
from gateway.enforcement.settings import EnforcerSettings
from gateway.overrides.memory import Overrides
from gateway.settings import TenantSettings
from schemas.broker import BrokerSettings, Consumer, Producer, Tail, check_topics
from schemas.topics import ENFORCEMENTS, IMAGES_ARCHIVE, OVERRIDES, VERDICTS

log = structlog.get_logger("gateway.enforcement")

NEEDED_TOPICS = (VERDICTS, ENFORCEMENTS, IMAGES_ARCHIVE, OVERRIDES)
DRY_RUN_SUFFIX = "-dry-run"
DENIALS_SUFFIX = "-denials"
_DRAIN_S = 1.0  # most of what is in hand waits for minutes: others begin it anew

Companion = Callable[[Producer], Coroutine[None, None, None]]
"""Something that runs beside the enforcer, in its process and with its producer, until it is cancelled."""


async def run_enforcer(
    settings: EnforcerSettings,
    tenants: Mapping[str, TenantSettings],
    broker: BrokerSettings,
    *,
    companions: Sequence[Companion] = (),
    metrics: EnforcerMetrics | None = None,
) -> None:
    """Carry out rejections until SIGTERM or SIGINT, then end the looks in hand.

    Raises a `schemas.broker.BrokerError` when it cannot start or go on, and what a companion raises.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, tenants, broker, stop, companions=companions, metrics=metrics)


async def serve(
    settings: EnforcerSettings,
    tenants: Mapping[str, TenantSettings],
    broker: BrokerSettings,
    stop: asyncio.Event,
    *,
    companions: Sequence[Companion] = (),
    metrics: EnforcerMetrics | None = None,
) -> None:
    """Carry out rejections until `stop` is set; otherwise as `run_enforcer`."""
    await check_topics(broker, NEEDED_TOPICS)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    group = settings.group + (DRY_RUN_SUFFIX if settings.dry_run else "")
    async with AsyncExitStack() as open_:
        stores = {}
        for tenant, pict_rs in _stores_of(tenants, answer_within_s=settings.answer_within_s):
            pace = Pace(tenant, settings.concurrency, most_s=settings.retry_most_s)
            stores[tenant] = Store(await open_.enter_async_context(pict_rs), pace)
        client_id = f"fediwarden-enforcer-{name}"
        producer = await open_.enter_async_context(Producer(broker, client_id=client_id))
        overrides = Overrides()
        tail = Tail(broker, [OVERRIDES], since_s=0.0, on_record=overrides.observe, client_id=client_id)
        await open_.enter_async_context(tail)
        await tail.wait_positioned()  # no verdict before that: it might be on what is allowed
        consumer, deniers = [
            await open_.enter_async_context(
                Consumer(broker, [topic], group=its_group, client_id=client_id, drain_s=_DRAIN_S)
            )
            for topic, its_group in ((VERDICTS, group), (OVERRIDES, group + DENIALS_SUFFIX))
        ]
        metrics = metrics or EnforcerMetrics()
        metrics.kafka.watch_producer(producer)
        metrics.kafka.watch_consumer(group, consumer)
        metrics.kafka.watch_consumer(group + DENIALS_SUFFIX, deniers)
        enforcer = Enforcer(
            settings,
            name=name,
            consumer=consumer,
            producer=producer,
            tenants=tenants,
            stores=stores,
            overrides=overrides,
            metrics=metrics,
        )
        denials = Denials(broker, producer, consumer=deniers, overrides=overrides, name=name)
        beside = [tail.wait_ended(), denials.run(), *(companion(producer) for companion in companions)]
        log.info("enforcer_ready", enforcer=name, group=group, tenants=sorted(stores), dry_run=settings.dry_run)
        await _run_until(stop, enforcer, beside, stop_s=settings.stop_s)
    log.info("enforcer_stopped", enforcer=name)


def _stores_of(tenants: Mapping[str, TenantSettings], *, answer_within_s: float) -> Iterator[tuple[str, PictRs]]:
    for name, tenant in tenants.items():
        if tenant.pict_rs is not None and tenant.pict_rs_api_key is not None:
            key = tenant.pict_rs_api_key.get_secret_value()
            yield name, PictRs(tenant.pict_rs, key, answer_within_s=answer_within_s)
        else:
            log.warning(
                "late_rejections_stay_stored",
                tenant=name,
                remedy=f"set tenants.{name}.pict_rs and tenants.{name}.pict_rs_api_key",
            )


async def _run_until(
    stop: asyncio.Event, enforcer: Enforcer, companions: Sequence[Coroutine[None, None, None]], *, stop_s: float
) -> None:
    """Run the parts until `stop`, or until one of them fails; then wind down and raise what failed."""
    stopped = asyncio.create_task(stop.wait())
    parts = [asyncio.create_task(part) for part in (enforcer.take(), *companions)]
    try:
        await asyncio.wait([stopped, *parts], return_when=asyncio.FIRST_COMPLETED)
        failures = [part.exception() for part in parts if part.done() and not part.cancelled()]
        for part in parts:
            part.cancel()
        left = await enforcer.finish(within_s=stop_s)
        if left:
            log.info("rejections_left_to_be_read_again", count=left)
        for failure in failures:
            if failure is not None:
                raise failure
    finally:
        for task in (stopped, *parts):
            task.cancel()
        await asyncio.gather(stopped, *parts, return_exceptions=True)
