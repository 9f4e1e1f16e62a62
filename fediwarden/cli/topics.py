"""``topics``: what is declared in `schemas.topics`, what the cluster has, and making the two the same."""

import asyncio

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED

app = typer.Typer(help="Kafka topics: create, compare, list.", no_args_is_help=True)


@app.command("apply")
def apply_(config: ConfigOption = None) -> None:
    """Create missing topics and alter those that differ. Never deletes, never takes partitions away."""
    from schemas.broker import apply_topics

    changes = asyncio.run(apply_topics(read_settings(config).kafka.broker_settings()))
    for change in changes:
        made = "created" if change.setting == "topic" else f"{change.setting}: {change.actual} -> {change.wanted}"
        typer.echo(f"{change.topic}: {made}")
    if not changes:
        typer.echo("all topics are as declared")


@app.command("diff")
def diff(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say what differs between the declared topics and the cluster's. Exit code 1 when something does."""
    from schemas.broker import diff_topics

    changes = asyncio.run(diff_topics(read_settings(config).kafka.broker_settings()))
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(change) for change in changes], indent=2))
    else:
        for change in changes:
            typer.echo(str(change))
        typer.echo(
            f"{len(changes)} differences; mend them with: fediwarden topics apply"
            if changes
            else "all topics are as declared"
        )
    if changes:
        raise typer.Exit(FAILED)


@app.command("show")
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the declared topics: who writes, who reads, how long they are kept. Asks no cluster."""
    from schemas.topics import TOPICS

    prefix = read_settings(config).kafka.topic_prefix
    if as_json:
        import json

        rows = [
            {
                "name": spec.full_name(prefix),
                "key": spec.key,
                "messages": [message.SCHEMA for message in spec.messages],
                "writers": spec.writers,
                "readers": spec.readers,
                "partitions": spec.partitions,
                "cleanup": spec.cleanup,
                "retention_ms": spec.retention_ms,
                "retention_bytes": spec.retention_bytes,
                "max_message_bytes": spec.max_message_bytes,
            }
            for spec in TOPICS
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = make_table("topic", "parts", "cleanup", "kept", "largest", "writers", "readers")
    for spec in TOPICS:
        table.add_row(
            spec.full_name(prefix),
            str(spec.partitions),
            spec.cleanup,
            _kept(spec.retention_ms, spec.retention_bytes),
            f"{spec.max_message_bytes // 1024} KiB",
            ", ".join(spec.writers),
            ", ".join(spec.readers),
        )
    print_table(table)


def _kept(retention_ms: int, retention_bytes: int | None) -> str:
    """Retention in words: days or hours, and the ceiling in GiB."""
    if retention_ms < 0:
        kept = "always"
    elif retention_ms % 86_400_000 == 0:
        kept = f"{retention_ms // 86_400_000} days"
    else:
        kept = f"{retention_ms / 3_600_000:g} hours"
    return kept if retention_bytes is None else f"{kept}, at most {retention_bytes / (1 << 30):g} GiB"
