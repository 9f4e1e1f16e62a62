"""``rescan``: judge again what was judged before, by another policy, model or list."""

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli import rescan_outcome
from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.cli.times import local, moment

if TYPE_CHECKING:
    from fediwarden.rescan.planning import Plan
    from fediwarden.rescan.progress import Progress
    from fediwarden.settings import Settings
    from schemas.messages import RescanOrdered

app = typer.Typer(help="Judge again what was judged before, by another policy, model or list.")
rescan_outcome.add_commands(app)

RescanArgument = Annotated[str, typer.Argument(metavar="ID", help="A rescan, as `fediwarden rescan list` names it.")]


@app.callback(invoke_without_command=True)
def rescan(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From when on: 90s, 30m, 24h, 7d ago, or 2026-11-23T18:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until when. Default: now.")] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this tenant's images (may be repeated).")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="POLICY", help="Judge by this policy: a file, or a shipped one's name."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Have this model see the frames again (a scanner must run it).")
    ] = "",
    lists: Annotated[bool, typer.Option("--lists", help="Match with the known-hash lists as they are now.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="DECISION", help="Only images that stand so: accepted, review, rejected (repeatable)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only judge; change nothing.")] = False,
    max_removals: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Images that may turn to reject, at most.")
    ] = None,
    yes: rescan_outcome.YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge again what was judged before, by another policy, model or list; without one, by the policies in force.

    It takes what gives the true answer at the least cost (scores, hashes, vectors, frames), and says which and why.
    Nothing is changed by judging. On a terminal it then shows the numbers and asks whether to carry them out, which
    --yes answers and --dry-run leaves; `fediwarden rescan report ID` shows all of it, `rescan apply ID` does it later.
    """
    if context.invoked_subcommand is not None:
        return
    from fediwarden.rescan.planning import Asked, plan
    from schemas.clock import now_ms
    from schemas.messages import RescanState

    if yes and (dry_run or as_json):
        raise typer.BadParameter(
            "--yes carries the outcome out, which --dry-run and --json do not: leave one of them out"
        )
    if since is None:
        raise typer.BadParameter("--since: from when on? such as --since 7d; `fediwarden rescan --help` tells the rest")
    settings = read_settings(config)
    at_ms = now_ms()
    asked = Asked(
        since_ms=moment(since, at_ms, "--since"),
        until_ms=None if until is None else moment(until, at_ms, "--until"),
        tenants=tuple(tenant or ()),
        policy=policy,
        model=model,
        lists=lists,
        only=_read_only(only or ()),
        dry_run=dry_run,
        most_removals=max_removals,
        ordered_by=getpass.getuser(),
    )
    planned = asyncio.run(plan(settings, asked))
    _say_plan(planned)
    job = asyncio.run(_order_and_work(settings, planned.job))
    _end(job, as_json)
    if job.state is RescanState.FINISHED and not dry_run and not as_json and (yes or sys.stdin.isatty()):
        rescan_outcome.carry_out(settings, job.rescan, yes=yes, max_removals=max_removals)


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List every rescan, the latest first."""
    from fediwarden.rescan.jobs import read_jobs

    jobs = asyncio.run(read_jobs(read_settings(config).kafka.broker_settings())).all()
    if as_json:
        _print_json([_as_plain(job) for job in jobs])
        return
    table = make_table("id", "state", "tier", "from", "until", "tenants", "by", "why")
    for job in jobs:
        tenants = ", ".join(job.tenants) or "all"
        table.add_row(
            job.rescan, job.state, job.tier, local(job.since), local(job.until), tenants, job.ordered_by, job.why
        )
    print_table(table)


@app.command("show")
def show(rescan_id: RescanArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show how a rescan stands, and how far it is."""
    from fediwarden.rescan.jobs import read_jobs
    from fediwarden.rescan.progress import read_progress

    broker = read_settings(config).kafka.broker_settings()

    async def read() -> "tuple[RescanOrdered, Progress]":
        job = (await read_jobs(broker)).get(rescan_id)
        return job, await read_progress(broker, job)

    job, progress = asyncio.run(read())
    if as_json:
        _print_json(_as_plain(job) | {"done": progress.done, "records": progress.total, "left": progress.left})
        return
    from rich.markup import escape

    table = make_table("rescan", job.rescan)
    rows = {
        "state": f"{job.state} (since {local(job.changed_at)}, {job.changed_by})",
        "judges from": f"{job.tier}: {job.why}",
        "span": f"{local(job.since)} to {local(job.until)}",
        "tenants": ", ".join(job.tenants) or "all",
        "only": ", ".join(job.only) or "all",
        "done": f"{progress.done} of {progress.total} records",
        "ordered": f"{local(job.ordered_at)} by {job.ordered_by}",
        "note": job.note,
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    print_table(table)


@app.command("resume")
def resume(rescan_id: RescanArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Go on with a rescan that was interrupted or cancelled; or help one along that runs elsewhere."""
    from fediwarden.rescan.jobs import CLIENT_ID, change_state
    from schemas.broker import Producer
    from schemas.messages import RescanState

    settings = read_settings(config)
    broker = settings.kafka.broker_settings()

    async def go_on() -> "RescanOrdered":
        async with Producer(broker, client_id=CLIENT_ID) as producer:
            job = await change_state(broker, producer, rescan_id, RescanState.RUNNING, by=getpass.getuser())
        return await _work(settings, job)

    _end(asyncio.run(go_on()), as_json)


@app.command("watch")
def watch(config: ConfigOption = None) -> None:
    """Serve: judge again by itself after what the setting rescan.automatic names has been updated (a part of `up`)."""
    from fediwarden.logs import configure_logging
    from fediwarden.rescan.automatic import run_watch

    settings = read_settings(config)
    configure_logging(settings.log, service="rescans")
    asyncio.run(run_watch(settings, refuses=rescan_outcome.refuses(settings)))


@app.command("cancel")
def cancel(rescan_id: RescanArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """End a rescan that is being judged; nothing was changed by it. `resume` takes it up again."""
    from fediwarden.rescan.jobs import CLIENT_ID, change_state
    from schemas.broker import Producer
    from schemas.messages import RescanState

    broker = read_settings(config).kafka.broker_settings()

    async def end() -> "RescanOrdered":
        async with Producer(broker, client_id=CLIENT_ID) as producer:
            return await change_state(broker, producer, rescan_id, RescanState.CANCELLED, by=getpass.getuser())

    _end(asyncio.run(end()), as_json)


def _read_only(given: "tuple[str, ...] | list[str]") -> Any:
    from schemas.messages import RescanOnly

    try:
        return tuple(RescanOnly(each) for each in given)
    except ValueError:
        raise typer.BadParameter(f"--only: write one of {', '.join(RescanOnly)}") from None


def _say_plan(planned: "Plan") -> None:
    job = planned.job
    typer.echo(f"Rescan {job.rescan} reads {planned.records} records and judges from {job.tier}: {job.why}.", err=True)
    if planned.gone is not None:
        typer.secho(f"Not all is there: {planned.gone}.", err=True, fg=typer.colors.YELLOW)


async def _order_and_work(settings: "Settings", job: "RescanOrdered") -> "RescanOrdered":
    from fediwarden.rescan.jobs import CLIENT_ID, order_job
    from schemas.broker import Producer

    broker = settings.kafka.broker_settings()
    async with Producer(broker, client_id=CLIENT_ID) as producer:
        await order_job(broker, producer, job)
    return await _work(settings, job)


async def _work(settings: "Settings", job: "RescanOrdered") -> "RescanOrdered":
    from fediwarden.rescan.working import wait_for_scanners, work
    from schemas.messages import RescanTier

    do = wait_for_scanners if job.tier is RescanTier.FRAMES else work
    with _bar(job) as on_progress:
        return await do(settings, job, worker=f"{socket.gethostname()}-{os.getpid()}", on_progress=on_progress)


@contextmanager
def _bar(job: "RescanOrdered") -> "Iterator[Callable[[Progress], None]]":
    """What is done, the rate and the time left, as a bar; on what is no terminal, nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("judging again"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        total = sum(span.end - span.begin for span in job.spans)
        task = bar.add_task("", total=total, pace="")

        def show(progress: "Any") -> None:
            bar.update(task, completed=progress.done, pace=pace_of(progress))

        yield show


def pace_of(progress: "Progress") -> str:
    """Rate and time left in words; nothing while they are not known."""
    if progress.left == 0:
        return ""
    if progress.rate is None or progress.left_s is None:
        return "" if progress.rate is None else "nothing moves"
    minutes, seconds = divmod(round(progress.left_s), 60)
    return f"{progress.rate:.0f}/s, {minutes}:{seconds:02} left"


def _end(job: "RescanOrdered", as_json: bool) -> None:
    from schemas.messages import RescanState

    if as_json:
        _print_json(_as_plain(job))
        return
    typer.echo(f"Rescan {job.rescan} is {job.state}.")
    if job.state is RescanState.FINISHED:
        typer.echo(f"What would change: fediwarden rescan report {job.rescan}")


def _as_plain(job: "RescanOrdered") -> dict[str, Any]:
    """A job for JSON; policies by the tenants that have one, as their text is long."""
    return job.model_dump(mode="json", exclude={"policies"}) | {"policies": sorted(job.policies)}


def _print_json(what: Any) -> None:
    import json

    typer.echo(json.dumps(what, indent=2))
