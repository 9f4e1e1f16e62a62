"""`fediwarden rescan watch`: rescans that nobody has to ask for, after what judges has been updated.

Nothing is kept besides the rescans: the latest of each kind that was ordered here says by what images were judged last;
where there is none, the verdicts say it that were reached before this process was started.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Final

import structlog

from fediwarden.rescan.applying import apply_rescan, check_removals
from fediwarden.rescan.errors import RescanBusy, RescanError, RescanInvalid, TooManyRemovals
from fediwarden.rescan.jobs import CLIENT_ID, Jobs, change_state, order_job, read_jobs
from fediwarden.rescan.outcome import Refuses, read_tally
from fediwarden.rescan.planning import Asked, plan, policies_of_settings, policy_ids, sample_verdicts
from fediwarden.rescan.watching import HEARD_WITHIN_S, KINDS, STOOD_S, Announced, InForce, Kind, Watch, differ
from fediwarden.rescan.working import wait_for_scanners, work
from fediwarden.settings import Settings
from gateway.lists.errors import ListError
from gateway.lists.store import ListStore, Stamp
from scanner.models.model import ModelError
from scanner.policy import PolicyError
from schemas.broker import BrokerError, Producer, Received, Tail, check_topics, find_windows
from schemas.clock import now_ms
from schemas.messages import RescanOrdered, RescanState, RescanTier, ScannerAnnounced
from schemas.topics import RESCAN_JOBS, RESCANS, SCANNERS, VERDICTS

log = structlog.get_logger("fediwarden.rescan")

LOOK_EVERY_S: Final = 5.0
TRY_AGAIN_S: Final = 60.0
_BEFORE_START_MS: Final = 30_000
"""Scanners that are started together with us may have judged already: what counts is what was before."""

_VERDICTS_BACK_MS: Final = 30 * 86_400_000
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def orderer(kind: Kind) -> str:
    """Who is said to have ordered an automatic rescan."""
    return f"automatic ({kind})"


class _NotYet(Exception):
    """A rescan cannot be ordered now; the message says why."""


async def run_watch(settings: Settings, *, refuses: Refuses, stood_s: float = STOOD_S) -> None:
    """Order rescans as the setting rescan.automatic says, and work on them, until SIGTERM or SIGINT.

    An outage of Kafka is waited out; so is another rescan that is at work. Raises a `BrokerError` when it cannot start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await watch(settings, stop, refuses=refuses, stood_s=stood_s)


async def watch(
    settings: Settings,
    stop: asyncio.Event,
    *,
    refuses: Refuses,
    stood_s: float = STOOD_S,
    look_every_s: float = LOOK_EVERY_S,
) -> None:
    """As `run_watch`, until `stop` is set."""
    broker = settings.kafka.broker_settings()
    await check_topics(broker, (VERDICTS, RESCANS, RESCAN_JOBS, SCANNERS))
    announced = Announced(settings.scanner.group)

    def observe(received: Received) -> None:
        if isinstance(said := received.message, ScannerAnnounced):
            age_s = 0.0 if tail.positioned else max(0.0, (now_ms() - said.announced_at) / 1000)
            announced.observe(said, time.monotonic() - age_s)

    tail = Tail(broker, (SCANNERS,), since_s=2 * HEARD_WITHIN_S, on_record=observe, client_id=CLIENT_ID)
    async with tail:
        await tail.wait_positioned()
        automatic = Automatic(settings, await find_judged_by(settings), refuses=refuses, stood_s=stood_s)
        watching = asyncio.create_task(automatic.run(announced, look_every_s), name="watch")
        stopped = asyncio.create_task(stop.wait())
        ended = asyncio.create_task(tail.wait_ended())
        log.info("watching", kinds=settings.rescan.automatic, since=settings.rescan.automatic_since)
        try:
            await asyncio.wait((watching, stopped, ended), return_when=asyncio.FIRST_COMPLETED)
            for part in (watching, ended):
                if part.done():
                    part.result()
        finally:
            for task in (watching, stopped, ended):
                task.cancel()
            await asyncio.gather(watching, stopped, ended, return_exceptions=True)


async def find_judged_by(settings: Settings) -> InForce:
    """By what images were judged last. Raises a `BrokerError`."""
    broker = settings.kafka.broker_settings()
    until_ms = now_ms() - _BEFORE_START_MS
    since_ms = max(0, until_ms - _VERDICTS_BACK_MS)
    windows = await find_windows(broker, VERDICTS, since_ms=since_ms, until_ms=until_ms, client_id=CLIENT_ID)
    kept = await sample_verdicts(broker, windows)
    return judged_by(settings, await read_jobs(broker), InForce(kept.models, kept.policies))


def judged_by(settings: Settings, jobs: Jobs, before: InForce) -> InForce:
    """What the latest automatic rescan of each kind went by; where there is none, what is known from `before`."""
    latest: dict[Kind, RescanOrdered] = {}
    for job in jobs.all():
        for kind in KINDS:
            if job.ordered_by == orderer(kind) and job.state is not RescanState.CANCELLED:
                latest.setdefault(kind, job)
    policies = before.policies
    if "policy" in latest:
        try:
            policies = policy_ids(settings, latest["policy"].policies)
        except PolicyError as error:  # of an earlier release, or with a model that is registered no more
            log.warning("policy_of_rescan_unreadable", rescan=latest["policy"].rescan, error=str(error))
    return InForce(
        latest["model"].models if "model" in latest else before.models,
        policies,
        latest["lists"].lists if "lists" in latest else before.lists,
    )


class ListVersions:
    """The versions of the known-hash lists in force that come from others; our own rejections change all the time."""

    def __init__(self, settings: Settings) -> None:
        assert settings.gateway.lists.folder is not None, "filled in by the settings"
        self._store = ListStore(settings.gateway.lists.folder)
        self._known: dict[str, tuple[Stamp, str, int | None]] = {}

    def read(self, at_ms: int) -> dict[str, str]:
        """Name and version; reads a list anew only when it has changed. Raises `gateway.lists.errors.ListError`."""
        stamps, suspended = self._store.stamps(), self._store.suspended()
        known = {}
        for name, stamp in stamps.items():
            before = self._known.get(name)
            if before is not None and before[0] == stamp:
                known[name] = before
                continue
            stored = self._store.load(name)
            if stored.definition.source:
                known[name] = (stamp, stored.version, stored.definition.expires_at)
        self._known = known
        return {
            name: version
            for name, (_, version, expires_at) in known.items()
            if name not in suspended and (expires_at is None or at_ms < expires_at)
        }


class Automatic:
    """Orders what is due, and works on it, one rescan at a time. `known` is by what images were judged last."""

    def __init__(self, settings: Settings, known: InForce, *, refuses: Refuses, stood_s: float) -> None:
        self._settings = settings
        self._broker = settings.kafka.broker_settings()
        self._refuses = refuses
        self._watch = Watch(settings.rescan.automatic, known, stood_s=stood_s)
        self._lists = ListVersions(settings)
        self._told = ""
        self._worker = f"{socket.gethostname()}-{os.getpid()}"

    async def run(self, announced: Announced, look_every_s: float) -> None:
        """Look, order and work until cancelled."""
        resumed = False
        while True:
            try:
                if not resumed:
                    await self._go_on()
                    resumed = True
                await self._look(announced)
            except (_NotYet, RescanBusy) as reason:
                self._tell_waiting(str(reason))
                await asyncio.sleep(TRY_AGAIN_S)
            except (RescanError, PolicyError, ListError, ModelError, BrokerError) as error:
                log.warning("automatic_rescan_failed", error=str(error), again_in_s=TRY_AGAIN_S)
                await asyncio.sleep(TRY_AGAIN_S)
            await asyncio.sleep(look_every_s)

    def _tell_waiting(self, why: str) -> None:
        if why != self._told:
            self._told = why
            log.info("automatic_rescan_waits", why=why)

    async def _look(self, announced: Announced) -> None:
        seen = announced.in_force(time.monotonic())
        if seen is not None:
            lists = await asyncio.to_thread(self._lists.read, now_ms())
            seen = InForce(seen.models, seen.policies, lists)
        due = self._watch.look(seen, time.monotonic())
        if due is None or seen is None:
            return
        try:
            job = await self._order(due, seen)
        except RescanInvalid as error:  # nothing was judged in that time, say: there is nothing to judge again
            log.warning("automatic_rescan_refused", kind=due, error=str(error))
            self._watch.note_done(due, seen)
            return
        self._watch.note_done(due, seen)
        await self._see_through(job)

    async def _order(self, kind: Kind, seen: InForce) -> RescanOrdered:
        at_ms = now_ms()
        rescan = self._settings.rescan
        if kind == "policy":
            self._check_policies(seen.policies)
        asked = Asked(
            since_ms=at_ms - span_ms(rescan.automatic_since),
            model=self._watch.new_models(seen)[0] if kind == "model" else "",
            lists=kind == "lists",
            dry_run=not rescan.automatic_apply,
            ordered_by=orderer(kind),
        )
        job = (await plan(self._settings, asked)).job
        if kind == "lists":
            job = job.model_copy(update={"lists": dict(seen.lists)})
        async with Producer(self._broker, client_id=CLIENT_ID) as producer:
            await order_job(self._broker, producer, job)
        log.info("automatic_rescan_ordered", rescan=job.rescan, kind=kind, tier=job.tier, why=job.why)
        return job

    def _check_policies(self, in_force: Mapping[str, str]) -> None:
        """Raise `_NotYet` where the policies of our settings are not those that scanners judge by."""
        ours = policy_ids(self._settings, policies_of_settings(self._settings))
        if differ(ours, in_force):
            raise _NotYet(
                "the policies of this machine's settings are not those that the scanners announce: give both the same"
            )

    async def _go_on(self) -> None:
        """Take up what an earlier process of ours was at."""
        names = {orderer(kind) for kind in KINDS}
        for job in (await read_jobs(self._broker)).all():
            if job.ordered_by in names and job.state in (RescanState.RUNNING, RescanState.APPLYING):
                log.info("automatic_rescan_resumed", rescan=job.rescan, state=job.state)
                await self._see_through(job)

    async def _see_through(self, job: RescanOrdered) -> None:
        """Have a rescan judged, and carried out where it is to be."""
        if job.state is RescanState.RUNNING:
            do = wait_for_scanners if job.tier is RescanTier.FRAMES else work
            try:
                job = await do(self._settings, job, worker=self._worker)
            except RescanInvalid as error:  # what it goes by is gone: the list was refreshed meanwhile
                async with Producer(self._broker, client_id=CLIENT_ID) as producer:
                    cancelled = RescanState.CANCELLED
                    await change_state(
                        self._broker, producer, job.rescan, cancelled, by=self._worker, note=str(error)[:500]
                    )
                log.warning("automatic_rescan_cancelled", rescan=job.rescan, error=str(error))
                return
        outcome = (await read_tally(self._broker, job, refuses=self._refuses)).outcome()
        log.info(
            "automatic_rescan_judged",
            rescan=job.rescan,
            state=job.state,
            images=outcome.counted,
            removals=outcome.removals,
            report=f"fediwarden rescan report {job.rescan}",
        )
        if job.dry_run or job.state not in (RescanState.FINISHED, RescanState.APPLYING):
            return
        try:
            if job.state is RescanState.FINISHED:
                check_removals(outcome, most_share=self._settings.rescan.max_removed_share)
            await apply_rescan(self._broker, job.rescan, by="automatic", refuses=self._refuses)
        except TooManyRemovals as error:
            log.error("automatic_rescan_not_applied", rescan=job.rescan, error=str(error))
            return
        log.info("automatic_rescan_applied", rescan=job.rescan)


def span_ms(text: str) -> int:
    """Milliseconds of a span as the setting has it, such as 12h or 7d."""
    return int(text[:-1]) * _UNITS_MS[text[-1]]
