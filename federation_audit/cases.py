"""What a report, an export or a block is made from: a case, and the decision that a person took on it.

Nothing here asks a database: whoever has one fills these. Domains are in the form of `schemas.domains`; days are UTC;
moments carry a time zone. An actor is a short pseudonym, never a name. There is no field for an image, nor for the
address of one: where a picture lies is told by its post, its host and its hashes.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum, StrEnum

from schemas.domains import normalise_domain


class Level(IntEnum):
    """How far the evidence of a case goes."""

    INSUFFICIENT = 0
    WATCH = 1
    RESTRICT = 2
    RECOMMEND = 3


class Action(StrEnum):
    """What a person decided to do about an instance.

    contact: its admins are written to; restrict-media: its images are no longer taken; defederate: nothing is.
    """

    NONE = "none"
    CONTACT = "contact"
    RESTRICT_MEDIA = "restrict-media"
    DEFEDERATE = "defederate"


class ContactKind(StrEnum):
    """What a contact is."""

    MAIL = "mail"
    PROFILE = "profile"


class Presence(StrEnum):
    """Whether a post was still there at its origin when it was last looked at; unknown: nobody has looked."""

    UP = "up"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Contact:
    """A way to reach the admins of an instance: a mail address, or the https address of a profile; and where it was
    found ("nodeinfo", "site API", "given by alice")."""

    kind: ContactKind
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that fired, with the plain sentence that says what it means."""

    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Incident:
    """One actor, one day, one picture (and what looks like it): what counts once.

    `communities` are ActivityPub ids, or domains where no more is known; `sha256s` and `pdqs` are lower-case
    hexadecimal; `lists` are the known-hash lists that have it. `confirmed_by` says how it was confirmed ("two
    reviewers", "a verified hash list"); empty while nobody has.
    """

    case_link: str
    day: date
    actor: str
    image_host: str
    communities: tuple[str, ...]
    posts: tuple[str, ...]
    sha256s: tuple[str, ...]
    pdqs: tuple[str, ...]
    rules: tuple[RuleHit, ...]
    lists: tuple[str, ...]
    posted_at: datetime | None
    judged_at: datetime
    presence: Presence
    confirmed_by: str

    @property
    def confirmed(self) -> bool:
        """Whether people, or a verified list, have confirmed it."""
        return bool(self.confirmed_by)


@dataclass(frozen=True, slots=True)
class Counts:
    """Exposure (distinct images that came from the instance), how many of them were flagged, how many flags an
    instance of its size has by error alone; the confirmed incidents, and of how many actors and days they are.

    All of them count what came to any of our tenants, of whom there are `tenants`, as the reasons of a case do: not
    only what came to the one that the case is for.
    """

    exposure: int
    flagged: int
    expected: float
    confirmed: int
    actors: int
    days: int
    tenants: int = 1


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times the usual rate of flags it has: the middle, and the ends of the 90 % interval."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Removal:
    """Of the posts that were looked at again: how many were removed at the origin, and the median time that took."""

    looked_at: int
    removed: int
    median: timedelta | None


@dataclass(frozen=True, slots=True)
class Case:
    """All that is said of one instance, for one tenant (the instance of ours that it was sent to), from `since` up to
    and with `until`. Its incidents are what that tenant saw; level, reasons, counts and ratio are of all tenants
    together. `reasons` say in sentences why it has its level. `link` leads to the case in the audit's pages; empty when
    those have no address that others could open. `whole`: its incidents have all the posts and communities that are
    known, not only those of the newest. `left_out`: so many more, which nobody has confirmed, were only counted."""

    domain: str
    tenant: str
    since: date
    until: date
    level: Level
    reasons: tuple[str, ...]
    counts: Counts
    ratio: Ratio | None
    removal: Removal
    incidents: tuple[Incident, ...]
    contacts: tuple[Contact, ...]
    link: str = ""
    whole: bool = True
    left_out: int = 0

    def __post_init__(self) -> None:
        """Raises `ValueError`: the domain is not in our form, the dates are the wrong way round."""
        if normalise_domain(self.domain) != self.domain:
            raise ValueError(f"domain {self.domain[:60]!a} is not in the form of schemas.domains")
        if self.since > self.until:
            raise ValueError(f"since ({self.since}) is after until ({self.until})")

    @property
    def confirmed(self) -> tuple[Incident, ...]:
        """The confirmed incidents that the tenant saw, the oldest first: what may be shown to others."""
        return tuple(sorted((each for each in self.incidents if each.confirmed), key=_order))


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about the instance of a case. `until` is when it expires; None: it does not."""

    domain: str
    action: Action
    reason: str
    by: str
    at: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A case with the decision taken on it, if one was: what an export is made from."""

    case: Case
    decision: Decision | None

    def __post_init__(self) -> None:
        """Raises `ValueError`: the decision is about another instance."""
        if self.decision is not None and self.decision.domain != self.case.domain:
            raise ValueError(f"the decision is about {self.decision.domain}, the case about {self.case.domain}")

    @property
    def action(self) -> Action:
        """The action decided; `Action.NONE` where nobody has decided."""
        return Action.NONE if self.decision is None else self.decision.action


def _order(incident: Incident) -> tuple[date, str, str, datetime]:
    return incident.day, incident.actor, incident.image_host, incident.judged_at
