"""Measuring on labelled pictures, with figures that can be checked by hand."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fediwarden.policies.scoring import Scored
from fediwarden.policies.trial import REJECTING, Sample, area, confusion, roc, threshold_for, try_policy
from schemas.messages import Decision
from tests.unit.fediwarden.policies.test_rejudging import policy

GOOD, BAD, UNSURE = Decision.ACCEPT, Decision.REJECT, Decision.REVIEW


def sample(wanted: Decision, value: float) -> Sample:
    return Sample(Path("x"), wanted, Decision.ACCEPT, {"a/x": value})


def test_a_sample_has_the_decision_and_the_margin_of_the_rules_that_reject() -> None:
    tried = try_policy(policy(), Scored(Path("x"), frames=({"a/x": 0.9, "a/y": 0.6}, {"a/x": 0.2, "a/y": 1.0})), GOOD)
    assert (tried.wanted, tried.decided) == (GOOD, BAD)
    assert tried.measures == {"a/x": 0.9, "a/y": 1.0, REJECTING: pytest.approx(0.1)}
    assert confusion([tried, tried]) == {(GOOD, BAD): 2}


def test_roc_points_count_what_each_threshold_flags_and_leave_out_what_is_to_be_reviewed() -> None:
    samples = [sample(BAD, 0.9), sample(GOOD, 0.8), sample(BAD, 0.8), sample(UNSURE, 0.85), sample(GOOD, 0.1)]
    points = roc(samples, "a/x")
    assert [(point.threshold, point.false_positives.count, point.true_positives.count) for point in points] == [
        (math.inf, 0, 0),
        (0.9, 0, 1),
        (0.8, 1, 2),
        (0.1, 2, 2),
    ]
    assert area(points) == pytest.approx(0.875)  # of four pairs three are in order and one is tied


def test_the_threshold_for_a_rate_finds_most_within_it() -> None:
    samples = [sample(BAD, 0.9), sample(GOOD, 0.8), sample(BAD, 0.7), sample(GOOD, 0.1)]
    points = roc(samples, "a/x")
    assert threshold_for(points, 0.0).threshold == 0.9
    assert threshold_for(points, 0.5).threshold == 0.7
    assert threshold_for(points, 1.0).threshold == 0.7  # no more is found below, and more is flagged
    assert threshold_for(roc([sample(GOOD, 0.9), sample(BAD, 0.1)], "a/x"), 0.0).threshold == math.inf


labelled = st.lists(st.builds(sample, st.sampled_from([GOOD, BAD]), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=1)


@settings(deadline=None)
@given(labelled)
def test_a_curve_rises_to_everything_and_its_area_is_the_share_of_pairs_in_order(samples: list[Sample]) -> None:
    good, bad = ([each.measures["a/x"] for each in samples if each.wanted is wanted] for wanted in (GOOD, BAD))
    points = roc(samples, "a/x")
    assert (points[-1].false_positives.count, points[-1].true_positives.count) == (len(good), len(bad))
    if good and bad:
        pairs = [(b > g) + (b == g) / 2 for b in bad for g in good]
        assert area(points) == pytest.approx(sum(pairs) / len(pairs))
