"""``ledger``: how every request was answered, and what became of what was answered unjudged."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.reading import moment_ms, show_reading, span_ms
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED

if TYPE_CHECKING:
    from fediwarden.ledger import House, Statement, Unjudged
    from fediwarden.settings import Settings
    from schemas.messages import Decision

NOT_IN_IT = (
    "Requests that ended in an error (503 busy, 413 too large, 408 too slow, ...) got no decision and are not in it."
)

_SHOWN = 20
_ANSWER_ENTERS_WITHIN_MS = 10_000
_REMOVALS = {
    "removed": "found in pict-rs and removed",
    "would_remove": "found in pict-rs, would be removed (dry run)",
    "absent": "not there: pict-rs does not have it",
    "failing": "removal not confirmed: the last look at pict-rs failed",
    "looking": "looked for, the last look is still to come",
    "waiting": "not looked for yet; is the enforcer running?",
    "not_looked_at": "not looked for: the tenant has no pict-rs and API key in the settings",
}


def ledger(
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From when: 90s, 30m, 24h, 7d ago, or 2026-11-23T18:00.")
    ] = "24h",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until when, likewise. Default: now.")] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Only this tenant. Default: all.")] = "",
    open_after: Annotated[
        str, typer.Option(metavar="SPAN", help="How old something open must be for exit code 1.")
    ] = "1h",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how requests were answered, what became of those answered unjudged, and what is still open.

    Exit code 1 when an image is without a verdict, or a rejected one not confirmed as removed, for more than an hour.
    Requests that ended in an error (503 busy, 413 too large, 408 too slow, ...) got no decision and are not in it.
    """
    from fediwarden.ledger import Period, read_statement
    from schemas.clock import now_ms

    settings = read_settings(config)
    now = now_ms()
    period = Period(
        moment_ms(since, now, "--since"), now if until is None else moment_ms(until, now, "--until"), tenant
    )
    if period.since_ms >= period.until_ms:
        raise typer.BadParameter("--since must lie before --until")
    open_after_ms = span_ms(open_after, "--open-after")
    with show_reading() as on_progress:
        statement = asyncio.run(
            read_statement(settings.kafka.broker_settings(), period, _house(settings), on_progress=on_progress)
        )
    if tenant and not statement.requests and tenant not in settings.tenants:
        raise typer.BadParameter(f"--tenant: the settings name no tenant {tenant!r}, and no request of one is recorded")
    if as_json:
        import json

        typer.echo(json.dumps(as_plain(statement, open_after_ms=open_after_ms), indent=2))
    else:
        _print(statement, open_after_ms)
    if statement.overdue(open_after_ms):
        raise typer.Exit(FAILED)


def _house(settings: "Settings") -> "House":
    from fediwarden.ledger import House
    from gateway.answers import is_accepted
    from gateway.settings import TenantSettings

    unknown = TenantSettings()  # a tenant that is gone from the settings: only what any tenant refuses

    def refuses(tenant: str, decision: "Decision") -> bool:
        return not is_accepted(decision, settings.tenants.get(tenant, unknown))

    return House(
        refuses=refuses,
        enforced=frozenset(
            name for name, each in settings.tenants.items() if each.pict_rs is not None and each.pict_rs_api_key
        ),
        in_flight_ms=settings.gateway.deadline_ms + _ANSWER_ENTERS_WITHIN_MS,
    )


def as_plain(statement: "Statement", *, open_after_ms: int) -> dict[str, Any]:
    """The statement as JSON has it; times are ISO 8601 in UTC, hashes hexadecimal, spans in seconds."""
    period = statement.period
    judged = statement.judged
    return {
        "since": _utc(period.since_ms),
        "until": _utc(period.until_ms),
        "read_at": _utc(statement.read_at),
        "tenant": period.tenant or None,
        "requests": statement.requests,
        "answered": {
            answered_by.value: {"accepted": count.accepted, "refused": count.refused}
            for answered_by, count in statement.answered.items()
        },
        "unjudged": {
            "requests": len(statement.unjudged),
            "judged_later": {
                "requests": len(judged),
                "decisions": dict(sorted(Counter(each.decision.value for each in judged if each.decision).items())),
                "after_seconds": _delays(judged),
            },
            "rejected": {
                "requests": len(statement.rejected),
                **{removal.value: len(found) for removal, found in statement.removals.items()},
            },
            "dead": {"requests": len(statement.dead), "reasons": _reasons(statement.dead)},
            "open": {
                "requests": len(statement.open),
                "oldest_seconds": _age_s(statement, statement.open[0]) if statement.open else None,
                "scans": [_entry(each) for each in statement.open],
            },
            "unconfirmed": [
                _entry(each) | {"rejected_at": _utc(each.refused_at or 0)} for each in statement.unconfirmed
            ],
        },
        "open_after_seconds": open_after_ms / 1000,
        "overdue": len(statement.overdue(open_after_ms)),
        "judged_without_answer": statement.judged_without_answer,
        "unreadable_records": statement.unreadable,
        "dead_without_name": statement.dead_unnamed,
    }


def _entry(each: "Unjudged") -> dict[str, Any]:
    return {
        "scan_id": each.scan_id,
        "tenant": each.tenant,
        "sha256": each.sha256.hex(),
        "answered_by": each.answered_by.value,
        "answered_at": _utc(each.answered_at),
        "accepted": each.accepted,
        "reason": each.reason,
    }


def _delays(judged: Sequence["Unjudged"]) -> dict[str, float] | None:
    """How long after their answers: the least time within which half of them, 95 % and all were judged."""
    if not judged:
        return None
    delays = sorted(each.judged_after_ms / 1000 for each in judged)
    return {
        "p50": delays[(len(delays) - 1) // 2],
        "p95": delays[-(-len(delays) * 95 // 100) - 1],
        "longest": delays[-1],
    }


def _reasons(dead: Sequence["Unjudged"]) -> dict[str, int]:
    return dict(Counter(each.dead for each in dead if each.dead is not None).most_common())


def _age_s(statement: "Statement", each: "Unjudged") -> float:
    return (statement.read_at - each.answered_at) / 1000


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _local(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _words(seconds: float) -> str:
    """A span in two units at most: 4.2 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, below, below_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {below_name}" if rest else "")
    raise AssertionError("a minute and more has a unit")


def _print(statement: "Statement", open_after_ms: int) -> None:
    period = statement.period
    whose = f"tenant {period.tenant}" if period.tenant else "all tenants"
    typer.echo(f"Requests answered from {_local(period.since_ms)} to {_local(period.until_ms)}, {whose}:")
    typer.echo()
    _print_answered(statement)
    typer.echo()
    if statement.unjudged:
        _print_unjudged(statement)
        typer.echo()
    _print_entries("Still open, the oldest first:", statement, statement.open)
    _print_entries("Rejected and not confirmed as removed:", statement, statement.unconfirmed)
    for remark in _remarks(statement):
        typer.echo(remark)
    overdue = len(statement.overdue(open_after_ms))
    after = _words(open_after_ms / 1000)
    if overdue:
        typer.secho(f"Open, or rejected and not removed, for more than {after}: {overdue}.", fg=typer.colors.RED)
    else:
        typer.secho(f"Nothing is open for more than {after}.", fg=typer.colors.GREEN)


def _print_answered(statement: "Statement") -> None:
    table = make_table("answered by", "requests", "accepted", "refused")
    for column in table.columns[1:]:
        column.justify = "right"
    for answered_by, count in statement.answered.items():
        table.add_row(answered_by.value, str(count.all), str(count.accepted), str(count.refused))
    counts = statement.answered.values()
    accepted, refused = sum(each.accepted for each in counts), sum(each.refused for each in counts)
    table.add_row("all", str(statement.requests), str(accepted), str(refused), style="bold")
    print_table(table)


def _print_unjudged(statement: "Statement") -> None:
    table = make_table("answered unjudged (deadline, overload, spooled)", "requests")
    table.columns[1].justify = "right"
    rows = [("all", len(statement.unjudged)), ("judged later", len(statement.judged))]
    rows += [("  of these rejected", len(statement.rejected))]
    rows += [(f"    {_REMOVALS[removal.value]}", len(found)) for removal, found in statement.removals.items() if found]
    rows += [("cannot be judged (images.dead)", len(statement.dead))]
    rows += [(f"  {reason}", count) for reason, count in _reasons(statement.dead).items()]
    rows += [("still open", len(statement.open))]
    for what, count in rows:
        table.add_row(what, str(count))
    print_table(table)
    if delays := _delays(statement.judged):
        p50, p95, longest = (_words(seconds) for seconds in delays.values())
        typer.echo(f"Judged later: half within {p50} of the answer, 95 % within {p95}, the last after {longest}.")


def _print_entries(title: str, statement: "Statement", entries: Sequence["Unjudged"]) -> None:
    from rich.text import Text

    if not entries:
        return
    typer.echo(title)
    table = make_table("scan id", "tenant", "answered", "ago", "by", "told")
    for each in entries[:_SHOWN]:
        told = "accepted" if each.accepted else "refused"
        age = _words(_age_s(statement, each))
        table.add_row(Text(each.scan_id), each.tenant, _local(each.answered_at), age, each.answered_by.value, told)
    print_table(table)
    if len(entries) > _SHOWN:
        typer.echo(f"and {len(entries) - _SHOWN} more; --json names all of them")
    typer.echo()


def _remarks(statement: "Statement") -> Iterator[str]:
    from schemas.topics import IMAGES_DEAD

    if statement.judged_without_answer:
        yield (
            f"Judged, but no answer recorded: {statement.judged_without_answer}"
            " (the client got none, or its gateway was killed); not among the requests."
        )
    for topic, count in statement.unreadable.items():
        yield f"Records of the topic {topic} that cannot be read, and are not counted: {count}."
    if statement.dead_unnamed:
        yield f"Entries of images.dead that cannot say whose image they are about: {statement.dead_unnamed}."
    if statement.open and statement.period.since_ms < statement.read_at - IMAGES_DEAD.retention_ms:
        yield "images.dead is kept for 30 days: what has been open for longer may have ended there."
    yield NOT_IN_IT
