"""What differs between two policies, in sentences."""

from collections.abc import Iterator
from typing import Any, TypeVar

from scanner.policy import Adjustment, AtLeast, MediaKind, Policy, Rule
from scanner.policy.conditions import Condition, canonical, describe, parts_of

Named = TypeVar("Named", Rule, Adjustment)


def compare(first: Policy, second: Policy) -> list[str]:
    """Sentences about what changes from `first` to `second`; those about what decides nothing come last."""
    changes = [*_compare_concepts(first, second), *_compare_adjustments(first, second), *_compare_rules(first, second)]
    return [*changes, *_compare_texts(first, second)]


def _compare_concepts(first: Policy, second: Policy) -> Iterator[str]:
    before, after = (
        {
            f"{model}/{name}": prompts
            for model, concepts in policy.concepts.items()
            for name, prompts in concepts.items()
        }
        for policy in (first, second)
    )
    yield from (f"concept {name!r} is gone" for name in before if name not in after)
    yield from (f"concept {name!r} is new: {_quoted(after[name])}" for name in after if name not in before)
    for name in before:
        if name in after and before[name] != after[name]:
            yield f"concept {name!r}: prompts {_quoted(before[name])} become {_quoted(after[name])}"


def _compare_adjustments(first: Policy, second: Policy) -> Iterator[str]:
    yield from _compare_names("adjustment", first.adjustments, second.adjustments)
    for before, after in _pairs(first.adjustments, second.adjustments):
        where = f"adjustment {before.name!r}"
        yield from _compare_conditions(f"{where}: when", before.when, after.when)
        if before.changes != after.changes:
            yield f"{where}: what it changes is different"


def _compare_rules(first: Policy, second: Policy) -> Iterator[str]:
    yield from _compare_names("rule", first.rules, second.rules)
    for before, after in _pairs(first.rules, second.rules):
        where = f"rule {before.name!r}"
        if before.decision != after.decision:
            yield f"{where}: {before.decision.value} becomes {after.decision.value}"
        if before.media != after.media:
            yield f"{where}: looks at {_kinds(before.media)} no more, but at {_kinds(after.media)}"
        yield from _compare_conditions(f"{where}: when", before.when, after.when)


def _compare_conditions(where: str, before: Condition | None, after: Condition | None) -> Iterator[str]:
    if before is None or after is None:
        if before is not after:
            yield f"{where}: {_said(before)} becomes {_said(after)}"
        return
    if canonical(before) == canonical(after):
        return
    first, second = _thresholds(before), _thresholds(after)
    if _shape(canonical(before)) == _shape(canonical(after)):
        yield from (
            f"{where}: {describe(a)} becomes {describe(b)}" for a, b in zip(first, second, strict=True) if a != b
        )
        return
    if describe(before) != describe(after):
        yield f"{where}: {describe(before)} becomes {describe(after)}"
        return
    yield from (f"{where}: {describe(each)} is gone" for each in first if each not in second)
    yield from (f"{where}: {describe(each)} is new" for each in second if each not in first)


def _compare_texts(first: Policy, second: Policy) -> Iterator[str]:
    for before, after in _pairs(first.rules, second.rules):
        if before.says != after.says:
            yield f"rule {before.name!r} says something else (the id stays): {after.says!r}"
    if [rule.name for rule in first.rules] != [rule.name for rule in second.rules] and {
        rule.name for rule in first.rules
    } == {rule.name for rule in second.rules}:
        yield "the rules stand in another order (no decision changes by that, but the id does)"


def _compare_names(kind: str, before: tuple[Named, ...], after: tuple[Named, ...]) -> Iterator[str]:
    old, new = ({each.name for each in side} for side in (before, after))
    yield from (f"{kind} {each.name!r} is gone: {_summary(each)}" for each in before if each.name not in new)
    yield from (f"{kind} {each.name!r} is new: {_summary(each)}" for each in after if each.name not in old)


def _pairs(before: tuple[Named, ...], after: tuple[Named, ...]) -> Iterator[tuple[Named, Named]]:
    new = {each.name: each for each in after}
    yield from ((each, new[each.name]) for each in before if each.name in new)


def _summary(each: Rule | Adjustment) -> str:
    if isinstance(each, Rule):
        return f"{each.decision.value} when {describe(each.when)}"
    changes = ", ".join(f"{change.score} {change.by:+g}" for change in each.changes)
    return f"{changes}{'' if each.when is None else f' when {describe(each.when)}'}"


def _thresholds(condition: Condition) -> list[AtLeast]:
    return [part for part in parts_of(condition) if isinstance(part, AtLeast)]


def _shape(condition: list[Any]) -> list[Any]:
    """A canonical condition without its thresholds' figures."""
    if condition[0] in ("above", "at_least"):
        return [condition[1]]
    return [_shape(part) if isinstance(part, list) else part for part in condition]


def _said(condition: Condition | None) -> str:
    return "always" if condition is None else describe(condition)


def _kinds(kinds: frozenset[MediaKind]) -> str:
    return " and ".join(sorted(kinds))


def _quoted(prompts: tuple[str, ...]) -> str:
    return ", ".join(map(repr, prompts))
