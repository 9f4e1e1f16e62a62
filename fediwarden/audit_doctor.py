"""What `fediwarden doctor` looks at in the audit: store, recorder, accounts, pages, intake, Lemmy's tables, alerts."""

import asyncio
from collections import Counter
from pathlib import Path

import httpx
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from federation_audit.accounts.users import is_anybody_there
from federation_audit.alerts import NoAlerts, apprise_notifier
from federation_audit.lemmy.errors import LemmyDatabaseError
from federation_audit.lemmy.service import check_databases
from federation_audit.recording.service import RECORDED_TOPICS
from federation_audit.store.engine import Store, parse_url
from federation_audit.store.errors import SchemaTooOld, StoreError
from federation_audit.store.migrating import check_schema
from federation_audit.store.queries import read_offsets
from federation_audit.store.tables import LEASE
from fediwarden.findings import Finding, Health
from fediwarden.kafka.preflight import find_listener
from fediwarden.settings import Settings
from fediwarden.up import FIRST_ACCOUNT, PAGES_PORT_REMEDY
from schemas.broker import AssignedReader, BrokerError, BrokerSettings
from schemas.clock import now_ms
from schemas.tls import TlsUnusable

_ANSWER_WITHIN_S = 5.0
_KAFKA_WITHIN_S = 10.0
_BEHIND_MANY = 10_000
_CLOCKS_DIFFER_MS = 2_000
_START = "start it with: fediwarden up (or fediwarden audit record)"


async def examine_audit(settings: Settings) -> list[Finding]:
    """Look at the audit. Changes nothing, raises nothing of ours."""
    store, offsets = await asyncio.to_thread(_look_at_store, settings)
    findings = list(store)
    if offsets is not None:
        findings += await _look_at_lag(settings.kafka.broker_settings(), offsets)
    running, pages = await _look_at_pages(settings)
    findings += [pages, await _look_at_intake(settings, running=running)]
    findings += [await _look_at_lemmy(settings, tenant) for tenant in settings.lemmy_databases]
    findings.append(await asyncio.to_thread(_look_at_alerts, settings))
    return findings


def _look_at_store(settings: Settings) -> tuple[list[Finding], dict[tuple[str, int], int] | None]:
    """What was found, and up to where the store is, where it can be asked."""
    url = parse_url(settings.audit_database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():  # to connect would make it
        if not settings.up.audit:
            return [Finding("audit", Health.OK, f"no store at {url.database}; up.audit is off")], None
        return [
            Finding("audit", Health.WARN, f"{url.database} is not there yet", _START),
            Finding("accounts", Health.WARN, "nobody can open the pages", FIRST_ACCOUNT),
        ], None
    findings = []
    try:
        with Store(settings.audit_database) as store:
            check_schema(store)
            with store.reading() as connection:
                offsets = read_offsets(connection)
                until = connection.execute(select(func.max(LEASE.c.until))).scalar() or 0
                somebody = is_anybody_there(connection)
                there = connection.execute(select(func.now())).scalar_one() if not store.is_sqlite else None
            name = store.name
    except SchemaTooOld as error:
        return [Finding("audit", Health.WARN, str(error), _START)], None
    except (StoreError, SQLAlchemyError) as error:
        said = str(error) if isinstance(error, StoreError) else f"{url.render_as_string()}: {type(error).__name__}"
        return [
            Finding("audit", Health.FAIL, said, "images are judged meanwhile; the recorder goes on from there")
        ], None
    now = now_ms()
    if there is not None and abs(there.timestamp() * 1000 - now) > _CLOCKS_DIFFER_MS:
        seconds = abs(there.timestamp() * 1000 - now) / 1000
        remedy = "keep both clocks right with chrony or systemd-timesyncd: who may write goes by them"
        findings.append(Finding("clock", Health.WARN, f"the database's clock is {seconds:.0f} s off", remedy))
    if until > now:
        findings.append(Finding("audit", Health.OK, f"{name}: schema is current, a recorder writes"))
    else:
        findings.append(Finding("audit", Health.WARN, f"{name}: schema is current, nobody records", _START))
    if somebody:
        findings.append(Finding("accounts", Health.OK, "there are accounts; `fediwarden users list` names them"))
    else:
        findings.append(Finding("accounts", Health.WARN, "nobody can open the pages yet", FIRST_ACCOUNT))
    return findings, offsets


async def _look_at_lag(broker: BrokerSettings, offsets: dict[tuple[str, int], int]) -> list[Finding]:
    """How far the store is behind the topics. Nothing where Kafka is away: that has a line of its own."""
    try:
        async with (
            asyncio.timeout(_KAFKA_WITHIN_S),
            AssignedReader(broker, RECORDED_TOPICS, starts={}, client_id="fediwarden-doctor") as reader,
        ):
            ends = await reader.ends()
    except (BrokerError, TimeoutError):
        return []
    behind: Counter[str] = Counter()
    for partition, end in ends.items():
        behind[partition.topic.name] += max(0, end - offsets.get((partition.topic.name, partition.number), 0))
    detail = f"{behind.total()} messages behind the topics"
    if behind.total() <= _BEHIND_MANY:
        return [Finding("audit", Health.OK, detail)]
    remedy = "wait while `fediwarden audit record` runs; a rebuild takes a while"
    return [Finding("audit", Health.WARN, f"{detail}, most in {behind.most_common(1)[0][0]}", remedy)]


async def _look_at_pages(settings: Settings) -> tuple[bool, Finding]:
    """Whether our pages answer, and the line about it."""
    url, port = settings.pages_url, settings.audit.pages.port
    if port == 0:
        return False, Finding("pages", Health.OK, "audit.pages.port is 0: any free port")
    try:
        verify = settings.audit.pages.tls.own_context() or True
        async with httpx.AsyncClient(base_url=url, timeout=_ANSWER_WITHIN_S, trust_env=False, verify=verify) as client:
            answer = await client.get("/healthz", headers={"host": _name_of(settings)})
    except TlsUnusable as error:
        return False, Finding("pages", Health.FAIL, f"audit.pages.tls: {error}", "name files that can be read")
    except httpx.ConnectError as error:
        holder = await asyncio.to_thread(find_listener, port)
        if settings.audit.pages.tls.enabled and holder:
            detail = f"what listens at {url} does not speak with our certificate ({error})"
            return False, Finding("pages", Health.FAIL, detail, "restart the audit, or see audit.pages.tls")
        return False, Finding("pages", Health.OK, f"not running; port {port} is free", "start them: fediwarden audit")
    except httpx.HTTPError as error:
        said = type(error).__name__
    else:
        if (answer.status_code, answer.text) == (200, "alive"):
            return True, Finding("pages", Health.OK, f"answer at {url}")
        said = str(answer.status_code)
    holder = await asyncio.to_thread(find_listener, port) or "something"
    detail = f"{holder} answers at {url}, and is no audit of ours ({said})"
    return False, Finding("pages", Health.FAIL, detail, f"stop it, or choose another port: {PAGES_PORT_REMEDY}")


def _name_of(settings: Settings) -> str:
    """A host name that the pages are served under."""
    pages = settings.audit.pages
    return httpx.URL(pages.public_url).host if pages.public_url else httpx.URL(settings.pages_url).host


async def _look_at_intake(settings: Settings, *, running: bool) -> Finding:
    """Whether origins are taken by HTTP; where the pages run, whether they know our tokens (by an empty request)."""
    tokens = settings.origin_tokens
    if not tokens:
        how = "to let other software tell: tenants.NAME.origins_token (docs/lemmy.md)"
        return Finding("intake", Health.OK, "POST /v1/origins is off, no tenant has a token", how)
    names = ", ".join(tokens)
    if not running:
        return Finding("intake", Health.OK, f"POST /v1/origins is for {names}, where the pages run")
    url = f"{settings.pages_url}/v1/origins"
    for tenant, token in tokens.items():
        headers = {"authorization": f"Bearer {token.get_secret_value()}"}
        try:
            verify = settings.audit.pages.tls.own_context() or True
            async with httpx.AsyncClient(timeout=_ANSWER_WITHIN_S, trust_env=False, verify=verify) as client:
                status = (await client.post(url, headers=headers, json={"origins": []})).status_code
        except httpx.HTTPError as error:
            return Finding("intake", Health.FAIL, f"no answer from {url} ({type(error).__name__})", "see the log")
        if status in (401, 404):
            detail = f"the pages that run do not know tenants.{tenant}.origins_token"
            return Finding("intake", Health.FAIL, detail, "start `fediwarden audit` anew, with these settings")
    return Finding("intake", Health.OK, f"POST /v1/origins is open to {names}")


async def _look_at_lemmy(settings: Settings, tenant: str) -> Finding:
    setting = f"tenants.{tenant}.lemmy_database"
    try:
        homes = await check_databases(settings.lemmy, {tenant: settings.lemmy_databases[tenant]})
    except LemmyDatabaseError as error:
        return Finding("lemmy", Health.FAIL, f"{setting}: {error}", "see docs/lemmy.md; fediwarden lemmy --check")
    home = homes[tenant]
    return Finding("lemmy", Health.OK, f"{setting}: Lemmy {home.shape.version} at {home.base}, readable")


def _look_at_alerts(settings: Settings) -> Finding:
    alerts = settings.audit.alerts
    if alerts.urls is None:
        return Finding("alerts", Health.OK, "off", "to be told by Apprise: audit.alerts.urls (docs/audit-pages.md)")
    try:
        apprise_notifier(alerts)
    except NoAlerts as error:
        return Finding("alerts", Health.FAIL, f"nobody is told: {error}", "mend audit.alerts.urls")
    count = len(alerts.urls.get_secret_value().split())
    detail = f"go to {count} address{'' if count == 1 else 'es'}, from level {alerts.level} on"
    if settings.audit.pages.public_url is None:
        return Finding("alerts", Health.WARN, f"{detail}, without links", "set audit.pages.public_url")
    return Finding("alerts", Health.OK, detail)
