"""``doctor``: look at everything a fediwarden needs, one line each."""

import asyncio
from typing import Annotated

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.exits import FAILED


def doctor(
    pict_rs: Annotated[
        str | None, typer.Option("--pict-rs", metavar="URL", help="Check this pict-rs as well as those of the tenants.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check Kafka, topics, models, keys, clock, disk, ports, pict-rs, the audit. Exit code 1 when something fails."""
    from fediwarden.doctor import examine
    from fediwarden.findings import Health

    settings = read_settings(config)
    colours = {Health.OK: typer.colors.GREEN, Health.WARN: typer.colors.YELLOW, Health.FAIL: typer.colors.RED}
    findings = asyncio.run(examine(settings, pict_rs=pict_rs))
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            word = typer.style(f"{finding.health.value:<4}", fg=colours[finding.health])
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            typer.echo(f"{word}  {finding.subject:<10} {finding.detail}{remedy}")
    if any(finding.health is Health.FAIL for finding in findings):
        raise typer.Exit(FAILED)
