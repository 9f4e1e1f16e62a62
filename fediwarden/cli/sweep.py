"""``sweep``: judge what was stored before fediwarden came."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED, OK, USAGE

if TYPE_CHECKING:
    from fediwarden.settings import Settings
    from fediwarden.sweep.checkpoints import Checkpoints
    from fediwarden.sweep.sweeping import Watcher
    from schemas.messages import SweepFound

PAUSED = 128 + signal.SIGINT
_SHOWN = 200


def sweep(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="What to sweep: pict-rs (the tenant's), /a/folder, s3://bucket/prefix, or sftp://user@host/a/folder.",
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove what is rejected. Without it, nothing is removed.")
    ] = False,
    quarantine: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Move what is rejected there, in the same store, instead of removing it."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="At the end, keep watching for new objects.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Begin at the first object again, and forget what was found.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Only show how far it is and what it found.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Images a second at most (setting sweep.rate).")] = None,
    tenant: Annotated[
        str, typer.Option(metavar="NAME", help="Whose files these are. Default: the only tenant's.")
    ] = "",
    judge_as: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Tenant to judge for, where it is another (docs/sweep.md).")
    ] = "",
    url: Annotated[str | None, typer.Option(help="The gateway. Default: the one of the settings.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge what is stored already, in pict-rs, a folder, S3 or over SFTP. Ctrl-C pauses; the same command goes on.

    Exit code 1 when something rejected is still there, 2 when something could not be read or judged.
    """
    from schemas.messages import SweepMode

    if apply and quarantine is not None:
        raise typer.BadParameter("--apply and --quarantine: removed or moved, one of them")
    mode = SweepMode.APPLY if apply else SweepMode.REPORT if quarantine is None else SweepMode.QUARANTINE
    flags: dict[str, Any] = {} if rate is None else {"sweep": {"rate": rate}}
    settings = read_settings(config, flags)
    owner = _tenant_named(settings, tenant, "--tenant")
    judging = _tenant_named(settings, judge_as or owner, "--as")
    from fediwarden.sweep.command import run_sweep

    with _progress(quiet=as_json) as watcher:
        checkpoints, paused = asyncio.run(
            run_sweep(
                settings,
                source,
                owner=owner,
                judging=judging,
                mode=mode,
                quarantine=quarantine,
                url=url or settings.gateway_url,
                follow=follow,
                again=again,
                only_show=show,
                watcher=watcher,
            )
        )
    if as_json:
        typer.echo(json.dumps(summary(checkpoints), indent=2))
    else:
        _print(checkpoints, paused=paused)
    raise typer.Exit(PAUSED if paused else exit_code_of(checkpoints))


def exit_code_of(checkpoints: "Checkpoints") -> int:
    """2 when something could not be read or judged, else 1 when something rejected is still there, else 0."""
    from schemas.messages import SweepFinding, SweepOutcome

    found = checkpoints.found.values()
    beyond = (SweepFinding.UNREADABLE, SweepFinding.UNJUDGED, SweepFinding.TOO_LARGE)
    if any(each.finding in beyond or each.outcome is SweepOutcome.KEPT for each in found):
        return USAGE
    left = any(each.finding is SweepFinding.REJECTED and each.outcome is SweepOutcome.LEFT for each in found)
    return FAILED if left else OK


def summary(checkpoints: "Checkpoints") -> dict[str, Any]:
    """How far a sweep is and what it found, as JSON has it."""
    standing = checkpoints.standing
    return {
        "sweep": checkpoints.sweep,
        "source": standing.source if standing else None,
        "mode": standing.mode.value if standing else None,
        "begun_at": standing.begun_at if standing else None,
        "finished_at": standing.finished_at if standing else None,
        "under_way": bool(standing and standing.position),
        "counts": dict(standing.counts) if standing else {},
        "found": [_as_plain(each) for each in _sorted(checkpoints)],
    }


def _as_plain(found: "SweepFound") -> dict[str, Any]:
    return {
        "path": found.path,
        "finding": found.finding.value,
        "outcome": found.outcome.value,
        "sha256": found.sha256.hex() if found.sha256 else None,
        "length": found.length,
        "scan_id": found.scan_id,
        "answered_by": found.answered_by,
        "rules": list(found.rules),
        "detail": found.detail,
        "found_at": found.found_at,
    }


def _sorted(checkpoints: "Checkpoints") -> "list[SweepFound]":
    from schemas.messages import SweepFinding

    order = list(SweepFinding)
    return sorted(checkpoints.found.values(), key=lambda each: (order.index(each.finding), each.path))


def _tenant_named(settings: "Settings", name: str, option: str) -> str:
    from fediwarden.sweep.errors import SourceUnknown

    if not name and len(settings.tenants) == 1:
        return next(iter(settings.tenants))
    if name not in settings.tenants:
        wrong = f"there is no tenant {name}" if name else "there are several tenants"
        raise SourceUnknown(f"{option}: {wrong}; name one of {', '.join(sorted(settings.tenants))}")
    return name


@contextmanager
def _progress(*, quiet: bool) -> "Iterator[Watcher]":
    """Shows on a terminal how many objects are done and how fast; sentences go to standard error anywhere."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from fediwarden.sweep.sweeping import Watcher

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    progress: Progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with progress:
        task = progress.add_task("sweeping")

        def moved(counts: "Counter[str]") -> None:
            words = ", ".join(f"{counts[name]} {name}" for name in ("accepted", "review", "rejected") if counts[name])
            progress.update(task, completed=counts["listed"], description=f"{counts['listed']} objects: {words}")

        def said(sentence: str) -> None:
            typer.secho(sentence, err=True)

        def found(each: "SweepFound") -> None:
            if not quiet:
                typer.echo(f"{each.finding.value} ({each.outcome.value}): {each.path}")

        yield Watcher(found=found, said=said, moved=moved)


def _print(checkpoints: "Checkpoints", *, paused: bool) -> None:
    from rich.markup import escape

    standing = checkpoints.standing
    if standing is None:
        typer.echo("This sweep has not come to the end of its first page yet.")
        return
    found = _sorted(checkpoints)
    if found:
        table = make_table("object", "found", "what became of it", "rules", "detail")
        for each in found[:_SHOWN]:
            cells = (each.path, each.finding.value, each.outcome.value, ", ".join(each.rules), each.detail)
            table.add_row(*map(escape, cells))
        print_table(table)
        if len(found) > _SHOWN:
            typer.echo(f"... and {len(found) - _SHOWN} more; --json --show has all of them.")
    counts = dict(standing.counts)
    listed = counts.pop("listed", 0)
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()) if count)
    typer.echo(f"{standing.source}: {listed} objects{': ' if words else ''}{words}.")
    if paused:
        typer.echo("Paused. The same command goes on from here.")
    elif standing.position:
        typer.echo("Not at its end yet. The same command goes on from here, --again from the first object.")
    if any(each.finding == "rejected" and each.outcome == "left" for each in found):
        typer.echo("Nothing was removed: --apply removes what is rejected, --quarantine PREFIX moves it.")
