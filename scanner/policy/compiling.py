"""A policy's adjustments and rules as one Python function of a frame's scores: what makes judging fast.

The function does what `scanner.policy.conditions.measure` says, without a call for every part of a condition, and
measures what stands in several rules (a group, mostly) once for them all. Its text is made of numbers and quoted names
alone: no word of a policy becomes code.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from scanner.policy.adjustments import Adjustment
from scanner.policy.conditions import AllOf, AnyOf, AtLeast, Compound, Condition, CountOf, NoneOf, Scores

Margins = Callable[[Scores], tuple[float, ...]]


def compile_margins(adjustments: Sequence[Adjustment], conditions: Sequence[Condition]) -> Margins:
    """A function that makes the adjustments to a frame's scores and then gives the margin of each condition.

    It leaves the scores it is given as they are, and raises KeyError where one is missing.
    """
    source = _Source()
    for adjustment in adjustments:
        source.adjust(adjustment)
    source.give(conditions)
    names: dict[str, Any] = {"inf": math.inf, "nextafter": math.nextafter}
    exec(source.text, names)  # noqa: S102  (see above)
    margins: Margins = names["margins"]
    return margins


class _Source:
    """The text of the function, line by line. Each score is a local variable of it, and each compound condition."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._scores: dict[str, str] = {}
        self._measured = 0

    @property
    def text(self) -> str:
        taken = [f" {variable} = scores[{score!r}]" for score, variable in self._scores.items()]
        return "\n".join(["def margins(scores):", *taken, *self._lines])

    def adjust(self, adjustment: Adjustment) -> None:
        depth = self._only_while(adjustment.when, ">=", 1)
        for change in adjustment.changes:
            self._write(
                self._only_while(change.unless, "<", depth), f"{self._score(change.score)} += {float(change.by)!r}"
            )
        self._write(depth, "pass")

    def give(self, conditions: Sequence[Condition]) -> None:
        known: dict[Condition, str] = {}
        margins = [self._measure(condition, 1, known) for condition in conditions]
        self._write(1, f"return ({''.join(f'{margin}, ' for margin in margins)})")

    def _only_while(self, condition: Condition | None, compared: str, depth: int) -> int:
        """Make what is written at the depth returned depend on how a condition's margin compares with 0."""
        if condition is None:
            return depth
        margin = self._measure(condition, depth, {})  # what was measured before a change of scores says nothing
        self._write(depth, f"if {margin} {compared} 0.0:")
        return depth + 1

    def _measure(self, condition: Condition, depth: int, known: dict[Condition, str]) -> str:
        """Write what measures a condition, unless it is known; return the expression of its margin."""
        if isinstance(condition, AtLeast):
            return f"{self._score(condition.score)} - {float(condition.edge)!r}"
        if condition not in known:
            parts = [self._measure(part, depth, known) for part in condition.conditions]
            self._measured += 1
            known[condition] = f"margin{self._measured}"
            self._write(depth, f"{known[condition]} = {_combine(condition, parts)}")
        return known[condition]

    def _score(self, name: str) -> str:
        return self._scores.setdefault(name, f"score{len(self._scores)}")

    def _write(self, depth: int, line: str) -> None:
        self._lines.append(" " * depth + line)


def _combine(condition: Compound, parts: list[str]) -> str:
    match condition:
        case AllOf():
            return _extreme("min", parts)
        case AnyOf():
            return _extreme("max", parts)
        case NoneOf():
            # As in `measure`: a part whose margin is 0 holds, so that this does not.
            return f"nextafter(-({_extreme('max', parts)}), -inf)"
        case CountOf(count):
            return f"sorted([{', '.join(parts)}])[{-count}]"


def _extreme(function: str, parts: list[str]) -> str:
    return f"{function}({', '.join(parts)})" if len(parts) > 1 else parts[0]
