"""Small measures: the rate a scanner announces, and the interval around a false-positive rate."""

import pytest

from fediwarden.policies.intervals import clopper_pearson
from scanner.announcing import RateMeter


def test_the_rate_is_over_the_last_half_minute() -> None:
    now = 0.0
    meter = RateMeter(lambda: now)
    for second in range(100):
        now = float(second)
        meter.count()
        meter.count()
    assert meter.rate() == pytest.approx(2.0, abs=0.1)
    now = 200.0
    assert meter.rate() == 0.0


def test_a_young_meter_counts_over_its_own_age() -> None:
    now = 0.0
    meter = RateMeter(lambda: now)
    meter.count()
    assert meter.rate() == 1.0
    now = 10.0
    assert meter.rate() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Exact values: 1 - 0.025 ** (1 / 10) for none of ten; the others from tables of the beta distribution.
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 100, 0.00025, 0.0545)],
)
def test_the_clopper_pearson_interval_is_exact(count: int, total: int, low: float, high: float) -> None:
    assert clopper_pearson(count, total) == pytest.approx((low, high), abs=5e-5)
