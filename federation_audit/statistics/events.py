"""What the statistics are told: counts for each instance, stratum and period, and every incident that matters.

All days are UTC. Domains are in the form of `schemas.domains`. Each record can be found again where it came from:
exposure by its instance, stratum and first day, the others by their ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from schemas.messages import Confidence


class InvalidEvidence(ValueError):
    """A record that cannot be true; the message names the field and what it must be."""


class Stratum(NamedTuple):
    """What judged an image: within one stratum, harmless images are flagged equally often wherever they come from."""

    model: str
    policy: str
    hash_list: str = ""


class Confirmation(StrEnum):
    """Why an incident counts as real. reviewers: two different reviewers said so; hash: a verified hash was hit."""

    REVIEWERS = "reviewers"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the authors of one instance sent from day `first` to day `last`, both included, under one stratum.

    `media` is how many distinct images (counted on the day they were first seen), `flagged` how many incidents the
    scanners saw among them: distinct (actor, day, cluster). `busiest` is how many of the images came from the one
    account that sent most in this period, 0 where that is not known. An `instance` of None stands for images whose
    author's instance is not known; the host of an image is not its author. Periods of at most a week, cut where a
    quarter begins, are fine enough: one that lies astride a restart counts whole, in favour of the instance.
    """

    instance: str | None
    stratum: Stratum
    first: date
    last: date
    media: int
    flagged: int = 0
    busiest: int = 0


@dataclass(frozen=True, slots=True)
class Incident:
    """One account's one picture (a PDQ cluster) on one day; two records of the same three are one incident.

    `instance` is the author's, None where it is not known. `actor` is a pseudonym of the day's quarter, "" where only
    the instance is known. `confidence` is how sure the author's instance is; what is merely possible accuses nobody.
    """

    incident_id: str
    instance: str | None
    actor: str
    day: date
    cluster: str
    confirmed: Confirmation | None = None
    image_host: str | None = None
    confidence: Confidence = Confidence.CERTAIN

    def __post_init__(self) -> None:
        if not self.cluster:
            raise InvalidEvidence(f"incident {self.incident_id}: cluster is empty; give an image alone its own cluster")


@dataclass(frozen=True, slots=True)
class Reviews:
    """How the flagged incidents of one stratum that people looked at turned out; unsure ones are not in it."""

    stratum: Stratum
    confirmed: int
    dismissed: int

    def __post_init__(self) -> None:
        if min(self.confirmed, self.dismissed) < 0:
            raise InvalidEvidence(f"reviews of {self.stratum}: confirmed and dismissed are counts, 0 or more")


@dataclass(frozen=True, slots=True)
class Remediation:
    """A person noted that `instance` cleaned up on `day`: what happened until then no longer counts against it."""

    remediation_id: str
    instance: str
    day: date


@dataclass(frozen=True, slots=True)
class Contact:
    """Its admins were written to; `answered` is the day of their answer, None as long as there is none."""

    contact_id: str
    instance: str
    sent: date
    answered: date | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known, but for the exposure. `local_domains` are the tenants' own: never assessed."""

    incidents: Sequence[Incident] = ()
    reviews: Sequence[Reviews] = ()
    remediations: Sequence[Remediation] = ()
    contacts: Sequence[Contact] = ()
    local_domains: frozenset[str] = field(default_factory=frozenset)
