from datetime import date
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from federation_audit.statistics.decision import (
    find_restarts,
    log_e_values,
    next_quarter,
    quarter_start,
    select,
    tolerable_rates,
)
from federation_audit.statistics.events import Remediation
from federation_audit.statistics.rules import DEFAULT_RULES, Rules


def e_value(count, tolerable, rules=DEFAULT_RULES):
    return float(np.exp(log_e_values(np.array([float(count)]), np.array([float(tolerable)]), rules)[0]))


def tolerable(media, rules, false_rate=0.01):
    return media * float(tolerable_rates(np.array([false_rate]), rules)[0])


@pytest.mark.parametrize(("count", "media", "e"), [(3, 500, 274), (3, 10_000, 0.07), (40, 100_000, 0.5)])
def test_the_examples_of_facts_come_out_when_reviewers_hardly_err(count, media, e):
    rules = Rules(wrong_confirmation=5e-5)
    assert e_value(count, tolerable(media, rules)) == pytest.approx(e, rel=0.06)


def test_with_reviewers_who_err_once_in_a_hundred_the_same_incidents_weigh_less():
    assert e_value(3, tolerable(500, DEFAULT_RULES)) == pytest.approx(80, rel=0.01)


def test_the_e_value_is_the_mean_of_its_bets():
    bets = [g**4 * np.exp(-(g - 1) * 0.3) for g in DEFAULT_RULES.effects]
    assert e_value(4, 0.3) == pytest.approx(np.mean(bets))


def test_huge_counts_do_not_overflow():
    assert np.isfinite(log_e_values(np.array([1e6]), np.array([1e5]), DEFAULT_RULES)).all()


@settings(deadline=None)
@given(st.floats(0.0, 30.0))
def test_its_expectation_is_at_most_one_where_the_rate_is_tolerable(limit):
    counts = np.arange(0, 400, dtype=np.float64)
    # g^c makes high counts matter: the sum over Poisson(limit) of each bet is one exactly, cut off at 400
    log_p = counts * np.log(max(limit, 1e-300)) - limit - special.gammaln(counts + 1)
    log_e = log_e_values(counts, np.full_like(counts, limit), DEFAULT_RULES)
    assert np.exp(special.logsumexp(log_p + log_e)) <= 1.0 + 1e-9


def test_looking_every_week_and_stopping_at_the_best_moment_gains_an_innocent_nothing():
    rng = np.random.default_rng(4)
    limits = np.linspace(0.05, 1.3, 26)
    counts = np.cumsum(rng.poisson(0.05, (20_000, 26)), axis=1)
    log_e = np.array([log_e_values(counts[:, at].astype(float), limits[at], DEFAULT_RULES) for at in range(26)])
    assert np.mean(log_e.max(axis=0) >= np.log(20.0)) <= 0.05


@settings(deadline=None)
@given(st.integers(0, 200), st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_more_exposure_never_raises_the_e_value_and_more_incidents_never_lower_it(count, limit, more):
    counts, limits = np.array([count, count, count + 1.0]), np.array([limit, limit + more, limit])
    base, exposed, incident = log_e_values(counts, limits, DEFAULT_RULES)
    assert exposed <= base + 1e-9
    assert incident >= base


def brute_force_selection(e_values, alpha):
    """The largest set whose members all have at least K / (alpha * size)."""
    best = ()
    for size in range(1, len(e_values) + 1):
        for some in combinations(range(len(e_values)), size):
            if all(e_values[at] >= len(e_values) / (alpha * size) * (1 - 1e-12) for at in some):
                best = some
    return set(best)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.1, 1.0, 19.0, 21.0, 30.0, 41.0, 61.0, 130.0, 1000.0]), min_size=1, max_size=7))
def test_e_bh_names_the_largest_set_that_holds_up(e_values):
    chosen, _ = select(np.log(np.array(e_values)), np.ones(len(e_values), dtype=bool), DEFAULT_RULES)
    found = {int(at) for at in np.flatnonzero(chosen)}
    expected = brute_force_selection(e_values, 0.05)
    assert len(found) == len(expected)
    assert all(e_values[at] >= 20.0 for at in found)


def test_who_is_not_tested_neither_is_named_nor_counts():
    log_e = np.log(np.array([1000.0, 1000.0, 0.1]))
    chosen, asked = select(log_e, np.array([True, False, False]), DEFAULT_RULES)
    assert chosen.tolist() == [True, False, False]
    assert asked == pytest.approx(np.log(20.0))


def test_with_nobody_tested_nobody_is_named():
    chosen, asked = select(np.log(np.array([1000.0])), np.array([False]), DEFAULT_RULES)
    assert not chosen.any()
    assert asked == float("inf")


@settings(deadline=None)
@given(st.integers(1, 200))
def test_a_hundred_bad_instances_do_not_lower_the_bar_below_level_two(bad):
    log_e = np.concatenate([np.full(bad, 50.0), [np.log(19.9)]])
    chosen, _ = select(log_e, np.ones(bad + 1, dtype=bool), DEFAULT_RULES)
    assert chosen[:-1].all()
    assert not chosen[-1]


def test_evidence_begins_with_the_quarter():
    assert quarter_start(date(2026, 12, 31)) == date(2026, 10, 1)
    assert quarter_start(date(2026, 1, 1)) == date(2026, 1, 1)
    assert next_quarter(date(2026, 12, 31)) == date(2027, 1, 1)
    assert next_quarter(date(2026, 1, 1)) == date(2026, 4, 1)


def test_the_last_clean_up_of_this_quarter_counts_and_none_of_the_future():
    notes = [
        Remediation("old", "a.example", date(2026, 9, 30)),
        Remediation("first", "a.example", date(2026, 10, 5)),
        Remediation("last", "a.example", date(2026, 11, 1)),
        Remediation("to come", "a.example", date(2026, 12, 24)),
    ]
    assert find_restarts(date(2026, 11, 28), notes)["a.example"].remediation_id == "last"
    assert find_restarts(date(2026, 11, 28), notes[:1]) == {}
