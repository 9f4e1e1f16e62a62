"""Stage B: is there so much confirmed that innocence is hard to hold? e-values, and e-BH across instances.

H0 for one instance: sources of confirmed incidents come to it at a rate of at most
ρ0 = tolerance x prevalence + f x wrong_confirmation for each image. With c independent incidents (`independence`) when
Λ = Σ ρ0 n were tolerable, the e-value is the mean over g of exp(c ln g - (g - 1) Λ): a bet, on each g alike, that the
rate is g times ρ0. Its expectation under H0 is at most 1 at every moment, so that looking every week costs
nothing (Ville 1939; Vovk and Wang 2021; Grünwald, de Heide, Koolen 2024).

Across K instances, e-BH (Wang and Ramdas 2022) names the k largest for the largest k whose smallest e-value is at least
K / (α k): the expected share of innocent ones among them is at most α however they hang together. As k is at most
K, nobody is ever named below 1 / α = 20. That holds for one look. Named at any of 26 looks is another
question, which the simulation answers.

What grows with exposure is Λ. One account that sends 100,000 harmless pictures therefore hides others: the bound is
on the instance's rate, and an instance of harmless pictures has a low one. Nothing is taken off, as that would be
guessing in favour of blame; `levels` says when one account sent most of the images.

An approximation: f is estimated from the same flags, not known in advance. Its upper bound is used.
"""

from collections.abc import Iterable
from datetime import date, timedelta

import numpy as np
import scipy  # type: ignore[import-untyped]  # its parts are loaded when they are first used

from federation_audit.statistics.events import Remediation
from federation_audit.statistics.exposures import Bools, Floats
from federation_audit.statistics.rules import Rules


def quarter_start(day: date) -> date:
    """The first day of the quarter that `day` is in: evidence begins anew, as do pseudonyms."""
    return date(day.year, 3 * ((day.month - 1) // 3) + 1, 1)


def next_quarter(day: date) -> date:
    """The first day of the quarter after the one that `day` is in."""
    return quarter_start(quarter_start(day) + timedelta(days=100))


def find_restarts(at: date, remediations: Iterable[Remediation]) -> dict[str, Remediation]:
    """Of each instance that cleaned up in the quarter of `at`, the last time: its evidence begins a day later."""
    start = quarter_start(at)
    last: dict[str, Remediation] = {}
    for remediation in remediations:
        if start <= remediation.day <= at:
            key = (remediation.day, remediation.remediation_id)
            known = last.get(remediation.instance)
            if known is None or key > (known.day, known.remediation_id):
                last[remediation.instance] = remediation
    return last


def tolerable_rates(false_rate_at_most: Floats, rules: Rules) -> Floats:
    """ρ0 of each stratum: confirmed incidents for each image that are no reason for blame."""
    return rules.tolerance * rules.prevalence + rules.wrong_confirmation * false_rate_at_most


def log_e_values(counts: Floats, tolerable: Floats, rules: Rules) -> Floats:
    """The natural logarithms of the e-values of `counts` independent incidents where `tolerable` (Λ) were tolerable."""
    effects = np.array(rules.effects)[:, np.newaxis]
    bets = counts * np.log(effects) - (effects - 1.0) * tolerable
    return np.asarray(scipy.special.logsumexp(bets, axis=0) - np.log(len(effects)))


def select(log_e: Floats, tested: Bools, rules: Rules) -> tuple[Bools, float]:
    """e-BH among the `tested`: whom it names, and the logarithm of the e-value that it asked of them (that one more
    would need, where it names nobody). inf where nobody is tested. `tested` must not depend on incidents."""
    total = int(tested.sum())
    if not total:
        return np.zeros_like(tested), float("inf")
    ranked = np.sort(log_e[tested])[::-1]
    asked = np.log(total / rules.alpha) - np.log(np.arange(1, total + 1))
    enough = np.flatnonzero(ranked >= asked)
    threshold = float(asked[enough[-1]]) if enough.size else float(asked[0])
    return np.asarray(tested & (log_e >= threshold)), threshold
