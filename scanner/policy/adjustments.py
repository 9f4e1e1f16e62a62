"""Adjustments: what is added to scores of a frame before rules look at them."""

from dataclasses import dataclass

from scanner.policy.conditions import Condition


@dataclass(frozen=True, slots=True)
class Change:
    """Adds `by` to a score, unless a condition holds just then."""

    score: str
    by: float
    unless: Condition | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Changes scores of a frame, one after another, before the rules look at them; always, or while `when` holds.

    Adjustments are made in the policy's order, and each sees what those before it have made of the scores.
    """

    name: str
    changes: tuple[Change, ...]
    when: Condition | None = None
    says: str = ""
