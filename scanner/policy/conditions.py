"""Conditions: what a rule asks of the scores of one frame, and how far a frame is from it.

The margin of a condition is >= 0 exactly when it holds. Of a threshold it is score minus threshold; of ``all`` the
smallest, of ``any`` the largest, of ``at_least n of`` the n-th largest margin of the parts; of ``none`` the largest
with its sign turned. It says by how much all scores would have to change at once for the condition to change.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Scores = Mapping[str, float]
"""The scores of one frame by ``model/label``."""

Margin = Callable[[Scores], float]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Holds when the score named ``model/label`` is at least `threshold`; with `above`, when it is more than that."""

    score: str
    threshold: float
    above: bool = False

    @property
    def edge(self) -> float:
        """The smallest number that holds: the threshold, or the next floating-point number after it."""
        return math.nextafter(self.threshold, math.inf) if self.above else self.threshold


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds when every condition does. `group` is the name that the policy gives these conditions, if it does."""

    conditions: tuple["Condition", ...]
    group: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds when at least one condition does."""

    conditions: tuple["Condition", ...]
    group: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoneOf:
    """Holds when no condition does."""

    conditions: tuple["Condition", ...]
    group: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class CountOf:
    """Holds when at least `count` conditions do."""

    count: int
    conditions: tuple["Condition", ...]
    group: str = field(default="", compare=False)


Compound = AllOf | AnyOf | NoneOf | CountOf
Condition = AtLeast | Compound


def measure(condition: Condition) -> Margin:
    """A function that gives the margin of `condition` in the scores of a frame.

    It raises KeyError where a score is missing.
    """
    if isinstance(condition, AtLeast):
        name, edge = condition.score, condition.edge
        return lambda scores: scores[name] - edge
    parts = [measure(part) for part in condition.conditions]
    match condition:
        case AllOf():
            return lambda scores: min(part(scores) for part in parts)
        case AnyOf():
            return lambda scores: max(part(scores) for part in parts)
        case NoneOf():
            # A part whose margin is 0 holds, so that this does not: just below 0.
            return lambda scores: math.nextafter(-max(part(scores) for part in parts), -math.inf)
        case CountOf(count):
            return lambda scores: sorted(part(scores) for part in parts)[-count]


def parts_of(condition: Condition) -> Iterator[Condition]:
    """The condition and everything in it, outermost first."""
    yield condition
    if not isinstance(condition, AtLeast):
        for part in condition.conditions:
            yield from parts_of(part)


def scores_of(condition: Condition) -> set[str]:
    """The names of the scores that a condition looks at."""
    return {part.score for part in parts_of(condition) if isinstance(part, AtLeast)}


def canonical(condition: Condition) -> list[Any]:
    """What decides, as JSON can hold it; equal for conditions that say the same in the same order."""
    match condition:
        case AtLeast(score, threshold, above):
            return ["above" if above else "at_least", score, threshold]
        case AllOf(conditions):
            return ["all", *map(canonical, conditions)]
        case AnyOf(conditions):
            return ["any", *map(canonical, conditions)]
        case NoneOf(conditions):
            return ["none", *map(canonical, conditions)]
        case CountOf(count, conditions):
            return ["count", count, *map(canonical, conditions)]


def describe(condition: Condition) -> str:
    """The condition in words; a group by its name."""
    match condition:
        case AtLeast(score, threshold, above):
            return f"{score} {'above' if above else 'at least'} {threshold:g}"
        case AllOf(conditions):
            return _listed("all of", condition, " and ", conditions)
        case AnyOf(conditions):
            return _listed("any of", condition, " or ", conditions)
        case NoneOf(conditions):
            return _listed("none of", condition, ", ", conditions, bare=False)
        case CountOf(count, conditions):
            return _listed(f"at least {count} of", condition, ", ", conditions, bare=False)


def _listed(
    words: str, condition: Compound, joined: str, conditions: tuple[Condition, ...], *, bare: bool = True
) -> str:
    if condition.group:
        return f"{words} {condition.group}"
    listed = joined.join(
        f"({describe(part)})" if isinstance(part, AllOf | AnyOf) and not part.group else describe(part)
        for part in conditions
    )
    return listed if bare else f"{words} ({listed})"
