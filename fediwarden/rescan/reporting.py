"""What a rescan comes to, for programs and as one page that a browser shows without anything else."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from fediwarden.rescan.outcome import Image, Outcome, Point, by_instance
from fediwarden.rescan.score_plot import draw_scores
from schemas.messages import Decision, RescanState

FLIPS_ON_A_PAGE: Final = 2_000
PLOTS_ON_A_PAGE: Final = 12

FATES: Final = {
    "open": "can be carried out",
    "applied": "carried out",
    "undone": "carried out, and undone",
    "unchanged": "stay as they are in every respect",
    "held": "keep their decision",
    "overtaken": "have been judged again since: that stands",
    "other": "stood otherwise than those that the rescan is about",
    "gone": "their verdict is not kept any more: left as they are",
}
HELD: Final = {
    "override": "an override holds",
    "list": "a hash list decided",
    "incomplete": "a score or a vector that is needed is not kept",
    "erased": "refused by now: the archive lets go of its frames",
    "unreadable": "the archived frames cannot be read",
}

Medium = tuple[str, bytes]


def as_plain(outcome: Outcome, instances: Mapping[Medium, Collection[str]] | None) -> dict[str, Any]:
    """The outcome as JSON has it: times are ISO 8601 in UTC, hashes hexadecimal; every flip is in it.

    `instances` are the authors' instances of media, as far as they are known; None where there is nobody to ask.
    """
    job = outcome.job
    flips = sorted(outcome.flips(), key=lambda each: (each.tenant, each.scan_id))
    return {
        "rescan": job.rescan,
        "state": job.state.value,
        "tier": job.tier.value,
        "why": job.why,
        "since": _utc(job.since),
        "until": _utc(job.until),
        "tenants": list(job.tenants),
        "only": [each.value for each in job.only],
        "models": dict(job.models),
        "lists": dict(job.lists),
        "judged": len(outcome.images),
        "counted": outcome.counted,
        "changed": outcome.changed,
        "newly_refused": outcome.removals,
        "newly_accepted": outcome.released,
        "fates": {fate.value: count for fate, count in sorted(outcome.fates.items())},
        "held": dict(sorted(outcome.held.items())),
        "decisions": _changes(outcome.decisions),
        "rules": {
            name: {"before_only": each.before, "after_only": each.after, "both": each.both}
            for name, each in sorted(outcome.rules.items())
        },
        "instances": None
        if instances is None
        else [
            {"instance": domain or None, "changes": _changes(found)}
            for domain, found in sorted(by_instance(flips, instances).items(), key=lambda each: _most_first(*each))
        ],
        "scores": {
            label: [[point.old, round(point.new, 4)] for point in points]
            for label, points in sorted(outcome.points.items())
        },
        "flips": [_flip(each, instances) for each in flips],
    }


def make_page(outcome: Outcome, instances: Mapping[Medium, Collection[str]] | None) -> str:
    """The outcome as one page of HTML: no scripts, nothing from elsewhere."""
    environment = Environment(
        loader=PackageLoader("fediwarden.rescan", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    plain = as_plain(outcome, instances)
    plots = [(label, draw_scores(label, points)) for label, points in _telling(outcome)]
    return environment.get_template("report.html").render(
        report=plain,
        decisions=list(Decision),
        counts=outcome.decisions,
        fates=FATES,
        held=HELD,
        plots=plots[:PLOTS_ON_A_PAGE],
        plots_left=max(0, len(plots) - PLOTS_ON_A_PAGE),
        flips=plain["flips"][:FLIPS_ON_A_PAGE],
        flips_left=max(0, len(plain["flips"]) - FLIPS_ON_A_PAGE),
        running=outcome.job.state is RescanState.RUNNING,
        words=_words,
    )


def write_page(path: Path, page: str) -> None:
    """Write a page. Raises `OSError`."""
    path.write_text(page, encoding="utf-8")


def _telling(outcome: Outcome) -> Sequence[tuple[str, Sequence[Point]]]:
    """The points of each label, those first that differ most."""

    def distance(points: Iterable[Point]) -> float:
        return sum(abs(point.new - (point.old or 0.0)) for point in points)

    return sorted(outcome.points.items(), key=lambda each: (-distance(each[1]), each[0]))


def _changes(decisions: Counter[tuple[Decision, Decision]]) -> list[dict[str, Any]]:
    return [
        {"before": before.value, "after": after.value, "images": count}
        for (before, after), count in sorted(decisions.items())
    ]


def _most_first(domain: str, found: Counter[tuple[Decision, Decision]]) -> tuple[bool, int, str]:
    return (not domain, -found.total(), domain)


def _flip(image: Image, instances: Mapping[Medium, Collection[str]] | None) -> dict[str, Any]:
    assert image.before is not None and image.after is not None, "it counts"
    return {
        "scan_id": image.scan_id,
        "tenant": image.tenant,
        "sha256": image.sha256.hex(),
        "before": image.before.value,
        "after": image.after.value,
        "rules_before": list(image.rules_before),
        "rules": [rule.name for rule in image.rules],
        "hash_list": image.hash_list,
        "fate": image.fate.value,
        "instances": None if instances is None else sorted(instances.get((image.tenant, image.sha256), ())),
    }


def _words(changes: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['images']} {each['before']} → {each['after']}" for each in changes)


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
