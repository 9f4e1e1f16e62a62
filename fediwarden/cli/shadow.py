"""``shadow``: what another policy or model would have decided, before anybody switches."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.tables import make_table, print_table
from fediwarden.cli.times import moment

if TYPE_CHECKING:
    from fediwarden.shadow import Comparison

app = typer.Typer(help="Scanners that only say what they would have decided: report.", no_args_is_help=True)


@app.command("report")
def report(
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From when: 90s, 30m, 24h, 7d ago, or 2026-11-23T18:00.")
    ] = "7d",
    policy: Annotated[
        str, typer.Option(metavar="ID", help="The shadow's policy id. Default: that of its latest verdict.")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what a shadow (`fediwarden scanner --shadow`) would have decided with what was decided."""
    from fediwarden.shadow import compare
    from schemas.clock import now_ms

    broker = read_settings(config).kafka.broker_settings()
    since_ms = moment(since, now_ms(), "--since")
    with progress_of_reading() as on_progress:
        comparison = asyncio.run(compare(broker, since_ms=since_ms, policy=policy, on_progress=on_progress))
    if as_json:
        import json

        typer.echo(json.dumps(as_plain(comparison), indent=2))
    else:
        print_comparison(comparison)


def as_plain(comparison: "Comparison") -> dict[str, Any]:
    """The comparison as JSON has it."""
    judge = comparison.judge
    return {
        "policy": None if judge is None else judge.policy,
        "models": {} if judge is None else dict(judge.models),
        "compared": comparison.compared,
        "changed": comparison.changed,
        "decisions": [
            {
                "live": live.value,
                "shadow": shadow.value,
                "images": count,
                "examples": comparison.examples.get((live, shadow), []),
            }
            for (live, shadow), count in sorted(comparison.decisions.items())
        ],
        "rules": {
            name: {"live_only": count.live, "shadow_only": count.shadow, "both": count.both}
            for name, count in sorted(comparison.rules.items())
        },
        "without_live": comparison.without_live,
        "without_shadow": comparison.without_shadow,
        "other_shadows": [
            {"policy": each.policy, "models": dict(each.models), "images": count}
            for each, count in comparison.others.most_common()
        ],
    }


def print_comparison(comparison: "Comparison") -> None:
    """Show on the terminal what a shadow would have changed."""
    from schemas.messages import Decision

    judge = comparison.judge
    if judge is None:
        typer.echo("No shadow has judged anything in that time: start one with `fediwarden scanner --shadow`.")
        return
    models = ", ".join(name for name, _ in judge.models)
    typer.echo(f"Policy {judge.policy}, with {models}: {comparison.compared} images compared,")
    typer.echo(f"{comparison.changed} of them would be decided differently.")
    typer.echo()
    table = make_table("decided", *(f"would {each.value}" for each in Decision))
    for live in Decision:
        table.add_row(live.value, *(str(comparison.decisions[live, shadow]) for shadow in Decision))
    print_table(table)
    typer.echo()
    if comparison.rules:
        table = make_table("rule", "fires now only", "in the shadow only", "in both")
        for name, fired in sorted(comparison.rules.items()):
            table.add_row(name, str(fired.live), str(fired.shadow), str(fired.both))
        print_table(table)
        typer.echo()
    for (live, shadow), scan_ids in sorted(comparison.examples.items()):
        typer.echo(f"{live.value} -> {shadow.value}, for example: {' '.join(scan_ids)}")
    typer.echo(
        f"Judged by the shadow alone: {comparison.without_live}; in its time and not (yet) by it:"
        f" {comparison.without_shadow}."
    )
    for each, count in comparison.others.most_common():
        typer.echo(f"Another shadow is left out: --policy {each.policy} ({count} images).")
