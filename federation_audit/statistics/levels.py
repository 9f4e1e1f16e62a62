"""Which level follows from the numbers, and the sentences that say why, what is missing and what weakens it.

Levels (FACTS, read so that none contradicts another):
0 insufficient  nothing below holds: too few images, or nothing unusual, or one incident alone
1 watch         P(θ > 2) > .9, with at least 200 images, where what is usual could be learnt
2 restrict      at least 2 independent incidents and an e-value of at least 20
3 recommend     level 2, at least 200 images, named by e-BH, and at least 3 confirmed incidents by at least 2 accounts,
                7 days or more between the first and the last, or no answer from its admins within 7 days

FACTS' ">= 7 days" is the span: each incident has one day, so 3 of them cannot lie on 7. And with fewer than 200 images
level 2 stays possible, as two independent incidents among 30 images are reason enough to write to somebody.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from federation_audit.statistics.events import Contact, Incident, Remediation
from federation_audit.statistics.rules import Rules
from federation_audit.statistics.triage import Prior
from schemas.messages import Confidence

_YOUNG_DAYS = 14


class Level(IntEnum):
    """How far the evidence goes; what it asks for is in docs/evidence.md."""

    INSUFFICIENT = 0
    WATCH = 1
    RESTRICT = 2
    RECOMMEND = 3


@dataclass(frozen=True, slots=True)
class Triage:
    """Stage A for one instance. `expected` is what would be usual for its images.

    `counted` and `counted_expected` are both after the half-life, at their own precision; θ (`ratio` is its
    mean) follows from them: Gamma(shape + counted, shape + counted_expected). `chance` is P(θ > 2).
    """

    media: int
    flagged: int
    expected: float
    counted: float
    counted_expected: float
    ratio: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Stage B for one instance since its last restart.

    `incidents` are the confirmed ones, `independent` those of them that count, `possible` those that are confirmed but
    perhaps not this instance's. `tolerable` is Λ, `tested` whether e-BH looked at it, `selected` whether it
    was named there.
    """

    since: date
    remediation: Remediation | None
    media: int
    busiest: int
    incidents: tuple[Incident, ...]
    independent: tuple[Incident, ...]
    possible: tuple[Incident, ...]
    tolerable: float
    log_e: float
    tested: bool
    selected: bool

    @property
    def e_value(self) -> float:
        """The e-value; inf beyond what a float holds."""
        return math.exp(self.log_e) if self.log_e < 700.0 else math.inf

    @property
    def actors(self) -> int:
        """Accounts that are known to be different; those unknown together are one at most."""
        return len({incident.actor for incident in self.incidents if incident.actor}) or min(len(self.incidents), 1)

    @property
    def days(self) -> int:
        """On how many days there was an incident."""
        return len({incident.day for incident in self.incidents})

    @property
    def span_days(self) -> int:
        """Days between the first and the last incident."""
        days = [incident.day for incident in self.incidents]
        return (max(days) - min(days)).days if days else 0


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for all instances of one assessment."""

    at: date
    rules: Rules
    prior: Prior
    unattributed_share: float
    asked_log_e: float
    instances_tested: int
    instances_selected: int
    expires: date


@dataclass(frozen=True, slots=True)
class InstanceAssessment:
    """What can be said of one instance; `contact` is the letter to its admins since the first incident, if any."""

    instance: str
    level: Level
    triage: Triage
    decision: Decision
    contact: Contact | None
    context: Context

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why this level and none higher, as sentences with their numbers."""
        return tuple(_reasons(self))

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """What could make this look worse, or better, than it is."""
        return tuple(_weaknesses(self))

    @property
    def expires(self) -> date | None:
        """When a recommendation ends, as evidence begins anew; None below level 3."""
        return self.context.expires if self.level is Level.RECOMMEND else None


def find_levels(
    triages: Sequence[Triage],
    decisions: Sequence[Decision],
    contacts: Mapping[str, Contact],
    prior: Prior,
    rules: Rules,
    at: date,
) -> list[Level]:
    """The level of each instance, in their order."""
    return [
        _find_level(found, decided, _contact_of(decided, contacts), prior, rules, at)
        for found, decided in zip(triages, decisions, strict=True)
    ]


def _contact_of(decided: Decision, contacts: Mapping[str, Contact]) -> Contact | None:
    name = decided.incidents[0].instance if decided.incidents else None
    return contacts.get(name) if name is not None else None


def _find_level(
    found: Triage, decided: Decision, contact: Contact | None, prior: Prior, rules: Rules, at: date
) -> Level:
    if _is_contradictory(decided):
        return Level.INSUFFICIENT
    if decided.incidents and not list(_missing_for_restrict(decided, rules)):
        missing = list(_missing_for_recommend(decided, contact, rules, at))
        return Level.RESTRICT if missing or not decided.selected else Level.RECOMMEND
    if prior.learnt and found.media >= rules.least_media and found.chance > rules.watch_chance:
        return Level.WATCH
    return Level.INSUFFICIENT


def _is_contradictory(decided: Decision) -> bool:
    """Incidents of more pictures than there are images: the counts do not belong together."""
    return _pictures(decided) > decided.media


def _pictures(decided: Decision) -> int:
    return len({incident.cluster for incident in decided.incidents})


def _missing_for_restrict(decided: Decision, rules: Rules) -> Iterable[str]:
    if len(decided.independent) < rules.restrict_independent:
        yield f"{_number(len(decided.independent))} independent of {rules.restrict_independent}"
    if decided.log_e < math.log(rules.restrict_e):
        yield f"an e-value of {_e(decided.log_e)} of {_number(rules.restrict_e)}"


def _missing_for_recommend(decided: Decision, contact: Contact | None, rules: Rules, at: date) -> Iterable[str]:
    if not decided.tested:
        yield f"{_number(decided.media)} of {_number(rules.least_media)} images"
    if len(decided.incidents) < rules.recommend_incidents:
        yield f"{len(decided.incidents)} of {rules.recommend_incidents} confirmed incidents"
    if decided.actors < rules.recommend_actors:
        yield f"{decided.actors} of {rules.recommend_actors} accounts"
    if decided.span_days < rules.recommend_span_days and not _is_unanswered(contact, rules, at):
        yield f"{decided.span_days} of {rules.recommend_span_days} days from the first incident to the last"


def _is_unanswered(contact: Contact | None, rules: Rules, at: date) -> bool:
    if contact is None or (at - contact.sent).days < rules.answer_days:
        return False
    return contact.answered is None or contact.answered > at


def _reasons(of: InstanceAssessment) -> Iterable[str]:
    decided, context, rules = of.decision, of.context, of.context.rules
    count = len(decided.incidents)
    if _is_contradictory(decided):
        yield (
            f"Insufficient: {_many(count, 'confirmed incident')} of {_many(_pictures(decided), 'picture')} but"
            f" {_many(decided.media, 'image')} counted since {decided.since}: lists alone found the pictures, they"
            " were first seen before, or the audit is to be rebuilt."
        )
        return
    if not decided.media and not of.triage.media:
        yield "Insufficient: no image of this instance has been counted."
        return
    if count:
        yield (
            f"{_many(count, 'confirmed incident')} by {_many(decided.actors, 'account')} on"
            f" {_many(decided.days, 'day')} among {_many(decided.media, 'image')} since {decided.since};"
            f" of an innocent one, {_decimal(decided.tolerable)} at most are to be expected."
        )
        if len(decided.independent) < count:
            yield (
                f"{_number(len(decided.independent))} of them share no account, day or picture with each other:"
                " only so many count."
            )
        yield (
            f"e-value {_e(decided.log_e)}; level 2 asks for {_number(rules.restrict_e)}, level 3 for {_asked(context)}"
            f" ({context.instances_selected} of {_many(context.instances_tested, 'instance')} reach it)."
        )
    else:
        yield f"No confirmed incident among {_many(decided.media, 'image')} since {decided.since}."
    yield from _triage_reasons(of)
    if of.level is Level.RECOMMEND:
        if decided.span_days >= rules.recommend_span_days:
            yield f"It went on for {decided.span_days} days."
        if of.contact is not None and _is_unanswered(of.contact, rules, context.at):
            yield f"Its admins were written to on {of.contact.sent} and have not answered."
        yield f"Recommended for a person's decision, until {context.expires}."
    elif of.level is Level.RESTRICT:
        yield "Enough to write to its admins, and to hold back or not cache its media until they answer."
        missing = list(_missing_for_recommend(decided, of.contact, rules, context.at))
        if decided.tested and not decided.selected:
            missing.insert(0, f"an e-value of {_e(decided.log_e)} of {_asked(context)}")
        yield f"Not recommended for more: {', '.join(missing)}."
    elif of.level is Level.WATCH:
        yield "Flags prove nothing: have some of them reviewed."
    if count and of.level < Level.RESTRICT:
        yield f"Insufficient for level 2: {', '.join(_missing_for_restrict(decided, rules))}."


def _triage_reasons(of: InstanceAssessment) -> Iterable[str]:
    found, rules = of.triage, of.context.rules
    if found.media < rules.least_media:
        yield f"{_many(found.media, 'image')} in all: too few to compare, {_number(rules.least_media)} are needed."
        return
    if not of.context.prior.learnt:
        yield f"Whether its flags are more than is usual cannot be said: {of.context.prior.note}."
        return
    yield (
        f"{_number(found.flagged)} flagged where {_decimal(found.expected)} are usual: lately {found.ratio:.1f} times"
        f" the usual (90 %: {found.low:.1f} to {found.high:.1f}); more than {rules.ratio:g} times with a"
        f" probability of {_percent(found.chance)}."
    )


def _asked(context: Context) -> str:
    if math.isinf(context.asked_log_e):
        return "more than anyone has, as nobody has sent enough images"
    return f"{_e(context.asked_log_e)}"


def _weaknesses(of: InstanceAssessment) -> Iterable[str]:
    decided, context = of.decision, of.context
    count = len(decided.incidents)
    unknown = sum(not incident.actor for incident in decided.incidents)
    if count > 1 and decided.actors == 1 and not unknown:
        yield f"All {count} by one account: report the account to its instance; it counts once."
    if count > 1 and decided.days == 1:
        yield f"All {count} on one day: perhaps a raid; a day counts once."
    if count > 1 and len({incident.cluster for incident in decided.incidents}) == 1:
        yield f"All {count} are one picture: it counts once."
    if unknown:
        yield f"Of {unknown} of {count} incidents the account is not known: they do not count beside known ones."
    if inferred := sum(incident.confidence is not Confidence.CERTAIN for incident in decided.incidents):
        yield f"{inferred} of {count} incidents are this instance's by inference, not by record."
    hosts = {of.instance, None}
    if elsewhere := sum(incident.image_host not in hosts for incident in decided.incidents):
        yield f"{elsewhere} of {count} pictures lay on another host: the author counts, the host does not."
    if decided.possible:
        yield f"{_many(len(decided.possible), 'more incident')} perhaps of this instance, not counted."
    if decided.busiest * 2 > decided.media:
        share = _percent(decided.busiest / decided.media)
        yield f"{share} of its images came from the busiest account of each period: what is said of it is said of few."
    if context.unattributed_share > 0.5:
        yield f"Of {_percent(context.unattributed_share)} of all images the author's instance is not known."
    if decided.remediation is not None:
        yield f"Evidence begins anew: it cleaned up on {decided.remediation.day}."
    elif (context.at - decided.since).days < _YOUNG_DAYS:
        yield f"Evidence began anew on {decided.since}, with the quarter: little can have come together yet."
    if _is_beyond_naming(decided, context):
        yield (
            f"It is so large that {_decimal(decided.tolerable)} incidents would be tolerable and only one a day counts:"
            " the numbers cannot name it, people must judge."
        )


def _is_beyond_naming(decided: Decision, context: Context) -> bool:
    """Even an independent incident a day would not make the mildest bet of the e-value win."""
    days, mildest = (context.at - decided.since).days + 1, min(context.rules.effects)
    return days * math.log(mildest) < (mildest - 1.0) * decided.tolerable


def _many(count: int, thing: str) -> str:
    return f"{_number(count)} {thing}{'' if count == 1 else 's'}"


def _number(count: float) -> str:
    return f"{count:,.0f}"


def _decimal(value: float) -> str:
    if value >= 10.0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}"


def _percent(share: float) -> str:
    if 0.99 < share < 1.0:
        return "over 99 %"
    return "under 1 %" if 0.0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def _e(log_e: float) -> str:
    if log_e > math.log(1e6):
        return "over a million"
    return _decimal(math.exp(log_e)) if log_e > math.log(0.001) else "under 0.001"
