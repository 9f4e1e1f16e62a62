"""How often each stratum (model, policy and list) flags an image, and how often it does so wrongly."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy  # type: ignore[import-untyped]  # its parts are loaded when they are first used

from federation_audit.statistics.events import Reviews, Stratum
from federation_audit.statistics.exposures import Bools, ExposureTable, Floats
from federation_audit.statistics.rules import Rules

# A stratum with few images leans on all of them together, and one with few reviews on all reviews: by so many.
_MEDIA_BORROWED = 1000.0
_REVIEWS_BORROWED = 10.0


@dataclass(frozen=True, slots=True)
class StratumRates:
    """What is known of one stratum; the rates are incidents for each image.

    `flag_rate`: flagged among the images of the bulk of instances. `false_share`: of flagged incidents, how many are
    false: all of them before the first review. `false_rate` is their product, FACTS' f. `false_rate_at_most` is its
    upper bound (Clopper and Pearson, on the reviews of this stratum alone), which stage B uses: without a review all
    that is flagged is taken to be false. Reviews are no random sample (the worst are looked at first), so the share
    tends to come out too low; stage A therefore compares with what is usual and not with f itself.
    """

    stratum: Stratum
    media: int
    flagged: int
    confirmed: int
    dismissed: int
    flag_rate: float
    false_share: float
    false_rate: float
    false_rate_at_most: float


def rate_strata(
    table: ExposureTable, reviews: Iterable[Reviews], bulk: Bools, rules: Rules
) -> tuple[StratumRates, ...]:
    """The rates of each of the table's strata, in their order; from the rows of the instances in `bulk` alone."""
    confirmed = dict.fromkeys(table.strata, 0)
    dismissed = dict.fromkeys(table.strata, 0)
    for review in reviews:
        confirmed[review.stratum] = confirmed.get(review.stratum, 0) + review.confirmed
        dismissed[review.stratum] = dismissed.get(review.stratum, 0) + review.dismissed
    every_dismissed, every_reviewed = sum(dismissed.values()), sum(confirmed.values()) + sum(dismissed.values())
    usual_share = (every_dismissed + 1.0) / (every_reviewed + 1.0)

    rows = np.append(bulk, False)[table.instance]  # what has no instance is in no bulk
    count = len(table.strata)
    media = np.bincount(table.stratum[rows], weights=table.media[rows], minlength=count)
    flagged = np.bincount(table.stratum[rows], weights=table.flagged[rows], minlength=count)
    usual_rate = (flagged.sum() + 0.5) / (media.sum() + 1.0)  # half an incident: nothing flagged yet is not never
    rates = []
    for place, stratum in enumerate(table.strata):
        yes, no = confirmed[stratum], dismissed[stratum]
        rate = (flagged[place] + usual_rate * _MEDIA_BORROWED) / (media[place] + _MEDIA_BORROWED)
        share = (no + usual_share * _REVIEWS_BORROWED) / (yes + no + _REVIEWS_BORROWED)
        most = float(scipy.stats.beta.ppf(rules.bound, no + 1, yes)) if yes else 1.0
        rates.append(
            StratumRates(
                stratum=stratum,
                media=int(media[place]),
                flagged=int(flagged[place]),
                confirmed=yes,
                dismissed=no,
                flag_rate=float(rate),
                false_share=float(share),
                false_rate=float(rate * share),
                false_rate_at_most=float(rate * most),
            )
        )
    return tuple(rates)


def column(rates: Iterable[StratumRates], name: str) -> Floats:
    """One of the rates, by place of the stratum."""
    return np.array([getattr(rate, name) for rate in rates], dtype=np.float64)
