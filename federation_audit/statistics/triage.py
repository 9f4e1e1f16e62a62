"""Stage A: is more flagged here than is usual? Where to look, never whom to blame.

Y flagged incidents against E expected ones: Y ~ Poisson(E θ), θ ~ Gamma(shape a, rate b), so that Y is negative
binomial and θ given Y is Gamma(a + Y, b + E). a and b are those that make what the bulk of the instances sent
likeliest (empirical Bayes; Robbins 1956, for disease maps Clayton and Kaldor 1987).

Two departures from FACTS, both because θ > 2 must mean "twice what is usual":
- FACTS counts E in reviewed false positives and asks for θ > 2. Where the reviews are few, or only of the worst, f is
  off by a factor, and θ > 2 would be everybody or nobody. Here E is scaled so that the prior's mean is 1: θ is a
  multiple of what the bulk has, whatever f is, and f only says how the strata compare.
- Counts halved every 90 days are no Poisson counts: their variance is the sum of w² E, not of w E. Counts and
  expectation are both divided by the ratio of the two (Fay and Feuer 1997): the same rate, with the
  precision that it has.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # type: ignore[import-untyped]  # its parts are loaded when they are first used

from federation_audit.statistics.exposures import Bools, Floats
from federation_audit.statistics.rules import Rules

_SHAPES = (0.05, 50.0)  # no more alike than a standard deviation of 14 %: fewer instances cannot show that they are
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Prior:
    """How the bulk's rates are spread: Gamma(`shape`, `shape` / `mean`), `mean` in multiples of the given expectation.

    `learnt` is False where it was assumed, and `note` says why. `instances` is how many the bulk has.
    """

    mean: float
    shape: float
    learnt: bool
    instances: int
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """For each instance: θ's mean, interval, and the chance that it is above `Rules.ratio`."""

    mean: Floats
    low: Floats
    high: Floats
    chance: Floats


def decay(age_days: Floats, rules: Rules) -> Floats:
    """The weight of what is so many days old; what is yet to come weighs as today."""
    return np.asarray(0.5 ** (np.maximum(age_days, 0.0) / rules.half_life_days))


def fit_prior(flagged: Floats, expected: Floats, media: Floats, rules: Rules) -> tuple[Prior, Bools]:
    """The prior by maximum likelihood on the bulk, and which instances are in it.

    Whoever has so many flagged that the fitted bulk would give as many with a chance below `Rules.bulk_tail` is left
    out, and the fit repeated until nobody else is. With fewer than `Rules.least_bulk` instances of
    `Rules.least_media` images, the mean is the bulk's ratio and the shape is assumed.
    """
    bulk = np.asarray(expected > 0.0)
    large = bulk & (media >= rules.least_media)
    mean, shape = _pooled(flagged, expected, bulk), rules.assumed_shape
    if large.sum() < rules.least_bulk:
        note = (
            f"only {int(large.sum())} instances sent {rules.least_media} images or more, {rules.least_bulk} are needed"
            " to know what is usual"
        )
        return Prior(mean, shape, learnt=False, instances=int(bulk.sum()), note=note), bulk
    known = bulk.copy()
    for _ in range(_ROUNDS):
        mean, shape = _fit(flagged[bulk], expected[bulk], start=(_pooled(flagged, expected, bulk), shape))
        likely = np.zeros_like(known)
        likely[known] = upper_tail(flagged[known], mean * expected[known], shape) >= rules.bulk_tail
        if (likely == bulk).all():
            break
        bulk = likely
    note = f"learnt from {int(bulk.sum())} instances; {int((known & ~bulk).sum())} stand out and were left out"
    return Prior(mean, shape, learnt=True, instances=int(bulk.sum()), note=note), bulk


def upper_tail(count: Floats, mean: Floats, shape: float) -> Floats:
    """The chance of `count` or more when counts are negative binomial with this mean and the prior's shape."""
    return np.asarray(scipy.stats.nbinom.sf(np.ceil(count) - 1.0, shape, shape / (shape + mean)))


def weigh(flagged: Floats, expected: Floats, prior: Prior, rules: Rules) -> Posterior:
    """θ of each instance, where 1 is what is usual: `expected` already holds the prior's mean (see the module)."""
    shape, rate = prior.shape + flagged, prior.shape + expected
    tail = (1.0 - rules.interval) / 2.0
    # The incomplete gamma functions are what stats.gamma calls, without its checks of 20,000 arguments each
    return Posterior(
        mean=shape / rate,
        low=scipy.special.gammaincinv(shape, tail) / rate,
        high=scipy.special.gammainccinv(shape, tail) / rate,
        chance=scipy.special.gammaincc(shape, rules.ratio * rate),
    )


def _pooled(flagged: Floats, expected: Floats, bulk: Bools) -> float:
    return float((flagged[bulk].sum() + 0.5) / (expected[bulk].sum() + 0.5))


def _fit(flagged: Floats, expected: Floats, start: tuple[float, float]) -> tuple[float, float]:
    """Mean and shape that make the counts likeliest. The likelihood is scipy's `nbinom.logpmf` but for a constant,
    written out because decayed counts are no whole numbers, and with its gradient."""

    def loss(at: Floats) -> tuple[float, Floats]:
        mean, shape = np.exp(at)
        due = mean * expected
        total = shape + due
        pull = (shape + flagged) / total
        likelihood = (
            scipy.special.gammaln(shape + flagged)
            - scipy.special.gammaln(shape)
            + shape * np.log(shape / total)
            + flagged * np.log(due / total)
        )
        by_shape = (
            scipy.special.digamma(shape + flagged) - scipy.special.digamma(shape) + np.log(shape / total) + 1.0 - pull
        )
        return -float(likelihood.sum()), -np.array([(flagged - due * pull).sum(), shape * by_shape.sum()])

    bounds = [(np.log(1e-6), np.log(1e6)), (np.log(_SHAPES[0]), np.log(_SHAPES[1]))]
    found = scipy.optimize.minimize(loss, np.log(start), jac=True, method="L-BFGS-B", bounds=bounds)
    mean, shape = np.exp(found.x)
    return float(mean), float(shape)
