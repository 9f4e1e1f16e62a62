"""``audit``: who sent what. The process that records it, and what it knows."""

import asyncio
from typing import Annotated

import typer

from fediwarden.cli import audit_export, services
from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings
from fediwarden.exits import FAILED

app = typer.Typer()
app.callback(invoke_without_command=True)(services.audit)
audit_export.register(app)


@app.command("record")
def record(data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Run the process that reads the topics into the audit store. It makes the store, and brings it up to date."""
    import uvloop

    from federation_audit.recording.metrics import RecorderMetrics
    from federation_audit.recording.service import run_recorder
    from fediwarden.logs import configure_logging
    from fediwarden.metrics.listening import showing

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    configure_logging(settings.log, service="recorder")
    services.trace(settings, "recorder")
    metrics = RecorderMetrics()
    with showing(metrics.registry, settings.metrics):
        uvloop.run(run_recorder(settings.audit, settings.kafka.broker_settings(), settings.audit_database, metrics))


@app.command("rebuild")
def rebuild(data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Make the store anew from the topics, and wait until it is. What people wrote in it stays.

    A process that records does it; without one, this command does.
    """
    from federation_audit.recording.rebuilding import rebuild as run_rebuild
    from fediwarden.cli.reading import progress_of_reading

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    with progress_of_reading() as show:
        rebuilt = asyncio.run(
            run_rebuild(
                settings.audit,
                settings.kafka.broker_settings(),
                settings.audit_database,
                on_progress=lambda passed, of: show("topics", passed, of),
            )
        )
    typer.echo(f"{rebuilt.records} records read. Digest of the content: {rebuilt.digest}")


@app.command("forget")
def forget(
    actor_id: Annotated[
        str,
        typer.Argument(
            metavar="ACTOR_ID",
            help="The actor's ActivityPub id, an address; or local-user:DOMAIN:ID, as the relay knows an uploader.",
        ),
    ],
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0.0, help="How long to wait for the store.")] = 60.0,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Take out all that an actor did until now, and wait until the store shows it. A rebuild leaves it out as well.

    Exit code 1 when the store has not shown it in time: it will, once a process records.
    """
    from federation_audit.actors import NotAnActor, normalise_actor
    from federation_audit.recording.forgetting import forget as run_forget
    from fediwarden.cli.audit_store import open_audit_store
    from schemas.pseudonyms import Pseudonyms

    actor = actor_id.strip()
    if not actor.startswith("local-user:"):
        try:
            actor = normalise_actor(actor)
        except NotAnActor as error:
            raise typer.BadParameter(str(error)) from error
    settings = read_settings(config, nested_flags(data_dir=data_dir))
    pseudonyms = Pseudonyms.open(settings.actors_file).every(actor)
    with open_audit_store(settings) as store:
        done = asyncio.run(run_forget(pseudonyms, settings.kafka.broker_settings(), store, wait_s=wait))
    if not done:
        typer.echo(
            f"Published, but the store does not show it after {wait:g} s. Is `fediwarden audit record` running?",
            err=True,
        )
        raise typer.Exit(FAILED)
    typer.echo(f"Forgotten under {len(pseudonyms)} keys.")


@app.command("instances")
def instances(data_dir: DataDirOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the author's instances: level, how they compare, and why. By level, then by name: counts say nothing."""
    from fediwarden.cli.audit_store import open_audit_store
    from fediwarden.cli.instances import Everybody

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    with open_audit_store(settings) as store:
        everybody = Everybody.read(store, settings)
    if as_json:
        import json

        typer.echo(json.dumps(everybody.as_plain(), indent=2))
    else:
        everybody.print()


@app.command("instance")
def instance(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN")],
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of one instance: its level and why, incidents, and counts as author's, as community's, and as
    image host. Exit code 1: nothing."""
    from fediwarden.cli.audit_store import open_audit_store
    from fediwarden.cli.instances import OneInstance
    from schemas.domains import NotADomain, normalise_domain

    try:
        name = normalise_domain(domain)
    except NotADomain as error:
        raise typer.BadParameter(str(error)) from error
    settings = read_settings(config, nested_flags(data_dir=data_dir))
    with open_audit_store(settings) as store:
        one = OneInstance.read(store, settings, name)
    if as_json:
        import json

        typer.echo(json.dumps(one.as_plain(), indent=2))
    else:
        one.print()
    if not one.is_known:
        raise typer.Exit(FAILED)
