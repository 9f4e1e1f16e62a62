"""Control limits of a funnel plot: how far counts of ordinary instances stray, by chance and by what they are.

Spiegelhalter 2005: a count is shown against what was to be expected, with the limits that ordinary ones exceed once
in twenty and once in five hundred. A league table invites blame for being at an end of it, a funnel does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # type: ignore[import-untyped]  # its parts are loaded when they are first used

from federation_audit.statistics.exposures import Floats

COVERAGES = (0.95, 0.998)


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """For each of `expected`, counts below `low` and above `high` have a chance of at most (1 - coverage) / 2 each."""

    coverage: float
    expected: Floats
    low: Floats
    high: Floats


def draw_limits(
    expected: Floats, shape: float | None = None, coverages: Sequence[float] = COVERAGES, *, smooth: bool = False
) -> tuple[Limits, ...]:
    """The limits at each expected count, exact: Poisson, or negative binomial with the prior's `shape`.

    `smooth` is for lines to look at: between whole counts, as far as the chance lies between theirs (Spiegelhalter's
    interpolation), so that they do not jump.

    Poisson is chance alone and far too narrow for large instances, which differ in what they post; take the prior's
    shape where it is learnt. For rates, divide by the exposure that has this expectation.
    """
    due = np.asarray(expected, dtype=np.float64)
    limits = []
    for coverage in coverages:
        tail = (1.0 - coverage) / 2.0
        counts = scipy.stats.poisson(due) if shape is None else scipy.stats.nbinom(shape, shape / (shape + due))
        low, high = (np.asarray(counts.ppf(chance)) for chance in (tail, 1.0 - tail))
        if smooth:
            low, high = (
                at - (counts.cdf(at) - chance) / np.maximum(counts.pmf(at), np.finfo(np.float64).tiny)
                for at, chance in ((low, tail), (high, 1.0 - tail))
            )
        limits.append(Limits(coverage, due, np.maximum(low, 0.0), np.maximum(high, 0.0)))
    return tuple(limits)
