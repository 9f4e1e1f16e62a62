"""``rescan report``, ``apply`` and ``undo``: what a rescan comes to, and carrying it out."""

import asyncio
import getpass
from collections.abc import Collection, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED

if TYPE_CHECKING:
    from fediwarden.rescan.outcome import Outcome, Refuses
    from fediwarden.settings import Settings

_FLIPS_SHOWN = 20
_INSTANCES_SHOWN = 20

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A rescan's id, as `fediwarden rescan list` shows it.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. More removals than allowed stop it still.")]
MaxRemovalsOption = Annotated[
    int | None,
    typer.Option(
        "--max-removals", min=0, metavar="N", help="How many images may be removed. Default: rescan.max_removed_share."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to ``fediwarden rescan``."""
    app.command("report")(report)
    app.command("apply")(apply)
    app.command("undo")(undo)


def report(
    rescan: IdArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page for a browser.", dir_okay=False)
    ] = None,
) -> None:
    """Show what a rescan would change: decisions, rules, instances, scores, and every image that flips."""
    settings = read_settings(config)
    outcome = _read_outcome(settings, rescan)
    if not as_json and html is None:
        _print(outcome, _instances(settings, outcome))
        return
    from fediwarden.rescan.reporting import as_plain, make_page, write_page

    instances = _instances(settings, outcome)
    if html is not None:
        try:
            write_page(html, make_page(outcome, instances))
        except OSError as error:
            raise typer.BadParameter(f"--html: {html}: {error.strerror}; name a file that can be written") from error
        typer.echo(f"{html} is written.", err=True)
    if as_json:
        import json

        typer.echo(json.dumps(as_plain(outcome, instances), indent=2))


def apply(
    rescan: IdArgument,
    yes: YesOption = False,
    max_removals: MaxRemovalsOption = None,
    config: ConfigOption = None,
) -> None:
    """Carry a rescan out, after it has shown the numbers and asked. What was interrupted goes on when called again.

    What is newly refused is removed from pict-rs by the enforcer, and cannot come back. What is newly accepted may be
    uploaded again.
    """
    carry_out(read_settings(config), rescan, yes=yes, max_removals=max_removals)


def carry_out(settings: "Settings", rescan: str, *, yes: bool, max_removals: int | None = None) -> None:
    """Apply a rescan: shows the numbers, asks unless `yes`, refuses to remove too much without being told to.

    Raises a `RescanError`, a `BrokerError`, or `typer.Abort` where the answer is no.
    """
    from fediwarden.rescan.applying import apply_rescan, check_removals
    from fediwarden.rescan.errors import TooManyRemovals
    from fediwarden.rescan.jobs import check_change
    from fediwarden.rescan.outcome import Fate
    from schemas.messages import RescanState

    outcome = _read_outcome(settings, rescan)
    if outcome.job.state is not RescanState.APPLYING:
        check_change(outcome.job, RescanState.APPLYING)
        _print_decisions(outcome)
        _print_sum(outcome)
        try:
            check_removals(outcome, most_share=settings.rescan.max_removed_share, most_removals=max_removals)
        except TooManyRemovals:
            typer.echo("Nothing was changed.", err=True)
            raise
        if outcome.removals:
            typer.echo(
                "What is removed from pict-rs cannot come back: `fediwarden rescan undo` restores the decisions alone."
            )
        if not yes:
            typer.confirm("Carry it out?", abort=True)
    else:
        typer.echo(f"Rescan {rescan} was interrupted while it was carried out; going on.")
    with progress_of_reading() as on_progress:
        done = _interruptible(
            apply_rescan(
                settings.kafka.broker_settings(),
                rescan,
                by=getpass.getuser(),
                refuses=refuses(settings),
                most_removals=max_removals,
                on_progress=on_progress,
            ),
            f"Stopped. `fediwarden rescan apply {rescan}` goes on with it, `undo` in its place takes it back.",
        )
    typer.echo(f"Carried out: {done.fates[Fate.APPLIED]} images stand as rescan {rescan} judged them.")
    if done.fates[Fate.OVERTAKEN]:
        typer.echo(f"Judged again in the meantime, and left so: {done.fates[Fate.OVERTAKEN]}.")
    if done.removals:
        typer.echo("The enforcer removes what is newly refused; `fediwarden audit` and its log say how far it is.")


def undo(rescan: IdArgument, yes: YesOption = False, config: ConfigOption = None) -> None:
    """Restore the decisions that stood before a rescan was carried out. Pictures that were removed do not come back."""
    from fediwarden.rescan.applying import undo_rescan
    from fediwarden.rescan.jobs import check_change
    from fediwarden.rescan.outcome import Fate
    from schemas.messages import RescanState

    settings = read_settings(config)
    outcome = _read_outcome(settings, rescan)
    if outcome.job.state is not RescanState.UNDOING:
        check_change(outcome.job, RescanState.UNDOING)
        _print_decisions(outcome)
        typer.echo(
            f"{outcome.fates[Fate.APPLIED]} images get back the decision that they had before rescan {rescan}.\n"
            f"Pictures that the enforcer has removed since (of up to {outcome.removals} images) cannot come back."
        )
        if outcome.released:
            typer.echo(
                f"Up to {outcome.released} images that it had accepted are refused again, and what pict-rs has of them"
                " is removed."
            )
        if not yes:
            typer.confirm("Undo it?", abort=True)
    else:
        typer.echo(f"Rescan {rescan} was interrupted while it was undone; going on.")
    with progress_of_reading() as on_progress:
        done = _interruptible(
            undo_rescan(
                settings.kafka.broker_settings(),
                rescan,
                by=getpass.getuser(),
                refuses=refuses(settings),
                on_progress=on_progress,
            ),
            f"Stopped. `fediwarden rescan undo {rescan}` goes on with it.",
        )
    typer.echo(f"Undone: {done.fates[Fate.UNDONE]} images stand as they did before rescan {rescan}.")
    if done.fates[Fate.OVERTAKEN]:
        typer.echo(f"Judged again in the meantime, and left so: {done.fates[Fate.OVERTAKEN]}.")


def _interruptible(work: "Coroutine[Any, Any, Outcome]", stopped: str) -> "Outcome":
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise typer.Exit(FAILED) from None


def _read_outcome(settings: "Settings", rescan: str) -> "Outcome":
    from fediwarden.rescan.jobs import read_jobs
    from fediwarden.rescan.outcome import read_tally

    broker = settings.kafka.broker_settings()

    async def read() -> "Outcome":
        job = (await read_jobs(broker)).get(rescan)
        return (await read_tally(broker, job, refuses=refuses(settings), on_progress=on_progress)).outcome()

    with progress_of_reading() as on_progress:
        return asyncio.run(read())


def refuses(settings: "Settings") -> "Refuses":
    """Whether a tenant's images of a decision are refused."""
    from gateway.answers import is_accepted
    from gateway.settings import TenantSettings

    unknown = TenantSettings()  # a tenant that is gone from the settings: only what any tenant refuses
    return lambda tenant, decision: not is_accepted(decision, settings.tenants.get(tenant, unknown))


def _instances(settings: "Settings", outcome: "Outcome") -> Mapping[tuple[str, bytes], Collection[str]] | None:
    """The instances behind the images that flip; None where the audit's store cannot be asked."""
    from federation_audit.store.errors import StoreError
    from federation_audit.store.queries import read_author_instances
    from fediwarden.cli.audit_store import open_audit_store

    flips = {(each.tenant, each.sha256) for each in outcome.flips()}
    try:
        with open_audit_store(settings) as store, store.reading() as connection:
            return read_author_instances(connection, flips)
    except StoreError as error:
        typer.echo(f"Instances are not known: {error}", err=True)
        return None


def _print(outcome: "Outcome", instances: Mapping[tuple[str, bytes], Collection[str]] | None) -> None:
    from rich.text import Text

    from fediwarden.cli.times import local
    from fediwarden.rescan.outcome import by_instance
    from schemas.messages import RescanState

    job = outcome.job
    typer.echo(f"Rescan {job.rescan}, {job.state.value}: images of {local(job.since)} to {local(job.until)},")
    typer.echo(f"judged from {job.tier.value}{': ' + job.why if job.why else ''}")
    if job.state is RescanState.RUNNING:
        typer.echo("It is not finished: these are the figures so far.")
    typer.echo()
    _print_decisions(outcome)
    _print_sum(outcome)
    typer.echo()
    if outcome.rules:
        table = make_table("rule", "before only", "after only", "both")
        for name, count in sorted(outcome.rules.items()):
            table.add_row(Text(name), str(count.before), str(count.after), str(count.both))
        print_table(table)
        typer.echo()
    flips = sorted(outcome.flips(), key=lambda each: (each.tenant, each.scan_id))
    if instances is not None and flips:
        found = sorted(by_instance(flips, instances).items(), key=lambda each: -each[1].total())
        table = make_table("instance", "changes")
        for domain, changes in found[:_INSTANCES_SHOWN]:
            said = ", ".join(f"{n} {before.value} -> {after.value}" for (before, after), n in sorted(changes.items()))
            table.add_row(Text(domain or "not known"), said)
        print_table(table)
        typer.echo()
    if flips:
        table = make_table("scan id", "tenant", "before", "after", "rules now")
        for each in flips[:_FLIPS_SHOWN]:
            assert each.before is not None and each.after is not None, "it counts"
            rules = each.hash_list or ", ".join(rule.name for rule in each.rules)
            table.add_row(Text(each.scan_id), each.tenant, each.before.value, each.after.value, Text(rules))
        print_table(table)
        if len(flips) > _FLIPS_SHOWN:
            typer.echo(f"and {len(flips) - _FLIPS_SHOWN} more; --json and --html name them")


def _print_decisions(outcome: "Outcome") -> None:
    from schemas.messages import Decision

    table = make_table("decided", *(f"now {each.value}" for each in Decision))
    for column in table.columns[1:]:
        column.justify = "right"
    for before in Decision:
        table.add_row(before.value, *(str(outcome.decisions[before, after]) for after in Decision))
    print_table(table)


def _print_sum(outcome: "Outcome") -> None:
    from fediwarden.rescan.outcome import Fate
    from fediwarden.rescan.reporting import FATES, HELD

    typer.echo(
        f"{outcome.changed} of {outcome.counted} images are decided differently: {outcome.removals} are refused from"
        f" now on, {outcome.released} accepted."
    )
    for fate in (Fate.APPLIED, Fate.UNDONE, Fate.OVERTAKEN, Fate.GONE):
        if outcome.fates[fate]:
            typer.echo(f"{outcome.fates[fate]} images: {FATES[fate]}.")
    for why, count in sorted(outcome.held.items()):
        typer.echo(f"{count} images keep their decision: {HELD.get(why, why)}.")
