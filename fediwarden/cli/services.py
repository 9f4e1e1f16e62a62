"""The commands that serve until they are stopped: ``up`` and each of the services alone."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, nested_flags, read_settings

if TYPE_CHECKING:
    from fediwarden.settings import Settings

PortOption = Annotated[int | None, typer.Option("--port", help="Port of the gateway (setting gateway.port).")]


def trace(settings: "Settings", service: str) -> None:
    """Begin to trace, where the settings ask for it."""
    from importlib.metadata import version

    from schemas.telemetry.tracing import configure_tracing

    configure_tracing(settings.tracing, service=service, version=version("fediwarden"))


def up(
    data_dir: DataDirOption = None,
    port: PortOption = None,
    kafka_port: Annotated[
        int | None, typer.Option(help="Port of the embedded Kafka (setting kafka.port); the next one is used as well.")
    ] = None,
    scanners: Annotated[
        int | None, typer.Option(help="Number of scanner processes, 0 to 64 (setting scanners).")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Start everything on this machine: Kafka, gateway, scanners, enforcer, audit. Ctrl-C stops it."""
    from fediwarden.logs import configure_logging
    from fediwarden.up import run_up

    flags = nested_flags(data_dir=data_dir, gateway__port=port, kafka__port=kafka_port, scanners=scanners)
    settings = read_settings(config, flags)
    configure_logging(settings.log, service="up")
    sys.exit(asyncio.run(run_up(settings)))


def gateway(
    data_dir: DataDirOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (setting gateway.host).")] = None,
    port: PortOption = None,
    config: ConfigOption = None,
) -> None:
    """Run one gateway against a Kafka that is there already."""
    import uvloop

    from fediwarden.logs import configure_logging
    from gateway.service import run_gateway
    from schemas.keyring import Keyring

    settings = read_settings(config, nested_flags(data_dir=data_dir, gateway__host=host, gateway__port=port))
    configure_logging(settings.log, service="gateway")
    trace(settings, "gateway")
    keyring = Keyring.load(settings.keys_file)
    uvloop.run(run_gateway(settings.gateway, settings.tenants, settings.kafka.broker_settings(), keyring))


def scanner(
    data_dir: DataDirOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, or cuda:1 (setting scanner.device).")] = None,
    batch: Annotated[int | None, typer.Option(help="Most frames scored at a time (setting scanner.batch).")] = None,
    group: Annotated[str | None, typer.Option(help="Kafka consumer group (setting scanner.group).")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file (setting scanner.policy).")] = None,
    shadow: Annotated[
        bool | None,
        typer.Option("--shadow", help="Only record what it would have decided (setting scanner.shadow)."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run one scanner against a Kafka that is there already."""
    import uvloop

    from fediwarden.logs import configure_logging
    from fediwarden.metrics.listening import showing
    from scanner.metrics import ScannerMetrics
    from scanner.service import run_scanner
    from schemas.keyring import Keyring

    flags = nested_flags(
        data_dir=data_dir,
        scanner__device=device,
        scanner__batch=batch,
        scanner__group=group,
        scanner__policy=policy,
        scanner__shadow=shadow,
    )
    settings = read_settings(config, flags)
    configure_logging(settings.log, service="scanner")
    trace(settings, "scanner")
    keyring = Keyring.load(settings.keys_file)
    metrics = ScannerMetrics()
    with showing(metrics.registry, settings.metrics):
        scanning = run_scanner(settings.scanner, settings.kafka.broker_settings(), keyring, metrics=metrics)
        status = uvloop.run(scanning)
    sys.exit(status)


def enforcer(
    data_dir: DataDirOption = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run", help="Only report what would be removed (setting enforcer.dry_run).")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Remove from pict-rs what was let through and is rejected later, and from Kafka the frames of what is judged."""
    import uvloop

    from fediwarden.logs import configure_logging
    from fediwarden.metrics.listening import showing
    from gateway.enforcement.metrics import EnforcerMetrics
    from gateway.enforcement.service import run_enforcer
    from gateway.erasure.janitor import Janitor

    settings = read_settings(config, nested_flags(data_dir=data_dir, enforcer__dry_run=dry_run))
    configure_logging(settings.log, service="enforcer")
    trace(settings, "enforcer")
    broker = settings.kafka.broker_settings()
    metrics = EnforcerMetrics()
    beside = [lambda producer: Janitor(settings.erasure, broker, producer, metrics=metrics.janitor).run()]
    with showing(metrics.registry, settings.metrics):
        uvloop.run(run_enforcer(settings.enforcer, settings.tenants, broker, companions=beside, metrics=metrics))


def relay(
    data_dir: DataDirOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (setting relay.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port that stands for pict-rs (setting relay.port).")] = None,
    config: ConfigOption = None,
) -> None:
    """Stand between Lemmy and pict-rs, pass everything on, and learn where images come from."""
    import uvloop

    from federation_audit.lemmy.database import LemmyDatabase
    from federation_audit.lemmy.local_users import LocalUsers
    from fediwarden.logs import configure_logging
    from gateway.relay.service import run_relay
    from schemas.pseudonyms import Pseudonyms

    settings = read_settings(config, nested_flags(data_dir=data_dir, relay__host=host, relay__port=port))
    configure_logging(settings.log, service="relay")
    pseudonyms = Pseudonyms.open(settings.actors_file)
    ask_actors = {
        name: LocalUsers(LemmyDatabase(name, tenant.lemmy_database.get_secret_value(), settings.lemmy)).actor_of
        for name, tenant in settings.tenants.items()
        if tenant.lemmy_database is not None
    }
    uvloop.run(run_relay(settings.relay, settings.tenants, settings.kafka.broker_settings(), pseudonyms, ask_actors))


def lemmy(
    data_dir: DataDirOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only connect to each database, and say what it is or what is missing.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Ask Lemmy's database, read-only, who posted an image and where (see docs/lemmy.md)."""
    import uvloop

    from federation_audit.lemmy.metrics import LemmyMetrics
    from federation_audit.lemmy.service import check_databases, run_lemmy
    from fediwarden.logs import configure_logging
    from fediwarden.metrics.listening import showing
    from schemas.pseudonyms import Pseudonyms

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    databases = settings.lemmy_databases
    if check:
        for tenant, home in uvloop.run(check_databases(settings.lemmy, databases)).items():
            typer.echo(f"tenants.{tenant}.lemmy_database: Lemmy {home.shape.version} at {home.base}, readable")
        return
    configure_logging(settings.log, service="lemmy")
    pseudonyms = Pseudonyms.open(settings.actors_file)
    metrics = LemmyMetrics()
    with showing(metrics.registry, settings.metrics):
        uvloop.run(run_lemmy(settings.lemmy, databases, settings.kafka.broker_settings(), pseudonyms, metrics))


def audit(
    context: typer.Context,
    data_dir: DataDirOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (setting audit.pages.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (setting audit.pages.port).")] = None,
    config: ConfigOption = None,
) -> None:
    """Who sent what. Without a subcommand: serve the pages, and take origins that other software tells.

    `fediwarden users add NAME --role admin` makes the first account.
    """
    if context.invoked_subcommand is not None:
        if any(given is not None for given in (data_dir, host, port, config)):
            raise typer.BadParameter(f"write options behind the subcommand: audit {context.invoked_subcommand} ...")
        return
    import uvloop

    from federation_audit.pages.service import run_pages
    from federation_audit.pages.site import Surroundings
    from federation_audit.store.migrating import open_store
    from fediwarden.logs import configure_logging
    from fediwarden.policies.sentences import read_sentences
    from schemas.keyring import Keyring
    from schemas.pseudonyms import Pseudonyms

    pages = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    flags = nested_flags(data_dir=data_dir) | ({"audit": {"pages": pages}} if pages else {})
    settings = read_settings(config, flags)
    configure_logging(settings.log, service="audit")
    tokens = settings.origin_tokens
    surroundings = Surroundings(
        audit=settings.audit,
        broker=settings.kafka.broker_settings(),
        keyring=Keyring.load(settings.keys_file) if settings.audit.viewing.enabled else None,
        sentences=read_sentences(settings),
        local_domains=frozenset(settings.tenant_domains.values()),
        tenant_domains=settings.tenant_domains,
        origin_tokens=tokens,
        pseudonyms=Pseudonyms.open(settings.actors_file) if tokens else None,
    )
    uvloop.run(run_pages(open_store(settings.audit_database), surroundings))
