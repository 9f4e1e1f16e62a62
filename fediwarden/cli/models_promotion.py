"""``models promote``, ``unpromote`` and ``promoted``: other models for the scanners, while they judge."""

import asyncio
import getpass
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.tables import make_table, print_table
from fediwarden.cli.times import local, moment, span_ms

if TYPE_CHECKING:
    from fediwarden.promotion.change import Change
    from fediwarden.promotion.evidence import Evidence
    from fediwarden.settings import Settings
    from scanner.promotion.promoted import Promoted
    from schemas.messages import ModelsPromoted

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoteOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for `models promoted`.")]
WaitOption = Annotated[
    str, typer.Option("--wait", metavar="SPAN", help="How long to wait for all scanners: 90s, 30m; 0s not at all.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to ``fediwarden models``."""
    app.command("promote")(promote)
    app.command("unpromote")(unpromote)
    app.command("promoted")(promoted)


def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the registry (`fediwarden models list`).")],
    replaces: Annotated[
        str,
        typer.Option(metavar="NAME", help="The model that it takes the place of. Default: that which gives the same."),
    ] = "",
    beside: Annotated[bool, typer.Option("--beside", help="Add it, in the place of none.")] = False,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From when on a shadow's verdicts count: 24h, 7d ago, or a time.")
    ] = "7d",
    without_shadow: Annotated[
        bool, typer.Option("--without-shadow", help="Promote it although no shadow has judged with it.")
    ] = False,
    wait: WaitOption = "15m",
    note: NoteOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Have the scanners judge with another model: one after another loads it, while the others go on.

    It takes the place of the model that gives the same scores, or that --replaces names; else it is added. Its weights
    are verified, the policies in force have to fit, and a shadow has to have judged with it (`fediwarden scanner
    --shadow`), or itself before: what would be decided differently is shown. Rolling back is the same command with the
    old name.
    """
    from fediwarden.promotion.change import change_models
    from scanner.models.registry import load_registry
    from schemas.clock import now_ms

    settings = read_settings(config)
    within_s = span_ms(wait, "--wait") / 1000
    since_ms = moment(since, now_ms(), "--since")
    in_force = _in_force(settings)
    change = change_models(in_force, name, load_registry(settings.scanner.registry), replaces=replaces, beside=beside)
    _check(settings, change)
    _show_change(in_force, change)
    for model in change.added:
        _show_evidence(_find_evidence(settings, model, since_ms), without_shadow=without_shadow)
    if not yes:
        typer.confirm("Promote it?", abort=True)
    promotion = _promotion(settings, in_force, change.models, note)
    _carry_out(settings, promotion, change.models, within_s)
    if change.added:
        _offer_rescan(change.added[0], asks=not yes)


def unpromote(wait: WaitOption = "15m", yes: YesOption = False, config: ConfigOption = None) -> None:
    """Give the choice of models back to the setting scanner.models, after `models promote`."""
    from fediwarden.promotion.change import describe_change
    from fediwarden.promotion.errors import PromotionInvalid

    settings = read_settings(config)
    within_s = span_ms(wait, "--wait") / 1000
    standing = _read_promoted(settings).of(settings.scanner.group)
    if standing is None:
        raise PromotionInvalid(f"nothing is promoted for the group {settings.scanner.group!r}: the settings choose")
    change = describe_change(standing.models, settings.scanner.models)
    _check(settings, change)
    _show_change(standing.models, change)
    if not yes:
        typer.confirm("Give the choice back to the settings?", abort=True)
    _carry_out(settings, None, change.models, within_s)


def promoted(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what is promoted, for each group of scanners."""
    settings = read_settings(config)
    everything = _read_promoted(settings).all
    if as_json:
        import json

        typer.echo(json.dumps([each.model_dump(mode="json") for each in everything.values()], indent=2))
        return
    if not everything:
        typer.echo(f"Nothing is promoted: the setting scanner.models chooses ({', '.join(settings.scanner.models)}).")
        return
    from rich.markup import escape

    table = make_table("group", "models", "before", "when", "by", "note")
    for group, each in sorted(everything.items()):
        models, before = ", ".join(each.models), ", ".join(each.replaced)
        table.add_row(
            escape(group), models, before, local(each.promoted_at), escape(each.promoted_by), escape(each.note)
        )
    print_table(table)


def _read_promoted(settings: "Settings") -> "Promoted":
    from fediwarden.promotion.rollout import CLIENT_ID
    from scanner.promotion.promoted import read_promoted

    return asyncio.run(read_promoted(settings.kafka.broker_settings(), client_id=CLIENT_ID))


def _in_force(settings: "Settings") -> tuple[str, ...]:
    standing = _read_promoted(settings).of(settings.scanner.group)
    return settings.scanner.models if standing is None else standing.models


def _check(settings: "Settings", change: "Change") -> None:
    from fediwarden.promotion.checking import check_promotion

    check_promotion(settings, change.models)


def _show_change(in_force: Sequence[str], change: "Change") -> None:
    typer.echo(f"Scanners judge with {', '.join(in_force)}, and then with {', '.join(change.models)}.")
    typer.echo("The weights are here and verified, and the policies in force fit.")


def _find_evidence(settings: "Settings", model: str, since_ms: int) -> "Evidence":
    from fediwarden.promotion.evidence import find_evidence
    from scanner.models.loading import find_id
    from scanner.models.registry import load_registry
    from schemas.clock import now_ms

    model_id = find_id(load_registry(settings.scanner.registry).entry(model))
    broker = settings.kafka.broker_settings()
    with progress_of_reading() as on_progress:
        return asyncio.run(
            find_evidence(broker, model, model_id, since_ms=since_ms, at_ms=now_ms(), on_progress=on_progress)
        )


def _show_evidence(evidence: "Evidence", *, without_shadow: bool) -> None:
    """Say what a model would change. Raises `PromotionRefused` where nobody knows, unless `without_shadow`."""
    from fediwarden.cli.shadow import print_comparison
    from fediwarden.promotion.errors import PromotionRefused

    if not evidence.suffices and not without_shadow:
        raise PromotionRefused(
            f"no shadow has judged with {evidence.name} ({evidence.model_id}) in that time, and no scanner has: what "
            "it would decide is unknown. Run `fediwarden scanner --shadow` with it for some days (docs/models.md), "
            "look further back with --since, or go without by --without-shadow"
        )
    if evidence.comparison.compared > 0:
        typer.echo(f"What a shadow with {evidence.name} made of the same images:")
        print_comparison(evidence.comparison)
    elif evidence.has_judged:
        typer.echo(f"{evidence.name} has judged before.")
    else:
        typer.echo(f"Nobody has seen what {evidence.name} would decide (--without-shadow).")


def _promotion(settings: "Settings", before: Sequence[str], models: Sequence[str], note: str) -> "ModelsPromoted":
    from schemas.clock import now_ms
    from schemas.messages import ModelsPromoted

    return ModelsPromoted(
        group=settings.scanner.group,
        models=tuple(models),
        replaced=tuple(before),
        promoted_by=getpass.getuser()[:100],
        promoted_at=now_ms(),
        note=note[:500],
    )


def _carry_out(
    settings: "Settings", promotion: "ModelsPromoted | None", models: Sequence[str], within_s: float
) -> None:
    from fediwarden.promotion.rollout import promote as publish

    began = time.monotonic()
    there = asyncio.run(
        publish(
            settings.kafka.broker_settings(),
            settings.scanner.group,
            promotion,
            models,
            within_s=within_s,
            on_step=typer.echo,
        )
    )
    named = ", ".join(models)
    if not there:
        typer.echo(f"No scanner of the group {settings.scanner.group!r} runs; those that start judge with {named}.")
    elif within_s > 0:
        typer.echo(f"All scanners judge with {named}, after {time.monotonic() - began:.0f} s.")
    else:
        typer.echo(f"Scanners take up {named} one after another: `fediwarden doctor` says how they stand.")


def _offer_rescan(model: str, *, asks: bool) -> None:
    command = ["rescan", "--since", "7d", "--model", model, "--dry-run"]
    typer.echo("What would it have said of the last seven days? Nothing is changed by asking:")
    typer.echo(f"  fediwarden {' '.join(command)}")
    if asks and sys.stdin.isatty() and typer.confirm("Run it now?", default=False):
        ran = subprocess.run([sys.executable, "-P", "-m", "fediwarden", *command], check=False)
        raise typer.Exit(ran.returncode)
