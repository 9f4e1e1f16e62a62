"""What can hold at all: compared with trying every combination of scores that could matter."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.policy import AllOf, AnyOf, AtLeast, CountOf, NoneOf
from scanner.policy.conditions import Condition, measure
from scanner.policy.reach import can_hold
from tests.examples import thorough

SCORES = ("a", "b", "c")
THRESHOLDS = (0.0, 0.25, 0.5, 1.0)
GRID = (0.0, 0.1, 0.25, 0.3, 0.5, 0.6, 1.0)
"""Every threshold, and a score in each gap between two."""

thresholds = st.builds(AtLeast, st.sampled_from(SCORES), st.sampled_from(THRESHOLDS), st.booleans())


def compound(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    counts = several.flatmap(lambda inner: st.builds(CountOf, st.integers(1, len(inner)), st.just(inner)))
    return st.builds(AllOf, several) | st.builds(AnyOf, several) | st.builds(NoneOf, several) | counts


conditions: st.SearchStrategy[Condition] = st.recursive(thresholds, compound, max_leaves=7)


def holds(condition: Condition, scores: dict[str, float]) -> bool:
    """By the words of the definition, without margins."""
    if isinstance(condition, AtLeast):
        score = scores[condition.score]
        return score > condition.threshold if condition.above else score >= condition.threshold
    held = [holds(part, scores) for part in condition.conditions]
    if isinstance(condition, CountOf):
        return sum(held) >= condition.count
    if isinstance(condition, NoneOf):
        return not any(held)
    return all(held) if isinstance(condition, AllOf) else any(held)


EVERY = [dict(zip(SCORES, values, strict=True)) for values in itertools.product(GRID, repeat=len(SCORES))]


@settings(max_examples=thorough(300), deadline=None)
@given(conditions, conditions)
def test_it_finds_scores_exactly_where_there_are_some(required: Condition, refuted: Condition) -> None:
    there_are = any(holds(required, scores) and not holds(refuted, scores) for scores in EVERY)
    assert can_hold([required], [refuted]) == there_are


@settings(max_examples=thorough(300), deadline=None)
@given(conditions, st.sampled_from(EVERY))
def test_a_margin_is_at_least_0_exactly_when_the_condition_holds(
    condition: Condition, scores: dict[str, float]
) -> None:
    assert (measure(condition)(scores) >= 0.0) == holds(condition, scores)


def test_a_score_that_adjustments_can_raise_reaches_further() -> None:
    beyond = AtLeast("a", 1.0, above=True)
    assert not can_hold([beyond])
    assert can_hold([beyond], ranges={"a": (0.0, 1.01)})
