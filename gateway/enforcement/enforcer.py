"""Late verdicts carried out: rejected files are looked for in their tenant's pict-rs, and purged."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import structlog
from structlog.contextvars import bind_contextvars

from gateway.answers import is_accepted
from gateway.enforcement.cases import Case, Look, Rejection
from gateway.enforcement.metrics import EnforcerMetrics
from gateway.enforcement.pace import Pace, pause_after
from gateway.enforcement.pict_rs import PictRs, PictRsError, PictRsUnexpected
from gateway.enforcement.settings import EnforcerSettings
from gateway.overrides.memory import Overrides, explain, looks_in
from gateway.settings import TenantSettings
from schemas.broker import Consumer, Producer, PublishRefused, Received
from schemas.clock import now_ms
from schemas.messages import (
    Decision,
    EnforcementOutcome,
    EnforcementReported,
    OverrideEffect,
    OverrideSet,
    Stage,
    Verdict,
)
from schemas.telemetry import tracing
from schemas.topics import ENFORCEMENTS, IMAGES_ARCHIVE

log = structlog.get_logger("gateway.enforcement")

_POLL_TIMEOUT_S = 1.0
_POLL_MOST = 500
_GONE_WITHIN_S = 10.0
_ASK_AGAIN_S = 0.1
_ASK_AGAIN_MOST_S = 2.0
_CLOCKS_DIFFER_S = 86_400.0  # both times are of the scanner's clock, which may be in the wrong time zone
_ALIASES_MOST = 500
_DETAIL_MOST = 1000
_NO_LENGTH = "the verdict does not say the file's length (its scanner is older): pict-rs cannot be asked for it"


@dataclass(frozen=True, slots=True)
class Store:
    """Where a tenant keeps its files, and how fast it may be asked."""

    pict_rs: PictRs
    pace: Pace


@dataclass(frozen=True, slots=True)
class _Found:
    """What one look came to, and when (the event loop's clock) it began."""

    outcome: EnforcementOutcome
    aliases: tuple[str, ...]
    began_at: float
    detail: str = ""


class Enforcer:
    """Sees every verdict of `consumer` through to `done`.

    What was imported is done at once, whatever it says: it is history, and the image may have been judged otherwise
    since. So is a verdict that its tenant accepts, unless `overrides` deny the image. For another, images.archive
    gets a tombstone (where the decision is reject: what is only to be reviewed is archived on purpose), and the file is
    looked for in the tenant's store, where it has one in `stores`, at once and after each of `checks_s`; what is found
    is purged. Each look is reported in the topic enforcements; one that fails is made again until it succeeds. Only
    then the verdict is done.

    What `overrides` allow stays where it is, which is reported at each look: it may be taken back between two.
    """

    def __init__(
        self,
        settings: EnforcerSettings,
        *,
        name: str,
        consumer: Consumer,
        producer: Producer,
        tenants: Mapping[str, TenantSettings],
        stores: Mapping[str, Store],
        overrides: Overrides,
        metrics: EnforcerMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics or EnforcerMetrics()
        self._name = name
        self._consumer = consumer
        self._producer = producer
        self._tenants = tenants
        self._stores = stores
        self._overrides = overrides
        self._cases: dict[tuple[str, bytes], Case] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[Case] = set()
        self._open = 0
        self._room = asyncio.Event()
        self._room.set()
        self._rested = asyncio.Event()
        self._full = False
        self._stopping = False
        self._strangers: set[str] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        clock = asyncio.get_running_loop().time
        self._metrics.watch(lambda: self._open, lambda: self._overdue_s(clock()))
        for tenant, store in stores.items():
            self._metrics.pict_rs_up.labels(tenant).set_function(partial(_is_up, store.pace))

    async def take(self) -> None:
        """Read verdicts until cancelled. Raises a `BrokerError`, or what kept a rejection from its end."""
        while True:
            await self._room.wait()
            if self._failed.done():
                self._failed.result()
            most = min(_POLL_MOST, self._settings.max_open - self._open)
            for received in await self._consumer.poll(max_messages=most, timeout_s=_POLL_TIMEOUT_S):
                self._sort(received)
            if self._open >= self._settings.max_open:
                self._room.clear()
                if not self._full:  # one line until half of them have ended
                    log.warning("too_many_open_rejections", open=self._open, setting="enforcer.max_open")
                self._full = True
            elif self._open <= self._settings.max_open // 2:
                self._full = False

    async def finish(self, within_s: float) -> int:
        """Let the looks in hand end within so many seconds; how many verdicts are left to be read again."""
        self._stopping = True
        try:
            async with asyncio.timeout(within_s):
                while self._busy:
                    self._rested.clear()
                    await self._rested.wait()
        except TimeoutError:
            pass
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._open

    def _overdue_s(self, now: float) -> float:
        due = [look.at for case in tuple(self._cases.values()) if (look := case.next) is not None]
        return max(0.0, now - min(due, default=now))

    def _sort(self, received: Received) -> None:
        """Open a case for a rejection; everything else is done."""
        verdict = received.message
        if received.fault is not None:
            place = {"partition": received.partition, "offset": received.offset}
            log.error("verdict_unreadable", reason=received.fault.reason, error=str(received.fault), **place)
        if isinstance(verdict, Verdict) and not received.imported and self._concerns_us(verdict):
            self._open_case(verdict, replace(received, message=None, key=None))  # a verdict's scores are not needed
        else:
            self._consumer.done(received)

    def _concerns_us(self, verdict: Verdict) -> bool:
        tenant = self._tenants.get(verdict.tenant)
        if tenant is None:
            self._note_stranger(verdict.tenant)
        elif verdict.tenant in self._stores and not is_accepted(self._decision_on(verdict), tenant):
            return True
        return self._must_erase(verdict)

    def _must_erase(self, verdict: Verdict) -> bool:
        """Whether images.archive may hold what it must not keep."""
        return self._decision_on(verdict) is Decision.REJECT and not self._settings.dry_run

    def _decision_on(self, verdict: Verdict) -> Decision:
        """The verdict's own decision, or that of a denial. (What an allowance keeps is for each look to find out.)"""
        override = self._overrides.of_image(verdict.tenant, verdict.sha256, looks_in(verdict))
        if override is not None and override.effect is OverrideEffect.DENY:
            return Decision.REJECT
        if verdict.stage is Stage.OVERRIDE and override is None:
            return Decision.ACCEPT  # the denial has been taken back, or has expired
        return verdict.decision

    def _allowance(self, rejection: Rejection) -> OverrideSet | None:
        """The override that keeps this file, if there is one now."""
        override = self._overrides.of_image(rejection.tenant, rejection.sha256, rejection.looks)
        return override if override is not None and override.effect is OverrideEffect.ALLOW else None

    def _note_stranger(self, tenant: str) -> None:
        if tenant not in self._strangers:
            self._strangers.add(tenant)
            log.warning("tenant_unknown", tenant=tenant, remedy="give the enforcer the gateway's tenants")

    def _open_case(self, verdict: Verdict, received: Received) -> None:
        rejection = Rejection(
            scan_id=verdict.scan_id,
            tenant=verdict.tenant,
            sha256=verdict.sha256,
            length=verdict.length,
            media_type=verdict.media_type,
            judged_at=verdict.judged_at,
            looks=looks_in(verdict),
            trace=received.trace,
        )
        key = (rejection.tenant, rejection.sha256)
        case = self._cases.get(key)
        is_new = case is None
        if case is None:
            case = self._cases[key] = Case()
        case.add(rejection, received, asyncio.get_running_loop().time(), self._checks_of(verdict, received))
        case.must_erase |= self._must_erase(verdict)
        self._open += 1
        if is_new:
            task = asyncio.create_task(self._see_through(case))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _checks_of(self, verdict: Verdict, received: Received) -> tuple[float, ...]:
        """When to look again: not at all where nothing can be found, or pict-rs must have stored the file long ago."""
        if verdict.tenant not in self._stores or not verdict.length:
            return ()
        if verdict.stage is Stage.RESCAN:  # thousands at once, of images that came days before
            return (
                () if now_ms() - verdict.received_at > self._settings.checks_s[-1] * 1000 else self._settings.checks_s
            )
        age_s = (now_ms() - max(verdict.judged_at, received.timestamp_ms)) / 1000
        return () if age_s > self._settings.checks_s[-1] + _CLOCKS_DIFFER_S else self._settings.checks_s

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._room.set()

    async def _see_through(self, case: Case) -> None:
        bind_contextvars(scan_id=case.rejection.scan_id)  # of this file's task
        while (look := case.next) is not None and not self._stopping:
            if case.must_erase:
                case.must_erase = False  # a verdict that comes while we publish wants a tombstone of its own
                if self._allowance(case.rejection) is None:
                    await self._producer.publish(IMAGES_ARCHIVE, None, key=case.rejection.sha256)
            elif await case.reached(look) and not self._stopping:
                rejection = case.rejection
                with tracing.span(
                    "enforce", kind="consumer", scan_id=rejection.scan_id, parent=rejection.trace, check=look.check
                ):
                    await self._look(case, look)
        if not self._stopping:
            del self._cases[case.rejection.tenant, case.rejection.sha256]

    async def _look(self, case: Case, look: Look) -> None:
        """Look once, report what came of it, and settle the verdicts that waited for it."""
        store = self._stores.get(case.rejection.tenant)
        began_at = asyncio.get_running_loop().time()
        allowance = self._allowance(case.rejection)
        if store is not None and allowance is not None:
            allowed, final = EnforcementOutcome.ALLOWED, case.ends_with(look)
            await self._report(case.rejection, look, allowed, attempt=1, final=final, detail=explain(allowance))
        elif store is not None and case.rejection.length:
            await self._ask(case, look, store)
            return
        elif store is not None:
            failed, final = EnforcementOutcome.FAILED, case.ends_with(look)
            await self._report(case.rejection, look, failed, attempt=1, final=final, detail=_NO_LENGTH)
        self._settle(case, look, began_at)

    async def _ask(self, case: Case, look: Look, store: Store) -> None:
        """Have pict-rs asked when it is its turn; after a failure, return when it may be asked again."""
        rejection = case.rejection
        attempt = case.failures + 1
        try:
            found = await store.pace.call(lambda: self._enforce(case, store.pict_rs, rejection))
            final = case.ends_with(look)
            await self._report(
                rejection,
                look,
                found.outcome,
                attempt=attempt,
                final=final,
                aliases=found.aliases,
                detail=found.detail,
            )
            self._settle(case, look, found.began_at)
            return
        except PictRsError as error:
            detail = str(error)
        except Exception as error:
            # The edge of one file's task. A fault of ours that ended the process here would end every one that comes
            # after it, at the same verdict; so it is logged, reported, and tried again, and holds up no other file.
            log.exception("look_failed_unexpectedly", scan_id=rejection.scan_id, tenant=rejection.tenant)
            detail = f"{type(error).__name__}: {error}"
        finally:
            self._rest(case)
        case.failures = attempt
        await self._report(rejection, look, EnforcementOutcome.FAILED, attempt=attempt, detail=detail)
        await asyncio.sleep(pause_after(attempt, self._settings.retry_most_s))

    def _rest(self, case: Case) -> None:
        self._busy.discard(case)
        self._rested.set()

    def _settle(self, case: Case, look: Look, began_at: float) -> None:
        for received in case.confirm(look, began_at):
            self._consumer.done(received)
            self._open -= 1
        if self._open < self._settings.max_open:
            self._room.set()

    async def _enforce(self, case: Case, pict_rs: PictRs, rejection: Rejection) -> _Found:
        """Look the file up and purge it. Raises `PictRsError`, also when the file is still there after a purge."""
        began_at = asyncio.get_running_loop().time()
        self._busy.add(case)
        facts = {"scan_id": rejection.scan_id, "sha256": rejection.sha256.hex(), "tenant": rejection.tenant}
        aliases = await pict_rs.find(rejection.sha256, rejection.length, rejection.media_type)
        if not aliases:
            return _Found(EnforcementOutcome.ABSENT, (), began_at)
        if (allowance := self._allowance(rejection)) is not None:  # set while pict-rs was asked, or waited for
            return _Found(EnforcementOutcome.ALLOWED, aliases, began_at, explain(allowance))
        if self._settings.dry_run:
            log.info("would_remove", aliases=aliases[:_ALIASES_MOST], **facts)
            return _Found(EnforcementOutcome.WOULD_REMOVE, aliases, began_at)
        for alias in aliases:
            await pict_rs.purge(alias)
        await self._await_gone(pict_rs, rejection)
        log.info("removed", aliases=aliases[:_ALIASES_MOST], **facts)
        return _Found(EnforcementOutcome.REMOVED, aliases, began_at)

    async def _await_gone(self, pict_rs: PictRs, rejection: Rejection) -> None:
        """Wait until pict-rs, which queues a purge, has done it."""
        clock = asyncio.get_running_loop().time
        give_up_at, pause = clock() + _GONE_WITHIN_S, _ASK_AGAIN_S
        while await pict_rs.find(rejection.sha256, rejection.length, rejection.media_type):
            if clock() > give_up_at:
                raise PictRsUnexpected(
                    f"{pict_rs.address} took the purge and still has the file {_GONE_WITHIN_S:g} s later; see its log"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _ASK_AGAIN_MOST_S)

    async def _report(
        self,
        rejection: Rejection,
        look: Look,
        outcome: EnforcementOutcome,
        *,
        attempt: int,
        final: bool = False,
        aliases: tuple[str, ...] = (),
        detail: str = "",
    ) -> None:
        self._metrics.looks[outcome].inc()
        if len(aliases) > _ALIASES_MOST:
            detail = f"{len(aliases)} aliases, of which {_ALIASES_MOST} are named"
        report = EnforcementReported(
            scan_id=rejection.scan_id,
            tenant=rejection.tenant,
            sha256=rejection.sha256,
            outcome=outcome,
            check=look.check,
            attempt=attempt,
            final=final,
            aliases=aliases[:_ALIASES_MOST],
            detail=detail[:_DETAIL_MOST],
            judged_at=rejection.judged_at,
            enforced_at=now_ms(),
            enforcer=self._name,
        )
        try:
            await self._producer.publish(ENFORCEMENTS, report, key=rejection.sha256)
        except PublishRefused as error:
            log.error("report_refused", scan_id=rejection.scan_id, tenant=rejection.tenant, error=str(error))


def _is_up(pace: Pace) -> float:
    return float(not pace.failing)
