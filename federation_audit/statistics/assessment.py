"""Everything about all instances at a moment: one call, one frozen result each, every number open to its events."""

import bisect
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from types import MappingProxyType

import numpy as np

from federation_audit.statistics import decision, levels, strata, triage
from federation_audit.statistics.events import Contact, Evidence, Incident, Stratum
from federation_audit.statistics.exposures import Bools, ExposureTable, Floats, Ints
from federation_audit.statistics.independence import choose_independent, distinct_incidents
from federation_audit.statistics.levels import Decision, InstanceAssessment, Level, Triage
from federation_audit.statistics.rules import DEFAULT_RULES, Rules
from federation_audit.statistics.strata import StratumRates
from federation_audit.statistics.triage import Prior
from schemas.domains import normalise_domain
from schemas.messages import Confidence

_ROUNDS = 5  # of learning what is usual from those who are usual


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What is usual: the rates of each stratum, the prior, and the bulk of the instances that both were learnt from."""

    rates: tuple[StratumRates, ...]
    prior: Prior
    bulk: Bools


@dataclass(frozen=True, slots=True)
class ExposurePart:
    """One row of exposure, and what it adds to an instance's sums: `expected` and `tolerable` are of the whole row,
    `weight` (by age) is applied to `flagged` and `expected` in stage A. `in_decision`: it is in stage B, too."""

    stratum: Stratum
    first: date
    last: date
    media: int
    flagged: int
    weight: float
    expected: float
    tolerable: float
    in_decision: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """The results at day `at`, by instance. An instance that nothing is known of is not in it."""

    at: date
    rules: Rules
    usual: Usual
    instances: Mapping[str, InstanceAssessment]
    table: ExposureTable
    unattributed_media: int

    def __getitem__(self, instance: str) -> InstanceAssessment:
        return self.instances[instance]

    def __contains__(self, instance: object) -> bool:
        return instance in self.instances

    def __iter__(self) -> Iterator[InstanceAssessment]:
        return iter(self.instances.values())

    def __len__(self) -> int:
        return len(self.instances)

    def about(self, instances: Collection[str]) -> "Assessment":
        """The results of these instances alone, and their exposure: small, where all may take fifty megabytes."""
        others = frozenset(self.table.instances).difference(instances)
        results = {name: self.instances[name] for name in instances if name in self.instances}
        return replace(self, instances=MappingProxyType(results), table=self.table.without(others))

    def open(self, instance: str) -> tuple[ExposurePart, ...]:
        """The rows behind an instance's numbers, oldest first: their sums are the numbers. Raises KeyError."""
        result = self.instances[instance]
        table, since = self.table, result.decision.since.toordinal()
        usual_rates, tolerable = _rates(self.usual, self.rules)
        place = bisect.bisect_left(table.instances, instance)
        if place == len(table.instances) or table.instances[place] != instance:
            return ()
        # Rows are in the order of instances: there may be a million, and a page asks for those of one.
        rows = range(*np.searchsorted(table.instance, [place, place + 1]).tolist())
        weights = _decay(table.first, table.last, slice(rows.start, rows.stop), self.at, self.rules)
        parts = [
            ExposurePart(
                stratum=table.strata[table.stratum[row]],
                first=date.fromordinal(int(table.first[row])),
                last=date.fromordinal(int(table.last[row])),
                media=int(table.media[row]),
                flagged=int(table.flagged[row]),
                weight=float(weights[row - rows.start]),
                expected=float(table.media[row] * usual_rates[table.stratum[row]]),
                tolerable=float(table.media[row] * tolerable[table.stratum[row]]),
                in_decision=bool(table.last[row] >= since),
            )
            for row in rows
        ]
        return tuple(sorted(parts, key=lambda part: (part.first, part.stratum)))


def learn_usual(table: ExposureTable, evidence: Evidence, at: date, rules: Rules = DEFAULT_RULES) -> Usual:
    """What is usual at `at`, from a table without local domains. What stands out is left out, of rates and prior."""
    table = table.keep(np.asarray(table.first <= at.toordinal()))
    media = table.add_up(table.media)
    bulk = np.ones(len(table.instances), dtype=np.bool_)
    weights = _weights(table, at, rules)
    for _ in range(_ROUNDS):
        rates = strata.rate_strata(table, evidence.reviews, bulk, rules)
        expected = table.media * strata.column(rates, "false_rate")[table.stratum]
        flagged, due = _effective(table, table.flagged, expected, weights)
        prior, found = triage.fit_prior(flagged, due, media, rules)
        settled = bool((found == bulk).all())
        bulk = found
        if settled or not prior.learnt:
            break
    return Usual(rates, prior, bulk)


def assess(
    table: ExposureTable,
    evidence: Evidence,
    at: date,
    rules: Rules = DEFAULT_RULES,
    usual: Usual | None = None,
) -> Assessment:
    """Assess every foreign instance as of the end of day `at`; what is dated later is not looked at.

    `usual` is what was learnt from the same table (`learn_usual`), where the caller has it already. Evidence for levels
    2 and 3 begins anew with each quarter, so that in its first weeks little is said: what stood at the end of the last
    one is `assess` at its last day.
    """
    local = frozenset(normalise_domain(domain) for domain in evidence.local_domains)
    table = table.without(local)
    table = table.keep(np.asarray(table.first <= at.toordinal()))
    usual = usual or learn_usual(table, evidence, at, rules)
    return _Assessing(table, evidence, at, rules, usual, local).run()


class _Assessing:
    """One run of `assess`: columns over `names`, which are the table's instances and those that only have incidents."""

    def __init__(
        self, table: ExposureTable, evidence: Evidence, at: date, rules: Rules, usual: Usual, local: frozenset[str]
    ) -> None:
        self.table, self.evidence, self.at, self.rules, self.usual = table, evidence, at, rules, usual
        self.restarts = decision.find_restarts(at, evidence.remediations)
        self.confirmed: dict[str, list[Incident]] = defaultdict(list)
        self.possible: dict[str, list[Incident]] = defaultdict(list)
        for incident in evidence.incidents:
            name = incident.instance
            if incident.confirmed is None or name is None or name in local:
                continue
            if self._since(name) <= incident.day <= at:
                certain = incident.confidence is not Confidence.POSSIBLE
                (self.confirmed if certain else self.possible)[name].append(incident)
        known = set(table.instances)
        self.names = (*table.instances, *sorted((self.confirmed.keys() | self.possible.keys()) - known))

    def run(self) -> Assessment:
        triages = self._triage()
        decisions, selected = self._decide()
        contacts = self._contacts()
        result_levels = levels.find_levels(triages, decisions, contacts, self.usual.prior, self.rules, self.at)
        unattributed = int(self.table.media[~self.table.attributed].sum())
        every = int(self.table.media.sum())
        context = levels.Context(
            at=self.at,
            rules=self.rules,
            prior=self.usual.prior,
            unattributed_share=unattributed / every if every else 0.0,
            asked_log_e=selected.asked_log_e,
            instances_tested=selected.tested,
            instances_selected=selected.selected,
            expires=decision.next_quarter(self.at),
        )
        results = {
            name: InstanceAssessment(name, Level(level), found, decided, contacts.get(name), context)
            for name, level, found, decided in zip(self.names, result_levels, triages, decisions, strict=True)
        }
        return Assessment(self.at, self.rules, self.usual, MappingProxyType(results), self.table, unattributed)

    @cached_property
    def quarter(self) -> date:
        return decision.quarter_start(self.at)

    def _since(self, name: str) -> date:
        restart = self.restarts.get(name)
        return restart.day + timedelta(days=1) if restart else self.quarter

    def _spread(self, values: Floats) -> Floats:
        """`values` of the table's instances as a column over `names`: those without exposure have 0."""
        return np.append(values, np.zeros(len(self.names) - len(values)))

    def _triage(self) -> list[Triage]:
        table = self.table
        usual_rates, _ = _rates(self.usual, self.rules)
        expected = table.media * usual_rates[table.stratum]
        flagged, due = _effective(table, table.flagged, expected, _weights(table, self.at, self.rules))
        counted, counted_expected = self._spread(flagged), self._spread(due)
        posterior = triage.weigh(counted, counted_expected, self.usual.prior, self.rules)
        columns = (
            self._spread(table.add_up(table.media)).astype(np.int64),
            self._spread(table.add_up(table.flagged)).astype(np.int64),
            self._spread(table.add_up(expected)),
            counted,
            counted_expected,
            posterior.mean,
            posterior.low,
            posterior.high,
            posterior.chance,
        )
        return [Triage(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _decide(self) -> tuple[list[Decision], "_Selected"]:
        table, rules = self.table, self.rules
        since = np.full(len(table.instances), self.quarter.toordinal(), dtype=np.int64)
        for place, name in enumerate(table.instances):
            if name in self.restarts:
                since[place] = self._since(name).toordinal()
        recent = table.keep(np.append(since, np.iinfo(np.int64).max)[table.instance] <= table.last)
        _, tolerable = _rates(self.usual, rules)
        allowed = self._spread(recent.add_up(recent.media * tolerable[recent.stratum]))
        media = self._spread(recent.add_up(recent.media))
        busiest = self._spread(recent.add_up(recent.busiest))
        incidents = {name: tuple(distinct_incidents(some)) for name, some in self.confirmed.items()}
        possible = {name: tuple(distinct_incidents(some)) for name, some in self.possible.items()}
        independent = {name: choose_independent(some) for name, some in incidents.items()}
        counts = np.array([len(independent.get(name, ())) for name in self.names], dtype=np.float64)
        log_e = decision.log_e_values(counts, allowed, rules)
        tested = media >= rules.least_media
        chosen, asked = decision.select(log_e, tested, rules)
        decisions = [
            Decision(
                since=self._since(name),
                remediation=self.restarts.get(name),
                media=int(sent),
                busiest=int(most),
                incidents=incidents.get(name, ()),
                independent=independent.get(name, ()),
                possible=possible.get(name, ()),
                tolerable=limit,
                log_e=log,
                tested=is_tested,
                selected=is_chosen,
            )
            for name, sent, most, limit, log, is_tested, is_chosen in zip(
                self.names,
                *(column.tolist() for column in (media, busiest, allowed, log_e, tested, chosen)),
                strict=True,
            )
        ]
        return decisions, _Selected(asked, int(tested.sum()), int(chosen.sum()))

    def _contacts(self) -> dict[str, Contact]:
        """The earliest letter to each instance that went out after its first counted incident; answers that are yet to
        come have not come."""
        found: dict[str, Contact] = {}
        for contact in sorted(self.evidence.contacts, key=lambda contact: (contact.sent, contact.contact_id)):
            incidents = self.confirmed.get(contact.instance)
            if incidents and min(incident.day for incident in incidents) <= contact.sent <= self.at:
                found.setdefault(contact.instance, contact)
        return found


@dataclass(frozen=True, slots=True)
class _Selected:
    asked_log_e: float
    tested: int
    selected: int


def _weights(table: ExposureTable, at: date, rules: Rules) -> Floats:
    return _decay(table.first, table.last, slice(None), at, rules)


def _decay(first: Ints, last: Ints, rows: slice, at: date, rules: Rules) -> Floats:
    return triage.decay(at.toordinal() - (first[rows] + last[rows]) / 2.0, rules)


def _rates(usual: Usual, rules: Rules) -> tuple[Floats, Floats]:
    """Of each stratum: usual flagged incidents for each image, and tolerable confirmed ones."""
    usual_rates = usual.prior.mean * strata.column(usual.rates, "false_rate")
    return usual_rates, decision.tolerable_rates(strata.column(usual.rates, "false_rate_at_most"), rules)


def _effective(table: ExposureTable, flagged: Ints, expected: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Decayed counts and expectation of each instance, with the precision that they have (see `triage`)."""
    due = table.add_up(expected * weights)
    spread = table.add_up(expected * weights**2)
    ratio = np.divide(due, spread, out=np.ones_like(due), where=spread > 0.0)
    return table.add_up(flagged * weights) * ratio, due * ratio
