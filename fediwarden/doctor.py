"""What `fediwarden doctor` looks at: everything a fediwarden needs on this machine, each with its remedy."""

import asyncio
import ctypes
import os
import shutil
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import httpx
from pydantic import SecretStr

from fediwarden.audit_doctor import examine_audit
from fediwarden.findings import Finding, Health
from fediwarden.kafka.cluster import PORT_REMEDY
from fediwarden.kafka.preflight import find_listener
from fediwarden.kafka.settings import LOOPBACK
from fediwarden.promotion.examining import examine_promotion
from fediwarden.settings import Settings
from gateway.enforcement.pict_rs import PictRs, PictRsError
from gateway.frames.pool import FramePool
from scanner.models.entries import CheckpointEntry
from scanner.models.extra import check_extra
from scanner.models.model import ModelError
from scanner.models.registry import ModelDamaged, ModelMissing, load_registry, verify
from schemas.broker import BrokerError, BrokerUnavailable, diff_topics
from schemas.keyring import Keyring, KeyringError
from schemas.tls import TlsUnusable

_ANSWER_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 1.0
_CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of ntp_adjtime(3)
_TIMEX_BYTES = 512  # more than struct timex has anywhere; its first member, modes = 0, means "only look"
_LOW_DISK_FACTOR = 3


async def examine(settings: Settings, *, pict_rs: str | None = None) -> list[Finding]:
    """Look at everything, in the order a fediwarden needs it. Changes nothing, raises nothing of ours.

    `pict_rs` is the address of a pict-rs to look at besides those that the tenants name.
    """
    looks: list[Callable[[], Awaitable[Iterable[Finding]]]] = [
        lambda: _in_thread(_look_at_disk, settings),
        lambda: _in_thread(_look_at_clock),
        lambda: _in_thread(_look_at_key_file, settings),
        lambda: _in_thread(_look_at_models, settings),
        lambda: _look_at_sandbox(settings),
        lambda: _look_at_kafka(settings),
        lambda: _look_at_gateway(settings),
        lambda: examine_audit(settings),
    ]
    looks += [partial(_look_at_pict_rs, url, key) for url, key in _named_pict_rs(settings, pict_rs).items()]
    return [finding for look in looks for finding in await look()]


async def _in_thread(look: Callable[..., Iterable[Finding]], *arguments: object) -> Iterable[Finding]:
    return await asyncio.to_thread(look, *arguments)


def _look_at_disk(settings: Settings) -> list[Finding]:
    findings = []
    for name, directory in (("data_dir", settings.data_dir), ("cache_dir", settings.cache_dir)):
        place = directory
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK | os.X_OK):
            remedy = f"chown it to this user, or set {name} to a directory of ours"
            # An image has models and jars inside and is read-only: that they are there is another finding.
            is_filled = directory == settings.cache_dir and directory.exists()
            health = Health.WARN if is_filled else Health.FAIL
            remedy += ", unless all that it needs is in it" if is_filled else ""
            findings.append(Finding("disk", health, f"{name} {directory}: {place} cannot be written to", remedy))
            continue
        free = shutil.disk_usage(place).free / 1e9
        needed = settings.kafka.min_free_gb
        detail = f"{name} {directory}: {free:.1f} GB free"
        remedy = f"free some room, or set {name} to a larger disk"
        if free < needed:
            findings.append(Finding("disk", Health.FAIL, f"{detail}, {needed:g} GB are needed", remedy))
        elif free < _LOW_DISK_FACTOR * needed:
            findings.append(Finding("disk", Health.WARN, detail, remedy))
        else:
            findings.append(Finding("disk", Health.OK, detail))
    return findings


def _look_at_clock() -> list[Finding]:
    """Ask the kernel whether something keeps its clock right. Deadlines and retention go by it."""
    if not sys.platform.startswith("linux"):
        return [Finding("clock", Health.OK, "not checked on this system")]
    state = ctypes.CDLL(None, use_errno=True).ntp_adjtime(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state < 0:
        return [Finding("clock", Health.OK, f"the kernel does not tell ({os.strerror(ctypes.get_errno())})")]
    if state == _CLOCK_UNSYNCHRONISED:
        remedy = "install chrony or systemd-timesyncd (in a container or virtual machine: on its host)"
        return [Finding("clock", Health.WARN, "nothing keeps the clock synchronised", remedy)]
    return [Finding("clock", Health.OK, "synchronised")]


def _look_at_key_file(settings: Settings) -> list[Finding]:
    path = settings.keys_file
    if not path.exists():
        return [Finding("key file", Health.WARN, f"{path} is not there yet", "the first `fediwarden up` makes it")]
    try:
        keyring = Keyring.load(path)
    except KeyringError as error:
        return [Finding("key file", Health.FAIL, str(error))]
    mode = stat.S_IMODE(path.stat().st_mode)
    return [Finding("key file", Health.OK, f"{path}: {len(keyring.key_ids)} key(s), mode {mode:04o}")]


def _look_at_models(settings: Settings) -> list[Finding]:
    findings = []
    try:
        registry = load_registry(settings.scanner.registry)
    except ModelError as error:
        return [Finding("models", Health.FAIL, str(error), "see scanner.registry")]
    for name in settings.scanner.models:
        try:
            entry = registry.entry(name)
            verify(entry, settings.models_dir)
            if isinstance(entry, CheckpointEntry):
                check_extra(name)
        except (ModelMissing, ModelDamaged) as error:
            missing = isinstance(error, ModelMissing)
            health = Health.WARN if missing else Health.FAIL
            detail = f"{name} is {'not fetched yet' if missing else 'not the registered file'}"
            findings.append(Finding("models", health, detail, f"fediwarden models fetch {name}"))
        except ModelError as error:
            findings.append(Finding("models", Health.FAIL, str(error)))
        else:
            findings.append(Finding("models", Health.OK, f"{name}: weights verified"))
    return findings


async def _look_at_sandbox(settings: Settings) -> list[Finding]:
    """Start real frame workers: only they can say what this kernel let them close."""
    pool = FramePool(settings.gateway.frames.model_copy(update={"workers": 1}))
    try:
        await pool.start()
    except RuntimeError as error:
        remedy = "the gateway cannot work like this: look at memory and at the limit on processes (ulimit -u)"
        return [Finding("sandbox", Health.FAIL, str(error), remedy)]
    finally:
        await pool.stop()
    protections = pool.protections
    assert protections is not None
    on = f"on: {', '.join(name for name, is_on in protections.as_dict().items() if is_on)}"
    if not protections.complete:
        remedy = "install libseccomp2 and use Linux 5.13 or later; the others hold meanwhile"
        return [Finding("sandbox", Health.WARN, f"{on}; off: {'; '.join(protections.missing)}", remedy)]
    return [Finding("sandbox", Health.OK, on)]


async def _look_at_kafka(settings: Settings) -> list[Finding]:
    broker = settings.kafka.broker_settings()
    try:
        changes = await diff_topics(broker)
    except BrokerError as error:
        if settings.kafka.embedded and isinstance(error, BrokerUnavailable):
            return [await asyncio.to_thread(_look_at_kafka_ports, settings.kafka.port)]
        return [Finding("kafka", Health.FAIL, str(error))]
    findings = [Finding("kafka", Health.OK, f"answers at {broker.bootstrap_servers}")]
    if not changes:
        findings.append(Finding("topics", Health.OK, "all as declared"))
        try:
            return findings + await examine_promotion(settings)
        except BrokerError as error:
            return [*findings, Finding("promotion", Health.FAIL, str(error))]
    blocking = [change for change in changes if change.blocks]
    first = str((blocking or changes)[0])
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    health = Health.FAIL if blocking else Health.WARN
    return [*findings, Finding("topics", health, first + more, "fediwarden topics apply")]


def _look_at_kafka_ports(port: int) -> Finding:
    """Why the embedded Kafka does not answer: it is not running, or somebody has one of its two ports."""
    ports = (port, port + 1)
    taken = [f"port {each} is taken by {holder}" for each in ports if (holder := _find_holder(each))]
    if not taken:
        detail = f"not running; ports {ports[0]} and {ports[1]} are free"
        return Finding("kafka", Health.FAIL, detail, "start it with: fediwarden up")
    remedy = f"wait if that is a Kafka of ours that is starting; else stop it, or choose another port: {PORT_REMEDY}"
    return Finding("kafka", Health.FAIL, f"does not answer; {', '.join(taken)}", remedy)


def _find_holder(port: int) -> str | None:
    """Who listens on a port of loopback; None when nobody does. A trial bind could get in the way of a start."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=_CONNECT_WITHIN_S).close()
    except ConnectionRefusedError:
        return None
    except OSError:  # somebody who is too busy to take a connection
        pass
    return find_listener(port) or "another process"


async def _look_at_gateway(settings: Settings) -> list[Finding]:
    url = settings.gateway_url
    findings = []
    exposed = settings.gateway.host not in ("127.0.0.1", "::1", "localhost")
    if exposed and any(tenant.key is None for tenant in settings.tenants.values()):
        detail = f"listens on {settings.gateway.host}, and a tenant has no key: its networks alone decide"
        findings.append(Finding("gateway", Health.WARN, detail, "give every tenant a key"))
    try:
        verify = settings.gateway.tls.own_context() or True
        async with httpx.AsyncClient(base_url=url, timeout=_ANSWER_WITHIN_S, trust_env=False, verify=verify) as client:
            answer = (await client.get("/readyz")).json()
        parts = {name: part for name, part in answer["parts"].items() if not part["ok"]}
        if not parts:
            return [*findings, Finding("gateway", Health.OK, f"ready at {url}")]
        faults = "; ".join(f"{name}: {part['detail']}" for name, part in parts.items())
        if not answer["ready"]:
            remedy = "see the gateway's log if this stays"
            return [*findings, Finding("gateway", Health.FAIL, f"not ready at {url}: {faults}", remedy)]
        return [*findings, Finding("gateway", Health.WARN, f"ready at {url}, but {faults}", "start a scanner")]
    except TlsUnusable as error:
        return [*findings, Finding("gateway", Health.FAIL, f"gateway.tls: {error}", "name files that can be read")]
    except httpx.ConnectError as error:
        holder = await asyncio.to_thread(find_listener, settings.gateway.port)
        if settings.gateway.tls.enabled and holder:
            detail = f"what listens at {url} does not speak with our certificate ({error})"
            return [*findings, Finding("gateway", Health.FAIL, detail, "restart the gateway, or see gateway.tls")]
        free = f"not running; port {settings.gateway.port} is free"
        return [*findings, Finding("gateway", Health.OK, free, "start it with: fediwarden up")]
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        holder = await asyncio.to_thread(find_listener, settings.gateway.port)
        detail = f"{holder or 'something'} answers at {url}, and is no gateway of ours ({type(error).__name__})"
        remedy = "stop it, or choose another port: --port or FEDIWARDEN_GATEWAY__PORT"
        return [*findings, Finding("gateway", Health.FAIL, detail, remedy)]


def _named_pict_rs(settings: Settings, besides: str | None) -> dict[str, SecretStr | None]:
    """The address of every pict-rs once, with its API key where a tenant has it."""
    named: dict[str, SecretStr | None] = {besides.rstrip("/"): None} if besides else {}
    for tenant in settings.tenants.values():
        if tenant.pict_rs:
            url = tenant.pict_rs.rstrip("/")
            named[url] = named.get(url) or tenant.pict_rs_api_key
    return named


async def _look_at_pict_rs(url: str, api_key: SecretStr | None = None) -> list[Finding]:
    try:
        async with httpx.AsyncClient(timeout=_ANSWER_WITHIN_S, trust_env=False) as client:
            answer = await client.get(f"{url.rstrip('/')}/healthz")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        detail = f"no answer from {url} ({str(error) or type(error).__name__})"
        remedy = "is it running, and is this its address (--pict-rs, tenants.NAME.pict_rs)?"
        return [Finding("pict-rs", Health.FAIL, detail, remedy)]
    if not answer.is_success:
        detail = f"{url} answers its health check with {answer.status_code}"
        return [Finding("pict-rs", Health.FAIL, detail, "see pict-rs's log")]
    if api_key is None:
        return [Finding("pict-rs", Health.OK, f"healthy at {url}")]
    try:
        async with PictRs(url, api_key.get_secret_value(), answer_within_s=_ANSWER_WITHIN_S) as pict_rs:
            await pict_rs.check()
    except PictRsError as error:
        return [Finding("pict-rs", Health.FAIL, str(error), "until then the enforcer cannot remove anything there")]
    return [Finding("pict-rs", Health.OK, f"healthy at {url}, and takes our API key")]
