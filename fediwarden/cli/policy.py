"""``policy``: check policies, see why they decide as they do, compare them, and measure them on labelled pictures."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.reading import progress_of_reading
from fediwarden.cli.times import moment
from fediwarden.exits import FAILED, OK, USAGE

if TYPE_CHECKING:
    from fediwarden.policies.scoring import Scored
    from fediwarden.settings import Settings
    from scanner.policy import Policy

app = typer.Typer(help="Policies: check, explain, compare, measure.", no_args_is_help=True)

PolicyArgument = Annotated[
    Path, typer.Argument(metavar="POLICY", help="A policy file, or the name of one that comes with fediwarden.")
]


class NothingToJudge(Exception):
    """There are no files to judge, or none of them can be; the message says why."""

    exit_code = USAGE


@app.command("check")
def check(
    policies: Annotated[
        list[Path], typer.Argument(metavar="POLICY...", help="Policy files, or names of those that come along.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check policies as a scanner does. Exit code 1 when one is wrong; each error names line, column and remedy."""
    from fediwarden.cli.policy_output import print_check
    from scanner.policy import PolicyError

    settings = read_settings(config)
    found: list[tuple[str, Policy | PolicyError]] = []
    for given in policies:
        try:
            found.append((str(given), _load(given, settings)))
        except PolicyError as error:
            found.append((str(given), error))
    print_check(found, as_json=as_json)
    raise typer.Exit(FAILED if any(isinstance(each, PolicyError) for _, each in found) else OK)


@app.command("explain")
def explain(
    policy: PolicyArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images and videos.", exists=True)],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge files on this machine and show every score, every rule, why it fired or how far it was from firing.

    Exit code 2 when a file cannot be judged. Nothing leaves this machine; no Kafka is needed.
    """
    from fediwarden.cli.policy_output import print_explanation
    from fediwarden.policies.explaining import explain as explain_frames

    settings = read_settings(config)
    loaded = _load(policy, settings)
    unjudged = 0

    def show(scored: "Scored") -> None:
        nonlocal unjudged
        if scored.error:
            unjudged += 1
            typer.secho(f"{scored.path}: {scored.error}", err=True, fg=typer.colors.RED)
        else:
            print_explanation(loaded, scored, explain_frames(loaded, scored.frames, scored.kind), as_json=as_json)

    _score(images, loaded, settings, show)
    raise typer.Exit(USAGE if unjudged else OK)


@app.command("diff")
def diff(
    first: PolicyArgument,
    second: PolicyArgument,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Judge the verdicts since then anew by both: 7d ago, or 2026-11-23T18:00."),
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Only this tenant's verdicts. Default: all.")] = "",
    examples: Annotated[int, typer.Option(min=0, max=1000, help="Scan ids shown for each kind of change.")] = 5,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what changes from one policy to another and, with --since, how many decisions would flip in the verdict log.

    Verdicts keep the highest score of all frames per label. What has several frames is judged by those, and counted
    apart: its flips are an estimate.
    """
    from fediwarden.cli.policy_output import print_comparison
    from fediwarden.policies.comparing import compare
    from fediwarden.policies.rejudging import Recount, recount_verdicts
    from schemas.clock import now_ms

    settings = read_settings(config)
    before, after = _load(first, settings), _load(second, settings)
    recount = None
    if since is not None:
        recount = Recount(before, after, tenant, examples)
        since_ms = moment(since, now_ms(), "--since")
        with progress_of_reading() as on_progress:
            asyncio.run(
                recount_verdicts(
                    settings.kafka.broker_settings(),
                    recount,
                    since_ms=since_ms,
                    on_progress=lambda passed, of: on_progress("verdicts", passed, of),
                )
            )
    print_comparison(before, after, compare(before, after), recount, as_json=as_json)


@app.command("test")
def test(
    policy: PolicyArgument,
    folder: Annotated[
        Path, typer.Argument(help="Holds folders named accept, review and reject (or some of them).", exists=True)
    ],
    false_positives: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of harmless pictures that may be flagged.")
    ] = 0.01,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the ROC curves into this file.", dir_okay=False)
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a policy on pictures that lie in folders named for the decision they should get.

    Shows who is confused with whom, ROC points, and which threshold of each score finds most while it flags no more
    than the wanted share of harmless pictures. The figures hold for pictures drawn like these, and for nothing else.
    """
    from fediwarden.cli.policy_output import draw_roc, print_trial
    from fediwarden.cli.scan import walk
    from fediwarden.policies.trial import Sample, try_policy
    from schemas.messages import Decision

    settings = read_settings(config)
    loaded = _load(policy, settings)
    labelled = {wanted: folder / wanted.value for wanted in Decision if (folder / wanted.value).is_dir()}
    labels = {path: wanted for wanted, each in labelled.items() for path in sorted(walk([each]))}
    if not labels:
        raise NothingToJudge(f"{folder} has no folder accept, review or reject with images or videos in it")
    samples: list[Sample] = []
    errors: list[Scored] = []

    def take(scored: "Scored") -> None:
        if scored.error:
            errors.append(scored)
        else:
            samples.append(try_policy(loaded, scored, labels[scored.path]))

    _score(list(labels), loaded, settings, take)
    for scored in errors:
        typer.secho(f"{scored.path}: {scored.error}", err=True, fg=typer.colors.RED)
    if not samples:
        raise NothingToJudge(f"none of the {len(labels)} files in {folder} can be judged")
    print_trial(loaded, samples, false_positives, as_json=as_json)
    if picture is not None:
        draw_roc(loaded, samples, picture)
    raise typer.Exit(USAGE if errors else OK)


def _load(given: Path, settings: "Settings") -> "Policy":
    """Read a policy for any model that is registered, loaded here or not."""
    from scanner.models.loading import every_embedder, every_label
    from scanner.policy import load_policy

    return load_policy(given, every_label(), every_embedder(settings.scanner.registry))


def _score(paths: list[Path], policy: "Policy", settings: "Settings", on_scored: Callable[["Scored"], Any]) -> None:
    """Score files with the models that the policy needs, and hand each on as it comes."""
    from fediwarden.policies.scoring import score_files
    from scanner.models.loading import load_models

    scanner = settings.scanner
    models = load_models(
        sorted(policy.models),
        settings.models_dir,
        registry=scanner.registry,
        device=scanner.device,
        precision=scanner.precision,
        threads=scanner.threads,
    )

    async def run() -> None:
        async for scored in score_files(paths, settings.gateway.frames, models, policy):
            on_scored(scored)

    asyncio.run(run())
