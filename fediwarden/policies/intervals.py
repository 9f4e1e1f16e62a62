"""How far a counted rate can be trusted."""

import math
from collections.abc import Callable


def clopper_pearson(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval (Clopper and Pearson 1934), by bisection of the binomial's tails."""
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else _solve(lambda rate: 1.0 - _at_most(count - 1, total, rate) - tail)
    high = 1.0 if count == total else _solve(lambda rate: tail - _at_most(count, total, rate))
    return low, high


def _at_most(count: int, total: int, rate: float) -> float:
    """Return P(X <= count) for X binomial; by logarithms, for the coefficients of thousands fit no float."""
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    whole = math.lgamma(total + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log_rate + (total - k) * log_rest)
        for k in range(count + 1)
    )


def _solve(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0
