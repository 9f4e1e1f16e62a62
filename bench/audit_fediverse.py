"""An invented fediverse for the statistics: what instances send week by week, and what people confirm of it.

Harmless images are flagged at a rate that differs from instance to instance (gamma around 1 %), and some of those are
confirmed wrongly. Every instance, innocent or not, has a bad account now and then, whose incidents come in a clump. Bad
instances have many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import count

import numpy as np
import numpy.typing as npt

from federation_audit.statistics.events import Confirmation, Evidence, Incident, Remediation, Stratum
from federation_audit.statistics.exposures import ExposureTable

STRATUM = Stratum("clip", "default", "none")
START = date(2026, 7, 1)  # a quarter begins

Generator = np.random.Generator
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class World:
    """What is assumed. `*_rate` are shares of images, `clump` is how many incidents a bad account has on average."""

    instances: int = 600
    bad: int = 12
    weeks: int = 26
    media_a_week: float = 300.0
    """Of the median instance; sizes are log-normal with `spread`."""
    spread: float = 1.0
    false_rate: float = 0.01
    false_shape: float = 4.0
    wrongly_confirmed: float = 0.002
    prevalence: float = 4.29e-5
    prevalence_shape: float = 2.0
    clump: float = 2.0
    bad_rate: float = 0.01
    found: float = 0.9
    review_days: float = 3.0


@dataclass(slots=True)
class Fediverse:
    """Weeks of exposure and incidents, with the day on which each incident was confirmed."""

    weeks: int
    media: dict[str, Whole] = field(default_factory=dict)
    flagged: dict[str, Whole] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    confirmed_on: list[date] = field(default_factory=list)
    remediations: list[Remediation] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    _ids: "count[int]" = field(default_factory=count)

    def add_instance(self, name: str, media: Whole, flagged: Whole) -> None:
        """`media` and `flagged` by week; incidents that are added later count as flagged as well."""
        self.media[name], self.flagged[name] = media.copy(), flagged.copy()

    def add_incident(
        self, instance: str | None, actor: str, day: date, cluster: str = "", *, delay: int = 0, host: str | None = None
    ) -> None:
        """One confirmed incident, `delay` days after it happened; its image and its flag are counted, too."""
        number = next(self._ids)
        week = (day - START).days // 7
        if not 0 <= week < self.weeks:
            return
        if instance is not None:
            self.flagged[instance][week] += 1
            self.media[instance][week] = max(self.media[instance][week], self.flagged[instance][week])
        self.incidents.append(
            Incident(str(number), instance, actor, day, cluster or f"p{number}", Confirmation.REVIEWERS, host)
        )
        self.confirmed_on.append(day + timedelta(days=delay))

    def table(self) -> ExposureTable:
        """The exposure of all weeks; `assess` looks at those that have begun."""
        names = [name for name in self.media for _ in range(self.weeks)]
        first = [START + timedelta(days=7 * week) for week in range(self.weeks)]
        return ExposureTable.from_columns(
            instances=names,
            strata=[STRATUM] * len(names),
            first=first * len(self.media),
            last=[day + timedelta(days=6) for day in first] * len(self.media),
            media=np.concatenate(list(self.media.values())).tolist(),
            flagged=np.concatenate(list(self.flagged.values())).tolist(),
        )

    def known_by(self, at: date) -> Evidence:
        """What had been confirmed and noted by the end of day `at`."""
        known = [one for one, day in zip(self.incidents, self.confirmed_on, strict=True) if day <= at]
        return Evidence(known, remediations=[one for one in self.remediations if one.day <= at])

    def looks(self) -> list[date]:
        """The last day of each week."""
        return [START + timedelta(days=7 * week + 6) for week in range(self.weeks)]


def day_of(week: float) -> date:
    """The day that `week` (from 0) and its fraction fall on."""
    return START + timedelta(days=int(week * 7))


def invent(world: World, rng: Generator) -> Fediverse:
    """A fediverse as `world` has it; the first `world.bad` instances are bad."""
    fediverse = Fediverse(world.weeks)
    sizes = world.media_a_week * rng.lognormal(0.0, world.spread, world.instances)
    media = rng.poisson(sizes[:, np.newaxis], (world.instances, world.weeks))
    rates = rng.gamma(world.false_shape, world.false_rate / world.false_shape, world.instances)
    flagged = rng.binomial(media, np.minimum(rates, 1.0)[:, np.newaxis])
    names = [f"{'bad' if at < world.bad else 'i'}{at}.example" for at in range(world.instances)]
    for at, name in enumerate(names):
        fediverse.add_instance(name, media[at], flagged[at])
    fediverse.bad = set(names[: world.bad])
    _confirm_wrongly(fediverse, world, names, rng.binomial(flagged, world.wrongly_confirmed), rng)
    _add_chance_accounts(fediverse, world, names, media, rng)
    for at in range(world.bad):
        add_bad_accounts(fediverse, world, names[at], media[at], world.bad_rate * world.found, rng)
    return fediverse


def _confirm_wrongly(fediverse: Fediverse, world: World, names: Sequence[str], wrong: Whole, rng: Generator) -> None:
    for at, week in np.argwhere(wrong):
        for _ in range(wrong[at, week]):
            fediverse.flagged[names[at]][week] -= 1  # it is among the flagged already
            day, delay = day_of(week + rng.random()), int(rng.exponential(world.review_days))
            fediverse.add_incident(names[at], f"w{rng.integers(1 << 40)}", day, delay=delay)


def _add_chance_accounts(
    fediverse: Fediverse, world: World, names: Sequence[str], media: Whole, rng: Generator
) -> None:
    rates = rng.gamma(world.prevalence_shape, world.prevalence / world.prevalence_shape, world.instances)
    for at, name in enumerate(names):
        add_bad_accounts(fediverse, world, name, media[at], float(rates[at]), rng)


def add_bad_accounts(fediverse: Fediverse, world: World, name: str, media: Whole, rate: float, rng: Generator) -> None:
    """Accounts come to `name` by chance, as many as make `rate` of its images bad; each has `world.clump` incidents on
    average, within some days, a fifth of them pictures that are passed on. Sleeping or banned afterwards."""
    for week, arrivals in enumerate(rng.poisson(media * rate / world.clump)):
        for _ in range(arrivals):
            actor, begin = f"a{rng.integers(1 << 40)}", week + rng.random()
            for _ in range(rng.geometric(1.0 / world.clump)):
                picture = f"shared{rng.integers(200)}" if rng.random() < 0.2 else ""
                delay = int(rng.exponential(world.review_days))
                fediverse.add_incident(name, actor, day_of(begin + rng.exponential(0.3)), picture, delay=delay)
