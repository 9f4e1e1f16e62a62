"""`fediwarden up`: everything on one machine. Fetches what is missing, starts Kafka, enforcer, scanners and the
gateway, the audit, and what else the settings name, and keeps them running until it is told to stop.

Images come first: what belongs to the audit starts beside the rest at a lower priority, nobody waits for it, and when
it cannot run (a database that refuses us), images are judged all the same.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from fediwarden.children import ChildSpec, Stopped, Supervisor
from fediwarden.downloads import Downloads, Report
from fediwarden.kafka.cluster import DISK_REMEDY, Cluster, check_machine
from fediwarden.kafka.errors import PortTaken
from fediwarden.kafka.jars import prepare_jars
from fediwarden.kafka.preflight import check_port, disk_faults_named
from fediwarden.metrics.listening import port_under_up
from fediwarden.settings import Settings, SettingsError, environment_of
from schemas.broker import BrokerSettings, BrokerUnavailable, Received, Tail, apply_topics, check_topics
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import ScannerAnnounced
from schemas.topics import SCANNERS, TOPICS

log = structlog.get_logger("fediwarden.up")

GATEWAY_PORT_REMEDY = "--port, FEDIWARDEN_GATEWAY__PORT"
PAGES_PORT_REMEDY = "FEDIWARDEN_AUDIT__PAGES__PORT (or do without the audit: FEDIWARDEN_UP__AUDIT=false)"
FIRST_ACCOUNT = "fediwarden users add NAME --role admin"
_PROBE_EVERY_S = 0.05
_PORT_PATIENCE_S = 2.0
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - looked for, not listened on
_NOTICE_EVERY_S = 15.0
_HTTP_TIMEOUT_S = 2.0
_GATEWAY_STOPS_WITHIN_MORE_S = 10.0
_SCANNER_STOPS_WITHIN_S = 30.0
_STOPS_WITHIN_MORE_S = 15.0
_AUDIT_STOPS_WITHIN_S = 30.0
_ACCOUNTS_PATIENCE_S = 2.0
_PAGES_PATIENCE_S = 30.0  # on a small machine; what does not come at all keeps this message waiting, and nothing else
_STANDS_BACK = 5  # a third of what the others get, where there is not processor enough

Echo = Callable[[str], None]


class DataDirInUse(Exception):
    """Another `fediwarden up` runs on the same data directory."""


async def run_up(settings: Settings, *, scanners: int | None = None, echo: Echo | None = None) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; returns 0 then. A second signal kills what has not left yet.

    Call it in the main thread. `scanners` takes the place of the setting of that name. `echo` is told what is where,
    a line at a time; standard output by default.
    Raises what keeps it from starting: `SettingsError`, `DataDirInUse`, `fediwarden.kafka.errors.KafkaError`,
    `schemas.broker.BrokerError`, `schemas.keyring.KeyringError`, `scanner.models.model.ModelError`; and
    `fediwarden.children.ChildMisconfigured` when a service cannot run as it is configured. In each case what had
    been started is stopped first.
    """
    if settings.gateway.port == 0:
        raise SettingsError("gateway.port is 0 (any free one): `up` has to know where; choose one with --port")
    if settings.up.audit and settings.audit.pages.port == 0:
        raise SettingsError("audit.pages.port is 0 (any free one): `up` has to know where; choose one")
    say = echo or _write_line
    scanners = settings.scanners if scanners is None else scanners
    with disk_faults_named(settings.data_dir, remedy=DISK_REMEDY):
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with hold_data_dir(settings.data_dir):
        children = Supervisor()
        with children.signals():
            try:
                await children.until(_start(settings, scanners, children, say))
                await children.run()
            except Stopped:
                pass
            finally:  # inside `signals`, so that a second Ctrl-C can cut the stopping short
                await children.stop()
    return 0


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def hold_data_dir(directory: Path) -> Iterator[None]:
    """Keep every other `up` away from `directory`. Raises `DataDirInUse`, which names the process that has it."""
    path = directory / "up.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise DataDirInUse(
                f"A fediwarden (pid {holder}) runs on {directory} already. "
                "Stop it, or give this one a directory and ports of its own: --data-dir, --port, --kafka-port."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def _start(settings: Settings, scanners: int, children: Supervisor, say: Echo) -> None:
    check_ports(settings, scanners)
    if settings.kafka.embedded:  # before minutes of downloading, not after
        check_machine(settings.data_dir / "kafka", port=settings.kafka.port, min_free_gb=settings.kafka.min_free_gb)
    Keyring.load_or_create(settings.keys_file)
    classpath = await _fetch(settings, children)
    broker = settings.kafka.broker_settings()
    if settings.kafka.embedded:
        await _start_kafka(settings, classpath, children)
        await ask_patiently(lambda: apply_topics(broker))
    else:
        await check_topics(broker, TOPICS)
    if scanners:
        await ask_patiently(lambda: _fetch_promoted(settings, broker, children))
    started_at = now_ms()
    asking = asyncio.create_task(asyncio.to_thread(_wants_first_account, settings))
    for service in _services(settings, scanners):
        children.start(service)
    await _await_services(settings, broker, scanners, started_at)
    pages_answer = await _await_pages(settings)
    await asyncio.wait([asking], timeout=_ACCOUNTS_PATIENCE_S)
    wants_first_account = asking.done() and asking.result()
    for line in describe(settings, scanners, wants_first_account=wants_first_account, pages_answer=pages_answer):
        say(line)


def check_ports(settings: Settings, scanners: int) -> None:
    """Raise `PortTaken` where a port of ours is not free, or two settings name the same."""
    named: dict[int, list[tuple[str, str]]] = {}
    if settings.kafka.embedded:
        named[settings.kafka.port] = [(_LOOPBACK, "Kafka")]
    for host, port, purpose, remedy in _ports(settings, scanners):
        for other_host, other in named.get(port, []):
            if port and (host == other_host or {host, other_host} & _EVERYWHERE):
                raise PortTaken(
                    f"Port {port} is named twice, for {other} and for {purpose}. Choose another port: {remedy}."
                )
        named.setdefault(port, []).append((host, purpose))
        check_port(host, port, purpose=purpose, remedy=remedy, patience_s=_PORT_PATIENCE_S)


def _ports(settings: Settings, scanners: int) -> Iterator[tuple[str, int, str, str]]:
    """The ports that have to be free: host, port, what for, what chooses another."""
    yield settings.gateway.host, settings.gateway.port, "the gateway", GATEWAY_PORT_REMEDY
    if settings.up.audit:
        yield settings.audit.pages.host, settings.audit.pages.port, "the audit's pages", PAGES_PORT_REMEDY
    names = [*(["recorder"] if settings.up.audit else []), "enforcer", *_names_of_scanners(scanners)]
    if settings.up.lemmy and settings.lemmy_databases:
        names.append("lemmy")
    for name in names:
        if (port := port_under_up(settings.metrics, name)) is not None:
            yield settings.metrics.host, port, f"the metrics of {name}", "FEDIWARDEN_METRICS__PORT"
    if settings.up.relay:
        relay, variable = settings.relay, "FEDIWARDEN_RELAY__"
        yield relay.host, relay.health_port, "the relay's health", f"{variable}HEALTH_PORT"
        for name, tenant in settings.tenants.items():
            if tenant.pict_rs is not None:
                port = relay.port if tenant.relay_port is None else tenant.relay_port
                remedy = f"{variable}PORT" if tenant.relay_port is None else f"tenants.{name}.relay_port"
                yield relay.host, port, f"the relay before {name}'s pict-rs", remedy


def _names_of_scanners(scanners: int) -> list[str]:
    return ["scanner"] if scanners == 1 else [f"scanner-{number}" for number in range(1, scanners + 1)]


def _services(settings: Settings, scanners: int) -> Iterator[ChildSpec]:
    """What to run, in the order of starting. The last is stopped first: who writes to Kafka before who reads there."""

    def service(name: str, command: str, stop_within_s: float, its_own: Settings | None = None) -> ChildSpec:
        return ChildSpec(
            name=name,
            argv=(sys.executable, "-P", "-m", "fediwarden", *command.split()),  # -P: not what lies in this directory
            environment=environment_of(_with_metrics_port(its_own or settings, name)),
            stop_within_s=stop_within_s,
        )

    def aside(name: str, command: str, stop_within_s: float) -> ChildSpec:
        return replace(service(name, command, stop_within_s), niceness=_STANDS_BACK, essential=False)

    if settings.up.audit:
        yield aside("recorder", "audit record", _AUDIT_STOPS_WITHIN_S)
    # Stopped after those whose verdicts it carries out.
    yield service("enforcer", "enforcer", settings.enforcer.stop_s + _STOPS_WITHIN_MORE_S)
    for number, name in enumerate(_names_of_scanners(scanners)):
        yield service(name, "scanner", _SCANNER_STOPS_WITHIN_S, settings_of_scanner(settings, name, number))
    if settings.up.lemmy and settings.lemmy_databases:
        yield aside("lemmy", "lemmy", settings.lemmy.stop_s + _STOPS_WITHIN_MORE_S)
    yield service("gateway", "gateway", settings.gateway.drain_s + _GATEWAY_STOPS_WITHIN_MORE_S)
    if settings.up.audit:
        yield aside("audit", "audit", _AUDIT_STOPS_WITHIN_S)
    if settings.rescan.automatic:
        yield aside("rescans", "rescan watch", _STOPS_WITHIN_MORE_S)
    if settings.up.relay:
        yield service("relay", "relay", settings.relay.drain_s + _STOPS_WITHIN_MORE_S)


def _with_metrics_port(settings: Settings, name: str) -> Settings:
    """The settings of a child: of the row of ports for metrics, its own."""
    metrics = settings.metrics.model_copy(update={"port": port_under_up(settings.metrics, name)})
    return settings.model_copy(update={"metrics": metrics})


def _wants_first_account(settings: Settings) -> bool:
    """Whether the pages run and nobody can log in yet. That a store does not answer is for the pages to say."""
    if not settings.up.audit:
        return False
    if settings.audit.database is None and not (settings.data_dir / "audit.sqlite").exists():
        return True
    from federation_audit.accounts.users import is_anybody_there
    from federation_audit.store.engine import Store
    from federation_audit.store.errors import StoreError

    try:
        with Store(settings.audit_database) as store, store.reading() as connection:
            return not is_anybody_there(connection)
    except StoreError:
        return False


def settings_of_scanner(settings: Settings, name: str, number: int) -> Settings:
    """The settings of the scanner `name`, the `number`th from 0: its device, and what gives it its partitions back.

    The host's name, and the data directory, which no two `up` of one machine share, tell those of one cluster apart.
    """
    host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())[:100]
    place = hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:8]
    base = settings.scanner.instance or f"{host}-{place}"
    changes: dict[str, object] = {"instance": f"{base}-{name}"}
    if settings.scanner_devices:
        changes["device"] = settings.scanner_devices[number % len(settings.scanner_devices)]
    scanner = settings.scanner.model_copy(update=changes)
    return settings.model_copy(update={"scanner": scanner})


async def _fetch(settings: Settings, children: Supervisor) -> tuple[Path, ...]:
    """Jars (none with a Kafka of one's own) and model weights, at the same time."""
    failed = threading.Event()
    with Downloads() as downloads:

        def interruptible(report: Report) -> Report:
            def follow(done: int, total: int) -> None:
                if children.stopping or failed.is_set():  # a thread cannot be cancelled from outside
                    raise Stopped("told to stop")
                report(done, total)

            return follow

        def fetch_jars() -> tuple[Path, ...]:
            if not settings.kafka.embedded:
                return ()
            return prepare_jars(
                settings.cache_dir,
                home=settings.kafka.home,
                report=interruptible(downloads.track("Apache Kafka")),
            )

        def fetch_weights() -> None:
            fetch_models(settings, settings.scanner.models, interruptible(downloads.track("models")))

        try:
            classpath, _ = await asyncio.gather(asyncio.to_thread(fetch_jars), asyncio.to_thread(fetch_weights))
        finally:
            failed.set()
    return classpath


def fetch_models(settings: Settings, names: Sequence[str], report: Report) -> None:
    """Fetch the weights of the models `names` that are not there yet. Raises a `scanner.models.model.ModelError`."""
    from scanner.models.registry import ModelState, fetch, load_registry, state

    registry = load_registry(settings.scanner.registry)
    directory = settings.models_dir
    wanted = [name for name in names if state(registry.entry(name), directory) is not ModelState.READY]
    if wanted:
        fetch(registry, wanted, directory, report)


async def _fetch_promoted(settings: Settings, broker: BrokerSettings, children: Supervisor) -> None:
    """Fetch the models that are promoted for our scanners. Where that fails, they judge with those of the settings."""
    from scanner.models.model import ModelError
    from scanner.promotion.promoted import read_promoted

    promoted = (await read_promoted(broker, client_id="fediwarden-up")).of(settings.scanner.group)
    names = [name for name in promoted.models if name not in settings.scanner.models] if promoted else []
    if not names:
        return
    with Downloads() as downloads:
        show = downloads.track("promoted models")

        def report(done: int, total: int) -> None:
            if children.stopping:
                raise Stopped("told to stop")
            show(done, total)

        try:
            await asyncio.to_thread(fetch_models, settings, names, report)
        except ModelError as error:
            log.warning("promoted_models_not_fetched", models=names, error=str(error))


async def _start_kafka(settings: Settings, classpath: tuple[Path, ...], children: Supervisor) -> None:
    kafka = settings.kafka
    cluster = await asyncio.to_thread(
        Cluster,
        settings.data_dir / "kafka",
        port=kafka.port,
        classpath=classpath,
        heap_mb=kafka.heap_mb,
        min_free_gb=kafka.min_free_gb,
        java_options=kafka.java_options,
    )
    await asyncio.to_thread(cluster.prepare)
    children.start(*cluster.specs())
    notice = _Notice("Kafka")
    while not await asyncio.to_thread(cluster.is_ready):
        for node in cluster.nodes.values():
            if children.exits(node.name):
                raise cluster.failure(node.node_id, "it ended at once")
        notice.give()
        await asyncio.sleep(_PROBE_EVERY_S)  # another process gives no event when it is ready
    log.info("kafka_ready", bootstrap_servers=cluster.bootstrap_servers, log_file=str(cluster.nodes[1].log_file))


async def _await_services(settings: Settings, broker: BrokerSettings, scanners: int, started_at: int) -> None:
    """Wait until the gateway is ready and as many scanners as were started have announced themselves."""
    announced: set[str] = set()
    enough = asyncio.Event()

    def note(received: Received) -> None:
        message = received.message
        if not isinstance(message, ScannerAnnounced) or not message.policies:  # the latter: a shadow
            return
        if message.announced_at >= started_at and not message.leaving:
            announced.add(message.scanner)
            if len(announced) >= scanners:
                enough.set()

    async def watch_scanners() -> None:
        async with Tail(broker, [SCANNERS], since_s=5.0, on_record=note, client_id="fediwarden-up"):
            notice = _Notice("scanners")
            while not enough.is_set():
                notice.give(ready=len(announced), of=scanners)
                try:
                    async with asyncio.timeout(1.0):
                        await enough.wait()
                except TimeoutError:
                    continue

    async def await_gateway() -> None:
        notice = _Notice("gateway")
        tls = settings.gateway.tls.own_context()
        while True:
            status, said = await asyncio.to_thread(_ask_ready, settings.gateway_url, tls)
            if status == http.HTTPStatus.OK:
                return
            notice.give(status=status, said=said)
            await asyncio.sleep(_PROBE_EVERY_S)

    async def await_scanners() -> None:
        if scanners:
            await ask_patiently(watch_scanners)

    await asyncio.gather(await_gateway(), await_scanners())


async def _await_pages(settings: Settings) -> bool:
    """Wait until something listens where the audit's pages will, for a while; whether it does."""
    if not settings.up.audit:
        return False
    pages = settings.audit.pages
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PAGES_PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(pages.host, pages.port)
                except OSError:
                    await asyncio.sleep(_PROBE_EVERY_S)
                else:
                    writer.close()
                    return True
    return False


async def ask_patiently(ask: Callable[[], Awaitable[object]]) -> None:
    """Do `ask`, again while no broker answers: a Kafka that has just come up may be slow for a while."""
    notice = _Notice("Kafka")
    while True:
        try:
            await ask()
            return
        except BrokerUnavailable as error:
            notice.give(error=str(error))
            await asyncio.sleep(_PROBE_EVERY_S)


class _Notice:
    """Says now and then what is still waited for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._clock = asyncio.get_running_loop().time
        self._since = self._last = self._clock()

    def give(self, **known: object) -> None:
        """Log a line, unless one was logged lately."""
        if self._clock() - self._last >= _NOTICE_EVERY_S:
            self._last = self._clock()
            log.info("still_waiting", waiting_for=self._what, seconds=round(self._last - self._since), **known)


def _ask_ready(url: str, tls: ssl.SSLContext | None) -> tuple[int | None, str]:
    """The status of the gateway's /readyz and what it says; None while nothing answers."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port
    connection = (
        http.client.HTTPConnection(host, port, timeout=_HTTP_TIMEOUT_S)
        if tls is None
        else http.client.HTTPSConnection(host, port, timeout=_HTTP_TIMEOUT_S, context=tls)
    )
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        connection.close()


def describe(
    settings: Settings, scanners: int, *, wants_first_account: bool = False, pages_answer: bool = True
) -> list[str]:
    """What is where, and a line to try it with."""
    kafka = settings.kafka.broker_settings().bootstrap_servers
    where = (
        f"its log: {settings.data_dir / 'kafka' / 'node-1' / 'logs' / 'server.log'}" if settings.kafka.embedded else ""
    )
    url = settings.gateway_url
    return [
        "",
        "fediwarden is up.",
        f"  gateway   {url}  (API: {url}/openapi.json, metrics: {url}/metrics)",
        f"  kafka     {kafka}  {where}".rstrip(),
        f"  scanners  {scanners}, with {', '.join(settings.scanner.models)}",
        f"  enforcer  {_enforcement(settings)}",
        *_describe_audit(settings, wants_first_account=wants_first_account, pages_answer=pages_answer),
        f"  data      {settings.data_dir}",
        "Try it:",
        f"  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' {url}/api/v1/scan/{_key(settings)}",
        "Ctrl-C stops everything.",
        "",
    ]


def _describe_audit(settings: Settings, *, wants_first_account: bool, pages_answer: bool) -> Iterator[str]:
    if settings.up.relay:
        before = [name for name, tenant in settings.tenants.items() if tenant.pict_rs is not None]
        yield f"  relay     before the pict-rs of {', '.join(before)}; Lemmy's pictrs.url points to it (docs/relay.md)"
    if settings.up.lemmy and settings.lemmy_databases:
        yield f"  lemmy     asks the database of {', '.join(settings.lemmy_databases)}, read-only"
    if settings.up.audit:
        late = "" if pages_answer else "  (does not answer yet; its log says why)"
        yield f"  audit     {settings.audit.pages.public_url or settings.pages_url}{late}"
        if wants_first_account:
            yield f"            make the first account: {FIRST_ACCOUNT}"


def _enforcement(settings: Settings) -> str:
    enforced = [name for name, tenant in settings.tenants.items() if tenant.pict_rs_api_key is not None]
    if not enforced:
        return "removes nothing from pict-rs: no tenant has pict_rs_api_key (docs/pict-rs.md)"
    rehearsing = " (dry run: only reports)" if settings.enforcer.dry_run else ""
    return f"removes what is rejected late from the pict-rs of {', '.join(enforced)}{rehearsing}"


def _key(settings: Settings) -> str:
    """What goes into the URL: the reserved word where some tenant is reached by it, else a place to fill in."""
    return "IPADDR" if any(tenant.key is None for tenant in settings.tenants.values()) else "YOUR_TENANT_KEY"
