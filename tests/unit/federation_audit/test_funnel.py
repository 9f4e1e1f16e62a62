import numpy as np
import pytest
from scipy import stats

from federation_audit.statistics.funnel import draw_limits


@pytest.mark.parametrize("shape", [None, 4.0])
def test_no_more_than_the_tail_lies_beyond_either_limit(shape):
    expected = np.array([0.0, 0.3, 2.0, 40.0, 900.0])
    for limits in draw_limits(expected, shape):
        for place, due in enumerate(expected):
            if due == 0.0:
                assert (limits.low[place], limits.high[place]) == (0.0, 0.0)
                continue
            counts = stats.poisson(due) if shape is None else stats.nbinom(shape, shape / (shape + due))
            tail = (1.0 - limits.coverage) / 2.0
            below = sum(counts.pmf(count) for count in range(int(limits.low[place])))
            assert below <= tail + 1e-9
            assert 1.0 - sum(counts.pmf(count) for count in range(int(limits.high[place]) + 1)) <= tail + 1e-9


def test_instances_that_differ_have_a_wider_funnel_than_chance_alone():
    expected = np.array([10.0, 1_000.0])
    chance, differing = draw_limits(expected)[1], draw_limits(expected, 4.0)[1]
    assert (differing.high > chance.high).all()
    assert (differing.low < chance.low).all()


def test_one_ordinary_instance_in_five_hundred_lies_outside():
    rng = np.random.default_rng(5)
    expected = rng.lognormal(3.0, 1.0, 50_000)
    counts = rng.poisson(expected * rng.gamma(4.0, 1 / 4.0, 50_000))
    outer = draw_limits(expected, 4.0)[1]
    assert np.mean((counts < outer.low) | (counts > outer.high)) <= 0.002 + 0.0006


@pytest.mark.parametrize("shape", [None, 4.0])
def test_smooth_limits_lie_within_one_count_of_the_exact_ones_and_do_not_jump(shape):
    expected = np.geomspace(0.2, 2_000.0, 400)
    for exact, smooth in zip(draw_limits(expected, shape), draw_limits(expected, shape, smooth=True), strict=True):
        for whole, line in ((exact.low, smooth.low), (exact.high, smooth.high)):
            assert (line <= whole + 1e-9).all() and (line >= np.maximum(whole - 1.0, 0.0) - 1e-9).all()
            assert (np.diff(line) >= -1e-6).all()
