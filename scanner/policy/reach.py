"""Whether there are scores at all for which conditions hold.

Every condition is made of thresholds, so a score matters only by the thresholds it lies between. The search halves the
range of one score after another at a threshold that is still open, and stops as soon as the conditions are settled.
"""

import math
from collections.abc import Mapping, Sequence

from scanner.policy.conditions import AllOf, AnyOf, AtLeast, Condition, CountOf, NoneOf

Range = tuple[float, float]
"""Lowest and highest value of a score, both possible."""

STEPS = 5_000
"""Where so many halvings do not settle it, it is taken for possible: a long policy must not take long to load."""


class _TooLong(Exception):
    pass


def can_hold(
    required: Sequence[Condition], refuted: Sequence[Condition] = (), ranges: Mapping[str, Range] | None = None
) -> bool:
    """Whether some scores make all of `required` hold and none of `refuted`.

    A score lies from 0 to 1 unless `ranges` says otherwise. False is certain; True also stands for "not settled
    after `STEPS` steps".
    """
    try:
        return _search([*required, *(NoneOf((each,)) for each in refuted)], dict(ranges or {}), [STEPS])
    except _TooLong:
        return True


def _search(conditions: Sequence[Condition], ranges: dict[str, Range], steps: list[int]) -> bool:
    open_threshold: AtLeast | None = None
    for condition in conditions:
        settled, threshold = _settle(condition, ranges)
        if settled is False:
            return False
        open_threshold = open_threshold or threshold
    if open_threshold is None:
        return True
    steps[0] -= 1
    if not steps[0]:
        raise _TooLong
    lowest, highest = _range(open_threshold, ranges)
    halves = ((open_threshold.edge, highest), (lowest, math.nextafter(open_threshold.edge, -math.inf)))
    return any(_search(conditions, ranges | {open_threshold.score: half}, steps) for half in halves)


def _range(threshold: AtLeast, ranges: Mapping[str, Range]) -> Range:
    return ranges.get(threshold.score, (0.0, 1.0))


def _settle(condition: Condition, ranges: Mapping[str, Range]) -> tuple[bool | None, AtLeast | None]:
    """Whether the condition holds for all scores in `ranges` or for none; where neither, None and an open threshold."""
    if isinstance(condition, AtLeast):
        lowest, highest = _range(condition, ranges)
        if lowest >= condition.edge:
            return True, None
        return (False, None) if highest < condition.edge else (None, condition)
    parts = [_settle(part, ranges) for part in condition.conditions]
    holding = sum(settled is True for settled, _ in parts)
    open_parts = [threshold for settled, threshold in parts if settled is None]
    match condition:
        case AllOf():
            needed = len(parts)
        case AnyOf() | NoneOf():
            needed = 1
        case CountOf(count):
            needed = count
    settled: bool | None = None
    if holding >= needed:
        settled = True
    elif holding + len(open_parts) < needed:
        settled = False
    if settled is not None and isinstance(condition, NoneOf):
        settled = not settled
    return settled, open_parts[0] if settled is None else None
