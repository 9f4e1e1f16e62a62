"""``replay``: archived images in a topic of one's own, for a model that is not ours."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.times import local, moment, span_ms, utc
from fediwarden.exits import FAILED

if TYPE_CHECKING:
    from fediwarden.replay.replaying import Asked, Replayed
    from fediwarden.replay.targets import Target
    from fediwarden.settings import Settings

_INTERRUPTED = 130  # as shells have it: 128 and the signal's number


def replay(
    from_: Annotated[
        str, typer.Option("--from", metavar="TIME", help="From when on: 24h, 7d ago, or 2026-11-23T18:00.")
    ],
    to_topic: Annotated[
        str, typer.Option(metavar="TOPIC", help="Where to: a topic's whole name. It must not be one of fediwarden's.")
    ],
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until when. Default: now.")] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this tenant's images (may be repeated).")
    ] = None,
    frames: Annotated[
        str,
        typer.Option(metavar="FORM", help="encrypted: as they are archived. decrypted: pictures in the clear."),
    ] = "encrypted",
    create: Annotated[bool, typer.Option("--create", help="Make the topic where it is missing.")] = False,
    retention: Annotated[
        str, typer.Option(metavar="SPAN", help="How long a topic made by --create keeps them: 90s, 30m, 24h, 7d.")
    ] = "24h",
    rate: Annotated[float, typer.Option(min=0.1, metavar="N", help="Images a second, at most.")] = 100.0,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy archived images into a topic for another consumer group, such as a model of your own.

    Only what was accepted or sent to review is archived, for 7 days. Interrupted, it says from where to go on.
    docs/replay.md says what the records look like.
    """
    from fediwarden.replay.replaying import Asked, Replayed
    from fediwarden.replay.targets import check_name
    from schemas.clock import now_ms

    if frames not in ("encrypted", "decrypted"):
        raise typer.BadParameter(f"--frames: {frames!r} is none of encrypted, decrypted")
    at_ms = now_ms()
    since_ms = moment(from_, at_ms, "--from")
    until_ms = at_ms if until is None else moment(until, at_ms, "--until")
    if until_ms <= since_ms:
        raise typer.BadParameter("--until: this is not after --from")
    retention_ms = span_ms(retention, "--retention")
    settings = read_settings(config, nested_flags(data_dir=data_dir))
    check_name(to_topic, settings.kafka.topic_prefix)
    asked, replayed = Asked(since_ms, until_ms, tuple(tenant or ()), rate), Replayed()
    try:
        asyncio.run(
            _replay(
                settings, asked, replayed, to_topic, decrypt=frames == "decrypted", create=create, kept=retention_ms
            )
        )
    except BaseException as error:  # whatever ended it: how to go on is known nowhere else
        _say_how_to_go_on(replayed)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(_INTERRUPTED) from None
        raise
    _report(asked, replayed, to_topic, as_json)
    if not replayed.written:
        raise typer.Exit(FAILED)


async def _replay(
    settings: "Settings", asked: "Asked", replayed: "Replayed", name: str, *, decrypt: bool, create: bool, kept: int
) -> None:
    from fediwarden.replay import replaying
    from fediwarden.replay.targets import open_target
    from schemas.keyring import Keyring

    keyring = Keyring.load(settings.keys_file) if decrypt else None
    broker = settings.kafka.broker_settings()
    target = await open_target(broker, name, create=create, retention_ms=kept)
    if decrypt:
        _warn(target)
    with progress_of_reading() as on_progress:
        await replaying.replay(
            broker,
            target,
            asked,
            replayed,
            keyring=keyring,
            on_progress=lambda passed, of: on_progress("images.archive", passed, of),
        )


def _warn(target: "Target") -> None:
    kept = "for ever" if target.kept_ms is None else f"for {target.kept_ms / 3_600_000:g} hours"
    typer.secho(
        f"{target.topic.name} will hold pictures in the clear, and keeps them {kept}. Whoever may read the topic, or"
        " the brokers' disks, sees them. What is turned against later stays in it. Delete the topic when you are done.",
        err=True,
        fg=typer.colors.YELLOW,
    )


def _say_how_to_go_on(replayed: "Replayed") -> None:
    if replayed.go_on_ms is not None:
        typer.echo(
            f"{replayed.written} images written. To go on: --from {utc(replayed.go_on_ms)} (some may come twice)",
            err=True,
        )


def _report(asked: "Asked", replayed: "Replayed", name: str, as_json: bool) -> None:
    if as_json:
        import json

        oldest = None if replayed.oldest_ms is None else utc(replayed.oldest_ms)
        left_out = dict(replayed.left_out)
        typer.echo(json.dumps({"written": replayed.written, "left_out": left_out, "oldest": oldest}, indent=2))
        return
    typer.echo(f"{replayed.written} images written to {name}")
    for reason, count in replayed.left_out.most_common():
        typer.echo(f"{count} left out: {reason}")
    if replayed.oldest_ms is not None and replayed.oldest_ms > asked.since_ms:
        typer.echo(f"The oldest that is archived came at {local(replayed.oldest_ms)}: what came before is not kept.")
