"""``kafka certs``: a private CA, and certificates for the brokers. Asks no cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings

if TYPE_CHECKING:
    import datetime

    from fediwarden.access.certificates import Authority, Certificate

FOLDER = "kafka-certs"

_WHAT_GOES_WHERE = """\
{broker} goes to the broker alone (ssl.keystore.location, ssl.keystore.type=PEM); the account that Kafka runs under must
  be able to read it, and nobody else: in the container apache/kafka that is uid 1000 (chown 1000).
{ca} goes to every client (setting kafka.ssl_ca_file). It is no secret.
{key} goes nowhere. Whoever has it can pass for your broker: keep it on another disk until the next renewal."""


def certs(
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that clients reach the broker by. Repeatable.", show_default=False),
    ] = None,
    broker: Annotated[str, typer.Option(help="Name of the broker's file.")] = "kafka",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until a broker's certificate ends.")] = 730,
    renew: Annotated[
        bool, typer.Option("--renew", help="Replace the broker's certificate and key; the CA stays.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the files are. Default: kafka-certs in the data directory."),
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a private CA and a broker's certificate, or renew the latter; say what is there and what goes where.

    The CA (ten years) is made once and never written over. Without --host: only says what is there. Exit code 1 when
    something ends within 30 days.
    """
    import datetime

    from fediwarden.access.certificates import SOON_DAYS, Authority

    folder = folder or read_settings(config, nested_flags(data_dir=data_dir)).data_dir / FOLDER
    authority = Authority(folder)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    made = _make(authority, broker, host or [], renew=renew, days=days, now=now)
    there = authority.read_all()
    if as_json:
        import json

        rows = [{"file": str(c.path), "hosts": c.hosts, "ends_at": c.ends_at.isoformat()} for c in there]
        typer.echo(json.dumps(rows, indent=2))
    else:
        from fediwarden.cli.tables import make_table, print_table

        table = make_table("file", "for", "until", "days left")
        for each in there:
            table.add_row(
                str(each.path), ", ".join(each.hosts) or "the CA", f"{each.ends_at:%Y-%m-%d}", str(each.days_left(now))
            )
        print_table(table)
        if made is not None:
            typer.echo()
            typer.echo(_WHAT_GOES_WHERE.format(broker=made.path, ca=authority.ca_file, key=folder / "ca.key"))
            if renew:
                typer.echo(
                    "Put the new file in the place of the old one, and restart the broker. Clients need nothing."
                )
    if any(each.days_left(now) < SOON_DAYS for each in there):
        typer.secho("a certificate ends soon: renew it with --renew, --broker NAME", err=True, fg=typer.colors.YELLOW)
        raise typer.Exit(1)


def _make(
    authority: "Authority", broker: str, hosts: list[str], *, renew: bool, days: int, now: "datetime.datetime"
) -> "Certificate | None":
    """What was asked for, or None where nothing was."""
    if renew:
        return authority.renew(broker, hosts, now=now, days=days)
    if not hosts and authority.exists:
        return None
    if not hosts:
        raise typer.BadParameter("there is no CA yet: name what clients reach the broker by, --host kafka.example.org")
    if not authority.exists:
        authority.create(now=now)
    return authority.issue(broker, hosts, now=now, days=days)
