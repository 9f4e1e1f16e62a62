"""What is wrong with a policy although every word of it is known: rules that say nothing, and what nobody uses."""

from collections.abc import Iterator
from dataclasses import dataclass

from scanner.policy.adjustments import Adjustment
from scanner.policy.conditions import AtLeast, Condition, describe, parts_of, scores_of
from scanner.policy.judging import STRENGTH, Policy, Rule
from scanner.policy.positions import Path
from scanner.policy.reach import Range, can_hold
from schemas.messages import Decision


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the path of the value it is about."""

    path: Path
    what: str


def find_problems(policy: Policy) -> Iterator[Problem]:
    """Yield rules and adjustments that can never or must always hold, and rules that others leave nothing to do.

    Whatever it says is certain; a contradiction too tangled for `scanner.policy.reach` is not found.
    """
    ranges = reachable_ranges(policy.adjustments)
    for index, adjustment in enumerate(policy.adjustments):
        yield from _problems_of_adjustment(index, adjustment, ranges)
    yield from _find_idle_changes(policy)
    for index, rule in enumerate(policy.rules):
        problem = _problem_of_condition(rule.when, ranges)
        if problem:
            yield Problem(("rule", index, "when"), f"rule {rule.name!r}: {problem}")
        elif shadowing := _find_shadowing(policy, index, ranges):
            names = " and ".join(repr(each.name) for each in shadowing)
            verb = "fires" if len(shadowing) == 1 else "fire"
            decides = " and ".join(dict.fromkeys(each.decision.value for each in shadowing))
            yield Problem(
                ("rule", index),
                f"rule {rule.name!r} never changes a decision: whenever it fires, {names} {verb} too ({decides});"
                " remove it, or ask for less than they do",
            )


def reachable_ranges(adjustments: tuple[Adjustment, ...]) -> dict[str, Range]:
    """How far adjustments can move each score beyond 0..1."""
    ranges: dict[str, Range] = {}
    for adjustment in adjustments:
        for change in adjustment.changes:
            lowest, highest = ranges.get(change.score, (0.0, 1.0))
            ranges[change.score] = (lowest + min(change.by, 0.0), highest + max(change.by, 0.0))
    return ranges


def _problems_of_adjustment(index: int, adjustment: Adjustment, ranges: dict[str, Range]) -> Iterator[Problem]:
    where = f"adjustment {adjustment.name!r}"
    if adjustment.when is not None and (problem := _problem_of_condition(adjustment.when, ranges)):
        yield Problem(("adjustment", index, "when"), f"{where}: {problem}")
    for place, change in enumerate(adjustment.changes):
        if change.unless is not None and (problem := _problem_of_condition(change.unless, ranges)):
            yield Problem(("adjustment", index, "change", place, "unless"), f"{where}: {problem}")


def _find_idle_changes(policy: Policy) -> Iterator[Problem]:
    """Changes of scores that nothing looks at afterwards."""
    looked_at = set().union(*(scores_of(rule.when) for rule in policy.rules))
    for index, adjustment in reversed(list(enumerate(policy.adjustments))):
        for change in reversed(adjustment.changes):
            if change.score not in looked_at:
                what = f"adjustment {adjustment.name!r} changes {change.score!r}, which nothing looks at; remove that"
                yield Problem(("adjustment", index, "change"), what)
            if change.unless is not None:
                looked_at |= scores_of(change.unless)
        if adjustment.when is not None:
            looked_at |= scores_of(adjustment.when)


def _problem_of_condition(condition: Condition, ranges: dict[str, Range]) -> str:
    for part in reversed(list(parts_of(condition))):  # the innermost first: that is where the mistake is
        which = "this condition" if part is condition else f"the part '{describe(part)}'"
        if not can_hold([part], ranges=ranges):
            return f"{which} can never hold; {_remedy(part, 'lower')}"
        if not can_hold([], [part], ranges=ranges):
            return f"{which} holds for every picture; {_remedy(part, 'raise')}"
    return ""


def _remedy(part: Condition, direction: str) -> str:
    if isinstance(part, AtLeast):
        return f"{direction} the threshold of {part.score!r}"
    return f"its parts exclude or repeat one another: {describe(part)}"


def _find_shadowing(policy: Policy, index: int, ranges: dict[str, Range]) -> list[Rule]:
    """Rules one of which decides at least as much whenever this one fires. A rule that accepts only takes note."""
    rule = policy.rules[index]
    if rule.decision is Decision.ACCEPT:
        return []
    strength = STRENGTH[rule.decision]
    others = [
        other
        for place, other in enumerate(policy.rules)
        if STRENGTH[other.decision] > strength or (STRENGTH[other.decision] == strength and place < index)
    ]
    found: dict[str, Rule] = {}
    for kind in sorted(rule.media):
        deciding = [other for other in others if kind in other.media]
        if can_hold([rule.when], [other.when for other in deciding], ranges):
            return []
        alone = (other for other in deciding if not can_hold([rule.when], [other.when], ranges))
        first = next(alone, None)
        found |= {other.name: other for other in ([first] if first else deciding)}
    return list(found.values())
