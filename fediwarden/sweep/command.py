"""A sweep from the settings: what it needs is opened, and it runs until it ends or is interrupted."""

import asyncio
import signal

from fediwarden.settings import Settings
from fediwarden.sweep.checkpoints import Checkpoints, read_checkpoints, sweep_id
from fediwarden.sweep.errors import WouldBeRemoved
from fediwarden.sweep.judging import Judge
from fediwarden.sweep.opening import open_source
from fediwarden.sweep.sweeping import Sweep, Watcher
from schemas.broker import Producer
from schemas.messages import SweepMode

_ENDING = (signal.SIGINT, signal.SIGTERM)


async def run_sweep(
    settings: Settings,
    named: str,
    *,
    owner: str,
    judging: str,
    mode: SweepMode,
    quarantine: str | None,
    url: str,
    follow: bool,
    again: bool,
    only_show: bool,
    watcher: Watcher,
) -> tuple[Checkpoints, bool]:
    """Sweep what `named` stands for of the tenant `owner`, judged for the tenant `judging`; whether it was interrupted.

    SIGINT and SIGTERM interrupt it: what is in hand is dropped, and gone through again by the next run. With
    `only_show` nothing is done but reading what there is of it. Raises a `SweepError` or a `BrokerError`.
    """
    if not only_show:
        _check_enforcer(settings, judging, mode)
    source = open_source(named, settings.sweep, tenant=owner, of=settings.tenants[owner], quarantine=quarantine)
    broker = settings.kafka.broker_settings()
    try:
        sweep = sweep_id(source.identity, judging, mode, quarantine)
        checkpoints = await read_checkpoints(broker, sweep)
        if only_show:
            return checkpoints, False
        key = settings.tenants[judging].key
        judge = Judge(
            url,
            key.get_secret_value() if key is not None else None,
            rate=settings.sweep.rate,
            verdict_within_s=settings.sweep.verdict_within_s,
        )
        try:
            async with Producer(broker, client_id="fediwarden-sweep") as producer:
                checkpoints.write_with(producer)
                if again:
                    await checkpoints.begin_anew()
                run = Sweep(
                    source,
                    judge,
                    checkpoints,
                    settings.sweep,
                    mode=mode,
                    most_bytes=settings.gateway.max_body_bytes,
                    watcher=watcher,
                    for_ever=follow,
                )
                return checkpoints, await _run_interruptibly(run)
        finally:
            await judge.close()
    finally:
        await source.close()


async def _run_interruptibly(run: Sweep) -> bool:
    """Whether a signal to end came before the end."""
    running = asyncio.create_task(run.run())
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        running.cancel()

    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, interrupt)
    try:
        await running
    except asyncio.CancelledError:
        if not interrupted.is_set():
            running.cancel()
            raise
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)
    return interrupted.is_set()


def _check_enforcer(settings: Settings, judging: str, mode: SweepMode) -> None:
    """Raise `WouldBeRemoved` where rejected files would be removed although the sweep is not to remove any."""
    tenant = settings.tenants[judging]
    if mode is SweepMode.APPLY or tenant.pict_rs_api_key is None or settings.enforcer.dry_run:
        return
    raise WouldBeRemoved(
        f"the enforcer removes from tenant {judging}'s pict-rs whatever is rejected for that tenant, so this sweep"
        " would remove files without --apply. To only report, judge for a tenant without a pict_rs: --as NAME"
        " (docs/sweep.md shows how to make one). To remove what is rejected, add --apply"
    )
