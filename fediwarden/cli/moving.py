"""``export`` and ``import``: what topics hold as files, for analysis and for moving house."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.times import moment

if TYPE_CHECKING:
    from fediwarden.export.writing import Asked, Exported
    from fediwarden.settings import Settings

app = typer.Typer(
    help="Write what was decided to a file: verdicts, overrides, origins. `fediwarden import` reads it again.",
    no_args_is_help=True,
)

_STANDARD_OUTPUT = Path("-")

SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From when on: 7d, 24h ago, or 2026-11-23T18:00. Default: all of it."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Until when. Default: now.")]
TenantsOption = Annotated[
    list[str] | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant (may be repeated).")
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.", allow_dash=True)
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file where it is there already.")]


@app.command("verdicts")
def verdicts(
    since: SinceOption = None,
    until: UntilOption = None,
    tenant: TenantsOption = None,
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="jsonl, or parquet (needs the extra fediwarden[parquet])."),
    ] = "jsonl",
    output: OutputOption = _STANDARD_OUTPUT,
    force: ForceOption = False,
    config: ConfigOption = None,
) -> None:
    """Write verdicts, one a row. JSON lines have everything and can be imported; Parquet is for analysis."""
    if form not in ("jsonl", "parquet"):
        raise typer.BadParameter(f"--format: {form!r} is none of jsonl, parquet")
    if form == "parquet":
        from fediwarden.export.parquet import check_pyarrow

        check_pyarrow()
        if output == _STANDARD_OUTPUT:
            raise typer.BadParameter("--output: Parquet goes to a file; name one")
    _export("verdicts", since, until, tenant, output, force, config, parquet=form == "parquet")


@app.command("overrides")
def overrides(
    tenant: TenantsOption = None,
    output: OutputOption = _STANDARD_OUTPUT,
    force: ForceOption = False,
    config: ConfigOption = None,
) -> None:
    """Write the overrides that stand, as JSON lines; the expired among them."""
    _export("overrides", None, None, tenant, output, force, config)


@app.command("origins")
def origins(
    since: SinceOption = None,
    until: UntilOption = None,
    tenant: TenantsOption = None,
    output: OutputOption = _STANDARD_OUTPUT,
    force: ForceOption = False,
    config: ConfigOption = None,
) -> None:
    """Write where images came from and who is to be forgotten, as JSON lines."""
    _export("origins", since, until, tenant, output, force, config)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `fediwarden export` wrote as JSON lines.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file, and say what is new in it.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read an export into this fediwarden. Nothing is published unless all of it is valid, and nothing twice.

    Verdicts and origins are history: they are counted and known, and nothing is removed because of them. Overrides are
    in force from then on: import them after the verdicts.
    """
    from fediwarden.export.importing import import_file

    broker = read_settings(config).kafka.broker_settings()
    with progress_of_reading() as on_progress:
        done = asyncio.run(import_file(broker, file, dry_run=dry_run, on_progress=on_progress))
    if as_json:
        import json

        found = {"export": done.kind.name, "dry_run": dry_run, "lines": done.lines, "there": done.there}
        typer.echo(json.dumps(found | {"new": done.published, "expired": done.expired}, indent=2))
        return
    new = f"{done.published} would be imported" if dry_run else f"{done.published} imported"
    typer.echo(f"{file}: {done.lines} {done.kind.name}, {new}, {done.there} there already")
    if done.expired:
        typer.echo(f"{done.expired} of these are older than the topic keeps anything: they will be deleted again")


def _export(
    kind: str,
    since: str | None,
    until: str | None,
    tenants: list[str] | None,
    output: Path,
    force: bool,
    config: Path | None,
    *,
    parquet: bool = False,
) -> None:
    from fediwarden.export.kinds import KINDS
    from fediwarden.export.writing import Asked
    from schemas.clock import now_ms

    at_ms = now_ms()
    asked = Asked(
        KINDS[kind],
        since_ms=0 if since is None else moment(since, at_ms, "--since"),
        until_ms=None if until is None else moment(until, at_ms, "--until"),
        tenants=tuple(tenants or ()),
    )
    if asked.until_ms is not None and asked.until_ms <= asked.since_ms:
        raise typer.BadParameter("--until: this is not after --since")
    exported = _write(read_settings(config), asked, output, force, parquet=parquet)
    typer.echo(f"{exported.rows} {kind} written", err=True)
    if exported.unreadable:
        typer.secho(f"{exported.unreadable} records cannot be read, and are left out", err=True, fg=typer.colors.YELLOW)


def _write(settings: "Settings", asked: "Asked", output: Path, force: bool, *, parquet: bool) -> "Exported":
    from fediwarden.export.writing import export_lines, export_parquet

    export = export_parquet if parquet else export_lines
    with _opened(output, force) as file, progress_of_reading() as on_progress:
        return asyncio.run(export(settings.kafka.broker_settings(), asked, file, on_progress=on_progress))


@contextmanager
def _opened(output: Path, force: bool) -> Iterator[IO[bytes]]:
    from fediwarden.export.files import new_file

    if output == _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with new_file(output, force=force) as file:
        yield file
