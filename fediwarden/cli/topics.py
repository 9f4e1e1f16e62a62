"""``topics``: what is declared in `schemas.topics`, what the cluster has, making the two the same; what is erased."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from fediwarden.erasure_check import Found
    from schemas.broker import BrokerSettings

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


@app.command("erasure-check")
def erasure_check(
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="The image's sha256, in hexadecimal.")],
    ciphertext: Annotated[
        list[str] | None,
        typer.Option(help="Bytes of its encrypted frames noted earlier, in hexadecimal (16 or more). Repeatable."),
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for an image's frames in the embedded Kafka's files and the spool. Exit code 1 when found, 0 when gone.

    An accepted image is found in images.archive for as long as that is kept.
    With a Kafka of your own only its topics can be read, not its disks; records that it deleted are not seen then.
    """
    from fediwarden.erasure_check import MIN_CIPHERTEXT_BYTES, search_disk

    image = _parse_hex(sha256, "SHA256", least=32, most=32)
    needles = [_parse_hex(each, "--ciphertext", least=MIN_CIPHERTEXT_BYTES) for each in ciphertext or ()]
    settings = read_settings(config, nested_flags(data_dir=data_dir))
    spool_dir = settings.gateway.spool_dir
    assert spool_dir is not None, "Settings derive it from data_dir"
    if settings.kafka.embedded:
        found = search_disk(settings.data_dir, settings.kafka.topic_prefix, image, needles, spool_dir=spool_dir)
    elif needles:
        raise typer.BadParameter("only the disks of the embedded Kafka can be searched for bytes")
    else:
        found = _search_spool_and_topics(spool_dir, settings.kafka.broker_settings(), image)
    if as_json:
        import json
        from dataclasses import asdict

        report = {
            "sha256": image.hex(),
            "searched": "disk" if settings.kafka.embedded else "topics",
            "gone": not found,
            "found": [asdict(each) for each in found],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        for each in found:
            place = f" ({each.topic}, partition {each.partition})" if each.topic else ""
            typer.echo(f"{each.what}: {each.where} at {each.at}{place}")
        typer.echo(
            f"{image.hex()}: {'frames in ' + str(len(found)) + ' places' if found else 'no frames'}, in "
            + (f"all files of {settings.data_dir}" if settings.kafka.embedded else "all that can be read of the topics")
            + f" and the spool {spool_dir}"
        )
        if not settings.kafka.embedded:
            typer.echo("This Kafka is not the embedded one: what it deleted may still be on its brokers' disks.")
    if found:
        raise typer.Exit(FAILED)


def _search_spool_and_topics(spool_dir: "Path", broker: "BrokerSettings", image: bytes) -> "list[Found]":
    """Both; what the spool holds is told also while Kafka, for which it waits, is away."""
    from fediwarden.erasure_check import search_spool, search_topics
    from schemas.broker import BrokerError

    found = search_spool(spool_dir, image)
    try:
        return found + asyncio.run(search_topics(broker, image))
    except BrokerError as error:
        if not found:
            raise
        typer.echo(f"fediwarden: only the spool was searched: {error}", err=True)
        return found


def _parse_hex(text: str, name: str, *, least: int, most: int | None = None) -> bytes:
    """Bytes from hexadecimal digits. Raises `typer.BadParameter` where they are none, too few or too many."""
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise typer.BadParameter(f"{name} must be hexadecimal digits") from error
    if len(data) < least or (most is not None and len(data) > most):
        raise typer.BadParameter(f"{name} must have {least} bytes{'' if most else ' or more'}, two digits each")
    return data


def _kept(retention_ms: int, retention_bytes: int | None) -> str:
    """Retention in words: days or hours, and the ceiling in GiB."""
    if retention_ms < 0:
        kept = "always"
    elif retention_ms % 86_400_000 == 0:
        kept = f"{retention_ms // 86_400_000} days"
    else:
        kept = f"{retention_ms / 3_600_000:g} hours"
    return kept if retention_bytes is None else f"{kept}, at most {retention_bytes / (1 << 30):g} GiB"
