"""How the numbers of one instance came to be what they are: its assessment as of the same weekday, week by week."""

import bisect
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from federation_audit.assessing.assessor import Assessed
from federation_audit.statistics.assessment import assess
from federation_audit.statistics.exposures import ExposureTable

_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Look:
    """One instance as of the end of day `at`: images so far; how many times the usual is flagged, with the ends of its
    90 % interval, None where too few images say so or what is usual could not be learnt; and, since evidence last
    began anew (`since`): images, confirmed incidents, those that count, and the e-value (inf beyond what a float has).
    """

    at: date
    media: int
    flagged: int
    ratio: float | None
    low: float | None
    high: float | None
    since: date
    recent_media: int
    incidents: int
    independent: int
    e_value: float


def read_history(assessed: Assessed, domain: str, back_to: date) -> list[Look]:
    """The looks at `domain` on the day of `assessed` and every seventh day before it, not before `back_to`; the oldest
    first. [] where nothing was ever counted of it. Asks no database.

    It is what is known today of those days, not what was shown then: images and incidents are dated by when they were
    posted, whenever they were judged, reviewed or attributed, and what was usual is what `assessed` has learnt.
    It leaves out all that hangs on other instances or on letters: levels, and who is named among all (e-BH). What has
    been swept, forgotten or judged anew since is counted as it is now.
    """
    if domain not in assessed.assessment:
        return []
    whole = assessed.assessment
    table = _rows_of(whole.table, domain)
    known = assessed.known.evidence
    evidence = replace(
        known,
        incidents=[each for each in known.incidents if each.instance == domain],
        reviews=(),  # they speak through what is usual
        remediations=[each for each in known.remediations if each.instance == domain],
        contacts=(),
    )
    looks = []
    at = whole.at
    while at >= back_to:
        # A clean-up that came later than a look was not known then: `assess` leaves it out, as it does later images
        found = assess(table, evidence, at, whole.rules, whole.usual).instances.get(domain)
        if found is not None:
            triage, decision = found.triage, found.decision
            known_ratio = found.context.prior.learnt and triage.media >= whole.rules.least_media
            looks.append(
                Look(
                    at=at,
                    media=triage.media,
                    flagged=triage.flagged,
                    ratio=triage.ratio if known_ratio else None,
                    low=triage.low if known_ratio else None,
                    high=triage.high if known_ratio else None,
                    since=decision.since,
                    recent_media=decision.media,
                    incidents=len(decision.incidents),
                    independent=len(decision.independent),
                    e_value=decision.e_value,
                )
            )
        at -= _WEEK
    return looks[::-1]


def _rows_of(table: ExposureTable, domain: str) -> ExposureTable:
    """The rows of one instance; strata keep their places, as what is usual goes by them."""
    place = bisect.bisect_left(table.instances, domain)
    if place == len(table.instances) or table.instances[place] != domain:
        first = last = 0
    else:
        first, last = np.searchsorted(table.instance, [place, place + 1])
    here = slice(int(first), int(last))
    columns: dict[str, Any] = {
        name: getattr(table, name)[here] for name in ("stratum", "first", "last", "media", "flagged", "busiest")
    }
    names = (domain,) if last > first else ()
    return ExposureTable(names, table.strata, instance=np.zeros(len(columns["first"]), dtype=np.int32), **columns)
