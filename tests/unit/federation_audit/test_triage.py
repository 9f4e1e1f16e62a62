import numpy as np
import pytest
from scipy import integrate, stats

from federation_audit.statistics.rules import DEFAULT_RULES
from federation_audit.statistics.triage import Prior, decay, fit_prior, upper_tail, weigh

PRIOR = Prior(mean=1.0, shape=3.0, learnt=True, instances=100, note="")


def column(*values):
    return np.array(values, dtype=np.float64)


def test_the_posterior_is_what_bayes_gives_when_integrated_by_brute_force():
    found = weigh(column(7.0), column(2.5), PRIOR, DEFAULT_RULES)

    def unscaled(theta):
        return stats.poisson.pmf(7, 2.5 * theta) * stats.gamma.pdf(theta, 3.0, scale=1 / 3.0)

    whole = integrate.quad(unscaled, 0, 50)[0]
    assert found.chance[0] == pytest.approx(integrate.quad(unscaled, 2, 50)[0] / whole, rel=1e-6)
    assert integrate.quad(unscaled, 0, found.low[0])[0] / whole == pytest.approx(0.05, rel=1e-5)
    assert integrate.quad(unscaled, found.high[0], 50)[0] / whole == pytest.approx(0.05, rel=1e-5)
    assert found.mean[0] == pytest.approx(integrate.quad(lambda t: t * unscaled(t), 0, 50)[0] / whole, rel=1e-6)


def test_without_any_image_the_posterior_is_the_prior():
    found = weigh(column(0.0), column(0.0), PRIOR, DEFAULT_RULES)
    assert found.mean[0] == 1.0
    assert found.chance[0] == pytest.approx(stats.gamma.sf(2, 3.0, scale=1 / 3.0))


def test_the_interval_holds_the_true_rate_of_nine_in_ten_instances():
    rng = np.random.default_rng(1)
    theta = rng.gamma(3.0, 1 / 3.0, 20_000)
    expected = rng.lognormal(1.0, 1.5, 20_000)
    found = weigh(rng.poisson(theta * expected).astype(float), expected, PRIOR, DEFAULT_RULES)
    assert np.mean((found.low <= theta) & (theta <= found.high)) == pytest.approx(0.9, abs=0.01)


def test_a_chance_of_nine_in_ten_is_right_nine_times_in_ten():
    rng = np.random.default_rng(2)
    theta = rng.gamma(3.0, 1 / 3.0, 50_000)
    expected = rng.lognormal(1.0, 1.5, 50_000)
    found = weigh(rng.poisson(theta * expected).astype(float), expected, PRIOR, DEFAULT_RULES)
    around = (found.chance > 0.85) & (found.chance < 0.95)
    assert np.mean(theta[around] > 2.0) == pytest.approx(np.mean(found.chance[around]), abs=0.04)


def test_the_prior_of_the_bulk_is_learnt_though_some_stand_out():
    rng = np.random.default_rng(3)
    expected = rng.lognormal(2.0, 1.0, 600)
    theta = 0.7 * rng.gamma(4.0, 1 / 4.0, 600)
    theta[:12] = 30.0
    prior, bulk = fit_prior(rng.poisson(theta * expected).astype(float), expected, expected * 100, DEFAULT_RULES)
    assert prior.learnt
    assert prior.mean == pytest.approx(0.7, rel=0.1)
    assert prior.shape == pytest.approx(4.0, rel=0.35)
    assert not bulk[:12].any()
    assert bulk[12:].mean() > 0.98
    assert "12" in prior.note or "stand out" in prior.note


@pytest.mark.parametrize("instances", [0, 1, 3, 10, 29])
def test_few_instances_teach_nothing_and_the_prior_says_so(instances):
    media = np.full(instances, 5_000.0)
    prior, _ = fit_prior(np.full(instances, 50.0), media / 100, media, DEFAULT_RULES)
    assert not prior.learnt
    assert prior.shape == DEFAULT_RULES.assumed_shape
    assert f"only {instances} instances" in prior.note


def test_instances_that_are_all_alike_do_not_make_the_prior_certain():
    media = np.full(100, 5_000.0)
    prior, _ = fit_prior(np.full(100, 50.0), media / 100, media, DEFAULT_RULES)
    assert prior.learnt
    assert prior.shape <= 50.0 + 1e-6


def test_the_upper_tail_is_the_sum_of_the_probabilities():
    tail = upper_tail(column(0.0, 4.0), column(2.0, 2.0), 3.0)
    below = sum(stats.nbinom.pmf(k, 3.0, 3.0 / 5.0) for k in range(4))
    assert tail == pytest.approx([1.0, 1.0 - below])


def test_what_is_ninety_days_old_weighs_half():
    assert decay(column(0.0, 90.0, 180.0, -5.0), DEFAULT_RULES) == pytest.approx([1.0, 0.5, 0.25, 1.0])
