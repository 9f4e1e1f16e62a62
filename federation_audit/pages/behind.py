"""The rows behind the numbers of an instance: exposure, weeks, its course, incidents, and what these have in common."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from federation_audit.assessing.history import Look
from federation_audit.assessing.traces import Deed, Trace
from federation_audit.pages.cells import Cell, Day, Interval, Link, Listed, Mark, Outside, Said, Share
from federation_audit.pages.funnel import instance_path
from federation_audit.pages.subject import Subject
from federation_audit.pages.table import Column, Table
from federation_audit.statistics.assessment import ExposurePart
from federation_audit.statistics.events import Confirmation
from federation_audit.store.periods import as_date, as_day, first_day, last_day

Shown = tuple[Table[Any], Callable[[Subject], Sequence[Any]]]

CONFIRMED = {
    Confirmation.REVIEWERS: Mark("two reviewers", "bad"),
    Confirmation.HASH: Mark("a verified hash list", "bad"),
    None: Mark("nobody yet", "plain"),
}
_CUT = 60
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Week:
    """A week, or the part of one that is in a quarter."""

    first: date
    images: int
    flagged: int
    incidents: int
    confirmed: int
    deeds: tuple[Deed, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Incidents that have an account, a community or an image host in common. `name`: "" where it is not known."""

    name: str
    incidents: tuple[Trace, ...]

    @property
    def confirmed(self) -> int:
        """How many of them are."""
        return sum(each.confirmed is not None for each in self.incidents)

    @property
    def media(self) -> int:
        """Distinct images."""
        return len({medium for each in self.incidents for medium in each.media})

    @property
    def first(self) -> date:
        """The day of the first."""
        return min(each.day for each in self.incidents)

    @property
    def last(self) -> date:
        """The day of the last."""
        return max(each.day for each in self.incidents)


def _interval(look: Look) -> Cell:
    if look.ratio is None or look.low is None or look.high is None:
        return None
    return Interval(look.ratio, look.low, look.high)


EXPOSURE: Table[ExposurePart] = Table(
    name="exposure",
    title="Exposure by week and by what judged",
    order="-week",
    empty="No image by an author of this instance has been counted.",
    columns=(
        Column("week", "From", lambda row: Day(row.first), sortable=True, starts="down"),
        Column("until", "To", lambda row: Day(row.last)),
        Column("models", "Models", lambda row: Said(row.stratum.model, cut=_CUT)),
        Column("policy", "Policy", lambda row: Said(row.stratum.policy, cut=16)),
        Column(
            "hash_list", "Hash list", lambda row: Said(row.stratum.hash_list, cut=24) if row.stratum.hash_list else ""
        ),
        Column("images", "Images", lambda row: row.media, numeric=True),
        Column("flagged", "Flagged", lambda row: row.flagged, numeric=True),
        Column("expected", "Usual", lambda row: row.expected, numeric=True),
        Column("weight", "Weight by age", lambda row: Share(row.weight), numeric=True),
        Column("tolerable", "Tolerable incidents", lambda row: row.tolerable, numeric=True),
        Column("in_decision", "Counts for the e-value", lambda row: "yes" if row.in_decision else "no"),
    ),
)

WEEKS: Table[Week] = Table(
    name="weeks",
    title="Week by week",
    order="-week",
    empty="Nothing has happened yet.",
    columns=(
        Column("week", "Week from", lambda row: Day(row.first), sortable=True, starts="down"),
        Column("images", "Images", lambda row: row.images, numeric=True),
        Column("flagged", "Flagged", lambda row: row.flagged, numeric=True),
        Column("incidents", "Incidents", lambda row: row.incidents, numeric=True),
        Column("confirmed", "Confirmed", lambda row: row.confirmed, numeric=True),
        Column(
            "deeds",
            "What people did",
            lambda row: Listed([f"{each.day} {each.what} ({each.who})" for each in row.deeds]) if row.deeds else "",
        ),
    ),
)

COURSE: Table[Look] = Table(
    name="course",
    title="Numbers in time",
    order="-at",
    empty="Nothing has been counted yet.",
    columns=(
        Column("at", "At the end of", lambda row: Day(row.at), sortable=True, starts="down"),
        Column("images", "Images", lambda row: row.media, numeric=True),
        Column("flagged", "Flagged", lambda row: row.flagged, numeric=True),
        Column(
            "ratio",
            "Times the usual (90 % interval)",
            _interval,
            numeric=True,
        ),
        Column("since", "Evidence since", lambda row: Day(row.since)),
        Column("recent", "Images since then", lambda row: row.recent_media, numeric=True),
        Column("incidents", "Confirmed incidents", lambda row: row.incidents, numeric=True),
        Column("independent", "Of them independent", lambda row: row.independent, numeric=True),
        Column("e_value", "e-value", lambda row: row.e_value, numeric=True),
    ),
)

INCIDENTS: Table[Trace] = Table(
    name="incidents",
    title="Incidents",
    order="-day",
    empty="None: nothing of this instance is flagged now.",
    columns=(
        Column("day", "Day", lambda row: Day(row.day), sortable=True, starts="down"),
        Column("account", "Account", lambda row: row.account or None, sortable=True),
        Column("picture", "Picture", lambda row: Said(row.cluster, cut=16)),
        Column("images", "Images", lambda row: len(row.media), numeric=True),
        Column("confirmed", "Confirmed by", lambda row: CONFIRMED[row.confirmed]),
        Column("hosts", "Lay on", lambda row: Listed(row.hosts) if row.hosts else None),
        Column(
            "communities",
            "Community",
            lambda row: Listed([Said(each, cut=_CUT) for each in row.communities], _LISTED) if row.communities else "",
        ),
        Column(
            "posts",
            "Posts",
            lambda row: Listed([Outside(each, cut=_CUT) for each in row.posts], _LISTED) if row.posts else None,
        ),
    ),
)


def _groups(name: str, title: str, key: str, column: str, show: Callable[[Group], Cell]) -> Table[Group]:
    return Table(
        name=name,
        title=title,
        order=key,
        empty="None.",
        columns=(
            Column(key, column, show, sortable=True),
            Column("incidents", "Incidents", lambda row: len(row.incidents), numeric=True),
            Column("confirmed", "Confirmed", lambda row: row.confirmed, numeric=True),
            Column("images", "Images", lambda row: row.media, numeric=True),
            Column("first", "First", lambda row: Day(row.first), sortable=True),
            Column("last", "Last", lambda row: Day(row.last), sortable=True, starts="down"),
        ),
    )


ACCOUNTS = _groups("accounts", "Accounts", "account", "Account", lambda row: row.name or None)
COMMUNITIES = _groups("communities", "Communities", "community", "Community", lambda row: Said(row.name, cut=_CUT))
HOSTS = _groups("hosts", "Image hosts", "host", "Host", lambda row: Link(row.name, instance_path(row.name)))


def find_weeks(subject: Subject) -> list[Week]:
    """Every week from the first in which anything happened to that of the assessment."""
    images: dict[int, int] = defaultdict(int)
    flagged: dict[int, int] = defaultdict(int)
    for part in subject.parts:
        images[as_day(part.first)] += part.media
        flagged[as_day(part.first)] += part.flagged
    incidents: dict[int, list[Trace]] = defaultdict(list)
    for trace in subject.traces.incidents:
        incidents[first_day(as_day(trace.day))].append(trace)
    deeds: dict[int, list[Deed]] = defaultdict(list)
    for deed in subject.deeds:
        deeds[first_day(as_day(deed.day))].append(deed)
    known = images.keys() | incidents.keys() | deeds.keys()
    if not known:
        return []
    until = max(*known, first_day(as_day(subject.assessed.assessment.at)))
    weeks, week = [], min(known)
    while week <= until:
        some = incidents.get(week, [])
        weeks.append(
            Week(
                first=as_date(week),
                images=images.get(week, 0),
                flagged=flagged.get(week, 0),
                incidents=len(some),
                confirmed=sum(each.confirmed is not None for each in some),
                deeds=tuple(deeds.get(week, ())),
            )
        )
        week = last_day(week) + 1
    return weeks


def _grouped(subject: Subject, keys: Callable[[Trace], Iterable[str]]) -> list[Group]:
    found: dict[str, list[Trace]] = defaultdict(list)
    for trace in subject.traces.incidents:
        for key in keys(trace):
            found[key].append(trace)
    return [Group(name, tuple(some)) for name, some in sorted(found.items())]


BEHIND: dict[str, Shown] = {
    "exposure": (EXPOSURE, lambda subject: subject.parts),
    "weeks": (WEEKS, find_weeks),
    "course": (COURSE, lambda subject: subject.looks),
    "incidents": (INCIDENTS, lambda subject: subject.traces.incidents),
    "accounts": (ACCOUNTS, lambda subject: _grouped(subject, lambda each: [each.account])),
    "communities": (COMMUNITIES, lambda subject: _grouped(subject, lambda each: each.communities)),
    "hosts": (HOSTS, lambda subject: _grouped(subject, lambda each: each.hosts)),
}
"""The rows behind the numbers, each a page of its own below that of the instance."""
