"""What the ``policy`` commands print and draw."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from fediwarden.cli.tables import make_table, print_table
from fediwarden.line_chart import draw_lines
from fediwarden.policies.explaining import ConditionShown, Explanation, RuleShown
from fediwarden.policies.rejudging import Flip, Recount
from fediwarden.policies.scoring import Scored
from fediwarden.policies.trial import REJECTING, Point, Rate, Sample, area, confusion, roc, threshold_for
from scanner.policy import Policy, PolicyError
from schemas.messages import Decision

_COLOURS = {
    Decision.ACCEPT: typer.colors.GREEN,
    Decision.REVIEW: typer.colors.YELLOW,
    Decision.REJECT: typer.colors.RED,
}
_SHOWN_POINTS = 8
_DRAWN_LINES = 4


def print_check(found: Sequence[tuple[str, Policy | PolicyError]], *, as_json: bool) -> None:
    """One line a policy; of a wrong one its error."""
    if as_json:
        typer.echo(json.dumps([_plain_check(given, each) for given, each in found], indent=2))
        return
    for given, each in found:
        if isinstance(each, PolicyError):
            typer.secho(str(each), fg=typer.colors.RED)
            continue
        parts = [_counted(len(each.rules), "rule"), _counted(len(each.adjustments), "adjustment")]
        parts.append(_counted(sum(map(len, each.concepts.values())), "concept"))
        typer.echo(f"{given}: ok. {each.name} ({each.id}): {', '.join(parts)}; models {', '.join(sorted(each.models))}")


def print_explanation(policy: Policy, scored: Scored, explanation: Explanation, *, as_json: bool) -> None:
    """All about one file."""
    if as_json:
        typer.echo(json.dumps(_plain_explanation(policy, scored, explanation)))
        return
    decision = explanation.judgement.decision
    frames = _counted(len(scored.frames), "frame")
    typer.secho(f"{scored.path}: {decision.value} ({scored.kind.value}, {frames})", fg=_COLOURS[decision], bold=True)
    table = make_table("  score", "highest", "frame", "after adjustments")
    for score in explanation.scores:
        adjusted = f"{score.adjusted:.4f}" if score.adjusted != score.value else ""
        table.add_row(f"  {score.name}", f"{score.value:.4f}", str(score.frame), adjusted)
    print_table(table)
    for shown in explanation.adjustments:
        name = shown.adjustment.name
        if not shown.frames:
            typer.echo(f"  adjustment {name}: not made, {-(shown.margin or 0.0):.4f} away")
        else:
            typer.echo(f"  adjustment {name}: made in {_frames(shown.frames)}. {shown.adjustment.says}".rstrip())
    for rule in explanation.rules:
        _print_rule(rule)
    typer.echo()


def _print_rule(shown: RuleShown) -> None:
    rule = shown.rule
    margin = shown.condition.margin
    if not shown.applies:
        state = f"does not look at this: only at {' and '.join(sorted(rule.media))}"
    elif shown.fired:
        state = f"FIRED in frame {shown.frame}, by {margin:.4f}. {rule.says}"
    else:
        state = f"did not fire, {-margin:.4f} away in frame {shown.frame}"
    typer.secho(f"  rule {rule.name} ({rule.decision.value}): {state}", bold=shown.fired)
    if shown.applies:
        for line in _condition_lines(shown.condition, "    "):
            typer.echo(line)


def _condition_lines(shown: ConditionShown, indent: str) -> Iterator[str]:
    mark = "+" if shown.margin >= 0.0 else "-"
    value = "" if shown.value is None else f": {shown.value:.4f}"
    yield f"{indent}{mark} {shown.words}{value} ({shown.margin:+.4f})"
    for part in shown.parts:
        yield from _condition_lines(part, indent + "  ")


def print_comparison(
    first: Policy, second: Policy, changes: Sequence[str], recount: Recount | None, *, as_json: bool
) -> None:
    """What changes and, where the log was read, what would have."""
    if as_json:
        plain = {"first": _plain_name(first), "second": _plain_name(second), "changes": list(changes)}
        typer.echo(json.dumps(plain | ({} if recount is None else {"log": _plain_recount(recount)}), indent=2))
        return
    typer.echo(f"from {first.name} ({first.id}) to {second.name} ({second.id})")
    if first.id == second.id:
        typer.echo("They decide the same: the ids are equal.")
    for change in changes:
        typer.echo(f"  {change}")
    if recount is not None:
        _print_recount(recount)


def _print_recount(recount: Recount) -> None:
    typer.echo(f"\nverdict log: {_counted(recount.single, 'picture')} of one frame, judged anew from their scores")
    _print_flips(recount, recount.flips, recount.single)
    if recount.several:
        typer.echo(
            f"{_counted(recount.several, 'picture')} of several frames, judged by their highest scores (an estimate:"
            " the log does not say which frame each is from)"
        )
        _print_flips(recount, recount.flips_by_highest, recount.several)
    for flip, scan_ids in sorted(recount.scan_ids.items()):
        typer.echo(f"  for example {_arrow(flip)}: {', '.join(scan_ids)}")
    if recount.incomplete:
        lacking = ", ".join(f"{name} ({count})" for name, count in recount.lacking.most_common(6))
        typer.echo(f"{_counted(recount.incomplete, 'verdict')} not judged anew, for lack of the scores {lacking}")
    if recount.unlike_recorded:
        typer.echo(
            f"{recount.unlike_recorded} of those that {recount.first.name} judged come out differently from what the"
            " log keeps (scores of four digits, the highest of all frames); so may others"
        )
    if recount.unreadable:
        typer.echo(f"{_counted(recount.unreadable, 'record')} could not be read")


def _print_flips(recount: Recount, flips: "dict[Flip, int]", total: int) -> None:
    if total and not flips:
        typer.echo("  no decision flips")
    for flip, count in sorted(flips.items(), key=lambda pair: -pair[1]):
        typer.echo(f"  {count} ({count / total:.2%}) {_arrow(flip)}")


def print_trial(policy: Policy, samples: Sequence[Sample], false_positives: float, *, as_json: bool) -> None:
    """The confusion table, ROC points of the rejecting rules, and thresholds for the wanted rate."""
    curves = _curves(samples)
    if as_json:
        typer.echo(json.dumps(_plain_trial(policy, samples, curves, false_positives), indent=2))
        return
    typer.echo(f"{policy.name} ({policy.id}) on {_counted(len(samples), 'file')}")
    counts = confusion(samples)
    table = make_table("wanted", *(f"got {decided.value}" for decided in Decision))
    for wanted in Decision:
        if any(counts[wanted, decided] for decided in Decision):
            table.add_row(wanted.value, *(str(counts[wanted, decided]) for decided in Decision))
    print_table(table)
    if not curves:
        typer.echo("No ROC: that takes files in accept as well as in reject.")
        return
    if REJECTING in curves:
        typer.echo("\nIf every threshold of the rejecting rules were higher by so much (lower, where negative):")
        points = curves[REJECTING]
        table = make_table("shift", "harmless rejected", "bad rejected")
        for point in _thinned(points[1:]):
            table.add_row(f"{point.threshold:+.4f}", _rate(point.false_positives), _rate(point.true_positives))
        print_table(table)
    typer.echo(f"\nOne score alone, flagging at most {false_positives:.2%} of the harmless files:")
    table = make_table("score", "area under ROC", "at_least", "harmless flagged", "bad found")
    for name, points in curves.items():
        if name != REJECTING:
            best = threshold_for(points, false_positives)
            # Cut, not rounded: rounded up it would miss the picture that it is the score of.
            threshold = "none" if math.isinf(best.threshold) else f"{math.floor(best.threshold * 1e6) / 1e6:.6f}"
            table.add_row(
                name, f"{area(points):.3f}", threshold, _rate(best.false_positives), _rate(best.true_positives)
            )
    print_table(table)
    typer.echo("In brackets: 95 % intervals (Clopper-Pearson), for files drawn like these.")


def draw_roc(policy: Policy, samples: Sequence[Sample], path: Path) -> None:
    """Write the curves of the rejecting rules and of the three best scores as SVG; nothing where there are none."""
    curves = _curves(samples)
    ranked = sorted(curves, key=lambda name: (name != REJECTING, -area(curves[name])))[:_DRAWN_LINES]
    if not ranked:
        typer.secho(f"{path} is not drawn: a curve takes files in accept as well as in reject", err=True)
        return
    lines = {
        name: [(100 * point.false_positives.value, 100 * point.true_positives.value) for point in curves[name]]
        for name in ranked
    }
    draw_lines(
        lines,
        path,
        title=f"{policy.name} on {_counted(len(samples), 'file')}",
        across="harmless files flagged, %",
        up="bad files found, %",
        dotted=False,
    )


def _curves(samples: Sequence[Sample]) -> dict[str, list[Point]]:
    wanted = {sample.wanted for sample in samples}
    if not {Decision.ACCEPT, Decision.REJECT} <= wanted:
        return {}
    names = dict.fromkeys(name for sample in samples for name in sample.measures)
    return {name: roc(samples, name) for name in names}


def _thinned(points: Sequence[Point]) -> list[Point]:
    """A few of the points, evenly over the curve, and always the last that flags at least as much as the policy."""
    step = max(1, math.ceil(len(points) / _SHOWN_POINTS))
    now = [point for point in points if point.threshold >= 0.0][-1:]
    return sorted({*points[::step], *points[-1:], *now}, key=lambda point: -point.threshold)


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.count} of {rate.total}, {rate.value:.2%} ({low:.2%} to {high:.2%})"


def _arrow(flip: Flip) -> str:
    return f"{flip[0].value} -> {flip[1].value}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _frames(frames: Sequence[int]) -> str:
    return f"frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, frames))}"


def _plain_name(policy: Policy) -> dict[str, str]:
    return {"name": policy.name, "id": policy.id}


def _plain_check(given: str, each: Policy | PolicyError) -> dict[str, Any]:
    if isinstance(each, PolicyError):
        return {"policy": given, "ok": False, "line": each.line, "column": each.column, "error": each.what}
    return {
        "policy": given,
        "ok": True,
        **_plain_name(each),
        "models": sorted(each.models),
        "rules": [{"name": rule.name, "decision": rule.decision.value, "says": rule.says} for rule in each.rules],
        "adjustments": [adjustment.name for adjustment in each.adjustments],
        "concepts": {model: list(concepts) for model, concepts in each.concepts.items()},
    }


def _plain_explanation(policy: Policy, scored: Scored, explanation: Explanation) -> dict[str, Any]:
    return {
        "file": str(scored.path),
        "policy": _plain_name(policy),
        "decision": explanation.judgement.decision.value,
        "media": scored.kind.value,
        "frames_at_ms": list(scored.at_ms),
        "worst_frame": explanation.judgement.worst_frame,
        "scores": {
            score.name: {"highest": score.value, "frame": score.frame, "adjusted": score.adjusted}
            for score in explanation.scores
        },
        "adjustments": [
            {"name": shown.adjustment.name, "frames": list(shown.frames), "margin": shown.margin}
            for shown in explanation.adjustments
        ],
        "rules": [
            {
                "name": shown.rule.name,
                "decision": shown.rule.decision.value,
                "says": shown.rule.says,
                "applies": shown.applies,
                "fired": shown.fired,
                "frame": shown.frame,
                "condition": _plain_condition(shown.condition),
            }
            for shown in explanation.rules
        ],
    }


def _plain_condition(shown: ConditionShown) -> dict[str, Any]:
    plain: dict[str, Any] = {"words": shown.words, "margin": shown.margin}
    if shown.value is not None:
        plain["value"] = shown.value
    if shown.parts:
        plain["parts"] = [_plain_condition(part) for part in shown.parts]
    return plain


def _plain_recount(recount: Recount) -> dict[str, Any]:
    return {
        "single_frame": {"pictures": recount.single, "flips": _plain_flips(recount.flips)},
        "several_frames_by_highest": {
            "pictures": recount.several,
            "flips": _plain_flips(recount.flips_by_highest),
        },
        "examples": {_arrow(flip): scan_ids for flip, scan_ids in recount.scan_ids.items()},
        "incomplete": recount.incomplete,
        "lacking": dict(recount.lacking),
        "unlike_recorded": recount.unlike_recorded,
        "unreadable": recount.unreadable,
    }


def _plain_flips(flips: "dict[Flip, int]") -> dict[str, int]:
    return {_arrow(flip): count for flip, count in flips.items()}


def _plain_trial(
    policy: Policy, samples: Sequence[Sample], curves: dict[str, list[Point]], false_positives: float
) -> dict[str, Any]:
    counts = confusion(samples)
    return {
        "policy": _plain_name(policy),
        "files": len(samples),
        "confusion": {
            wanted.value: {decided.value: counts[wanted, decided] for decided in Decision} for wanted in Decision
        },
        "false_positive_rate": false_positives,
        "measures": {
            name: {
                "area": area(points),
                "threshold": _plain_point(threshold_for(points, false_positives)),
                "points": [_plain_point(point) for point in points],
            }
            for name, points in curves.items()
        },
    }


def _plain_point(point: Point) -> dict[str, Any]:
    return {
        "at_least": None if math.isinf(point.threshold) else point.threshold,
        "harmless_flagged": point.false_positives.count,
        "harmless": point.false_positives.total,
        "bad_found": point.true_positives.count,
        "bad": point.true_positives.total,
    }
