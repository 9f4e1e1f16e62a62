"""One instance: its level and why, its numbers, and what stands behind each of them."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import dropwhile
from typing import Any

import idna
from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from federation_audit.assessing.assessor import Assessed
from federation_audit.assessing.history import Look, read_history
from federation_audit.assessing.traces import Deed, Trace, Traces, read_deeds, read_traces
from federation_audit.cases import Removal
from federation_audit.pages import figures
from federation_audit.pages.cells import Cell, Day, Interval, Link, Listed, Mark, Outside, Said, Share
from federation_audit.pages.failures import fail
from federation_audit.pages.funnel import TONES, instance_path, level_word
from federation_audit.pages.people import people_of
from federation_audit.pages.plots import Bar, Line, Spot, draw_bars, draw_course
from federation_audit.pages.table import PAGE_ROWS, Column, Links, Rows, Selection, Table, take
from federation_audit.pages.visits import Here, Visit
from federation_audit.pages.waiting import InForce, read_decisions
from federation_audit.presence.reading import read_removal
from federation_audit.statistics.assessment import ExposurePart
from federation_audit.statistics.events import Confirmation
from federation_audit.statistics.levels import InstanceAssessment
from federation_audit.store.facts import Role
from federation_audit.store.periods import as_date, as_day, first_day, last_day
from federation_audit.store.queries import Count, instance_id, read_instance
from schemas.domains import NotADomain, normalise_domain

CONFIRMED = {
    Confirmation.REVIEWERS: Mark("two reviewers", "bad"),
    Confirmation.HASH: Mark("a verified hash list", "bad"),
    None: Mark("nobody yet", "plain"),
}
_CUT = 60
_LISTED = 20
_COURSE = timedelta(weeks=26)
"""So far back goes the course of an instance's numbers."""


@dataclass(frozen=True, slots=True)
class Subject:
    """All that the pages say of one instance. `found` is None where no image by an author of it was counted; `own`:
    it is one of our own, which nobody assesses. The three counts are of three roles, and are never added."""

    domain: str
    assessed: Assessed
    found: InstanceAssessment | None
    own: bool
    traces: Traces
    deeds: tuple[Deed, ...]
    decision: InForce | None
    author: Count
    community: Count
    host: Count
    removal: Removal

    @property
    def listed_alone(self) -> bool:
        """Whether lists of known images have found some of what it sent, and models have flagged nothing."""
        flagged = self.found is not None and self.found.triage.flagged > 0
        return not flagged and self.domain in self.assessed.known.listed

    @property
    def parts(self) -> tuple[ExposurePart, ...]:
        """The rows of exposure behind the numbers, the oldest first."""
        return () if self.found is None else self.assessed.assessment.open(self.domain)

    @property
    def looks(self) -> list[Look]:
        """Its numbers week by week, the oldest first, from when there was anything to count."""
        looks = read_history(self.assessed, self.domain, self.assessed.assessment.at - _COURSE)
        return list(dropwhile(lambda look: not look.media and not look.incidents, looks))

    @property
    def path(self) -> str:
        """Its page."""
        return instance_path(self.domain)


@dataclass(frozen=True, slots=True)
class Number:
    """A number with what it means, and a link to the rows behind it where there are any."""

    name: str
    value: Cell
    says: str
    rows: Cell = ""


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


Shown = tuple[Table[Any], Callable[[Subject], Sequence[Any]]]


def _interval(look: Look) -> Cell:
    if look.ratio is None or look.low is None or look.high is None:
        return None
    return Interval(look.ratio, look.low, look.high)


NUMBERS: Table[Number] = Table(
    name="numbers",
    title="Numbers",
    order="",
    empty="No image by an author of this instance has been counted.",
    columns=(
        Column("number", "Number", lambda row: row.name),
        Column("value", "Value", lambda row: row.value, numeric=True),
        Column("says", "What it says", lambda row: row.says),
        Column("rows", "Behind it", lambda row: row.rows),
    ),
)

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


def add_instance_routes(router: APIRouter) -> None:
    """The page of one instance, and those of the rows behind its numbers."""

    @router.get("/instances/{domain}", response_model=None)
    def show(here: Here, domain: str) -> Response:
        subject = _find(here, domain)
        if isinstance(subject, Response):
            return subject
        numbers = find_numbers(subject)
        selection = here.select(NUMBERS)
        weeks = find_weeks(subject)
        return here.show(
            "instance.html",
            _named(NUMBERS, subject),
            selection,
            _part(numbers, selection),
            subject=subject,
            written=_written(subject.domain),
            mark=level_mark(subject.found),
            plots=_week_plots(weeks) + _course_plots(subject),
            behind=[_behind(subject, name) for name in BEHIND if name not in ("exposure", "course")],
            people=people_of(here, subject.domain),
        )

    def add(name: str, shown: Shown) -> None:
        table, rows_of = shown

        @router.get(f"/instances/{{domain}}/{name}", response_model=None)
        def show_rows(here: Here, domain: str) -> Response:
            subject = _find(here, domain, below=name)
            if isinstance(subject, Response):
                return subject
            selection = here.select(table)
            rows = take(rows_of(subject), table, selection, lambda _: True)
            return here.show("instance_rows.html", _named(table, subject), selection, rows, subject=subject, what=name)

    for name, shown in BEHIND.items():
        add(name, shown)


def level_mark(found: InstanceAssessment | None) -> Mark:
    """The level as a mark."""
    return Mark("not assessed") if found is None else Mark(level_word(found.level), TONES[found.level])


def is_comparable(of: InstanceAssessment) -> bool:
    """Whether it sent enough images, and enough is known of others, to say how many times the usual it is flagged."""
    return of.context.prior.learnt and of.triage.media >= of.context.rules.least_media


def show_ratio(of: InstanceAssessment) -> Cell:
    """How many times the usual it is flagged, with the interval; None where that cannot be said."""
    return Interval(of.triage.ratio, of.triage.low, of.triage.high) if is_comparable(of) else None


def show_chance(of: InstanceAssessment) -> Cell:
    """How probably that is more than twice; None where it cannot be said."""
    return Share(of.triage.chance, coarse=True) if is_comparable(of) else None


def find_numbers(subject: Subject) -> list[Number]:
    """The numbers of an assessed instance, each with what it says and where its rows are."""
    found, path = subject.found, subject.path
    if found is None:
        return []
    triage, decided, context = found.triage, found.decision, found.context
    rules = context.rules
    exposure = Link("by week", f"{path}/exposure")
    return [
        Number("Level", level_mark(found), "How far the evidence goes; the sentences above say why."),
        Number("Images", triage.media, "Distinct images by its authors, once for each that judged them.", exposure),
        Number(
            "Flagged",
            triage.flagged,
            "One account's one picture on one day counts once. Machines err: a flag proves nothing.",
            exposure,
        ),
        Number("Usual", triage.expected, "So many flags an ordinary instance with these images has.", exposure),
        Number(
            "Times the usual",
            show_ratio(found),
            f"Lately: what is {rules.half_life_days:.0f} days old counts half. With a probability of"
            f" {rules.interval * 100:.0f} % it lies between the two ends.",
            exposure,
        ),
        Number(
            f"More than {rules.ratio:g} times the usual",
            show_chance(found),
            f"How probable that is; above {rules.watch_chance * 100:.0f} % it is worth a look.",
        ),
        Number(
            "Confirmed incidents",
            len(decided.incidents),
            f"By two reviewers or a verified list, since {decided.since}, when evidence last began anew.",
            Link("incidents", f"{path}/incidents"),
        ),
        Number(
            "Of them independent",
            len(decided.independent),
            "Those that share no account, day or picture: one bad account is no bad instance.",
            Link("accounts", f"{path}/accounts"),
        ),
        Number(
            "Tolerable", decided.tolerable, "Confirmed incidents that an innocent one of its size may have.", exposure
        ),
        Number(
            "e-value",
            decided.e_value,
            f"Odds against its innocence, as a bet would pay: level 2 asks for {rules.restrict_e:g},"
            f" level 3 for {_asked(context.asked_log_e)} now.",
        ),
        Number("Removed at the origin", _removed(subject.removal), _says_removed(subject.removal)),
    ]


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


def _find(here: Visit, text: str, *, below: str = "") -> Subject | Response:
    """The instance that `text` names; a redirect where it is spelled otherwise, 404 where nobody knows it."""
    try:
        domain = normalise_domain(text)
    except NotADomain:
        return fail(here.request, 404, "This is no domain. Look for the instance in the table of instances.")
    if domain != text:
        query = here.request.url.query
        path = instance_path(domain) + (f"/{below}" if below else "")
        return RedirectResponse(f"{path}?{query}" if query else path, 308)
    assessed = here.site.assessor.newest()
    found = assessed.assessment.instances.get(domain)
    with here.site.database.reading() as connection:
        decision = read_decisions(connection).get(domain)
        deeds = tuple(read_deeds(connection, domain))
        if found is None and decision is None and not deeds and instance_id(connection, domain) is None:
            return fail(
                here.request,
                404,
                f"Nothing is known of {domain}: no image that was looked at here came from it, or lay on it.",
            )
        return Subject(
            domain=domain,
            assessed=assessed,
            found=found,
            own=domain in here.site.surroundings.local_domains,
            traces=read_traces(connection, domain, assessed.known.evidence),
            deeds=deeds,
            decision=decision,
            author=read_instance(connection, domain, Role.AUTHOR).now,
            community=read_instance(connection, domain, Role.COMMUNITY).now,
            host=read_instance(connection, domain, Role.HOST).now,
            removal=read_removal(connection, domain),
        )


def _behind(subject: Subject, name: str) -> tuple[str, Table[Any], Rows[Any], Links]:
    """The first part of the rows behind numbers, for the page of the instance; its links lead to their own page."""
    table, rows_of = BEHIND[name]
    selection = Selection(table.order.removeprefix("-"), table.order.startswith("-"), 1, PAGE_ROWS, {})
    rows = take(rows_of(subject), table, selection, lambda _: True)
    return name, table, rows, Links(f"{subject.path}/{name}", table, selection)


def _grouped(subject: Subject, keys: Callable[[Trace], Iterable[str]]) -> list[Group]:
    found: dict[str, list[Trace]] = defaultdict(list)
    for trace in subject.traces.incidents:
        for key in keys(trace):
            found[key].append(trace)
    return [Group(name, tuple(some)) for name, some in sorted(found.items())]


def _named(table: Table[Any], subject: Subject) -> Table[Any]:
    """The table with the instance in its title and in the names of its files."""
    file = re.sub(r"[^a-z0-9.-]+", "-", subject.domain).strip("-")
    return replace(table, name=f"{file}-{table.name}", title=f"{table.title} of {subject.domain}")


def _part(rows: Sequence[Any], selection: Selection) -> Rows[Any]:
    return Rows(rows[selection.start : selection.start + selection.size], len(rows))


def _week_plots(weeks: Sequence[Week]) -> list[tuple[str, str, Markup]]:
    """Title, what it means, and the plot."""
    wanted: tuple[tuple[str, str, str, Callable[[Week], int]], ...] = (
        ("Images", "plain", "that its authors sent", lambda week: week.images),
        ("Flagged", "warn", "by machines, right or wrong", lambda week: week.flagged),
        ("Confirmed incidents", "bad", "by two reviewers or a verified list", lambda week: week.confirmed),
    )
    found = []
    for title, tone, meaning, value in wanted:
        bars = [Bar(str(week.first), value(week), f"week from {week.first}: {value(week):,}") for week in weeks]
        total = sum(int(bar.value) for bar in bars)
        says = f"{total:,} in {len(bars)} weeks."
        found.append((title, meaning, draw_bars(f"{title} by week", says, bars, tone=tone)))
    return found


def _course_plots(subject: Subject) -> list[tuple[str, str, Markup]]:
    """The interval and the e-value in time: title, what it means, and the plot."""
    looks = subject.looks
    if subject.found is None or not looks:
        return []
    context = subject.found.context
    plots = []
    ratios = [Spot(each.at, each.ratio, each.low, each.high) for each in looks if each.ratio is not None]
    if ratios:
        says = f"Lately {figures.decimal(ratios[-1].value)} times the usual, over {len(ratios)} weeks."
        lines = [Line(1.0, "usual"), Line(context.rules.ratio, f"{context.rules.ratio:g} times")]
        plot = draw_course("Times the usual, with its interval", says, ratios, lines=lines)
        plots.append(("Times the usual", f"with its {context.rules.interval * 100:.0f} % interval", plot))
    values = [Spot(each.at, each.e_value) for each in looks]
    lines = [Line(context.rules.restrict_e, "level 2")]
    if not math.isinf(context.asked_log_e) and context.asked_log_e > math.log(context.rules.restrict_e * 1.5):
        lines.append(Line(math.exp(min(context.asked_log_e, 700.0)), "level 3"))
    says = f"Lately {figures.decimal(values[-1].value)}, over {len(values)} weeks. It begins anew with each quarter."
    plot = draw_course("e-value", says, values, lines=lines, logarithmic=True)
    plots.append(("e-value", "begins anew with each quarter", plot))
    return plots


def _removed(removal: Removal) -> Cell:
    """How many of the posts that were looked at again were gone; None where nobody has looked."""
    return f"{removal.removed:,} of {removal.looked_at:,}" if removal.looked_at else None


def _says_removed(removal: Removal) -> str:
    if not removal.looked_at:
        return "Whether posts of confirmed incidents are still there: nobody has looked."
    if removal.median is None:
        return "Posts of confirmed incidents that were gone when last looked at. Half or more were still there."
    return (
        "Posts of confirmed incidents that were gone when last looked at;"
        f" half of them within {figures.span(removal.median.total_seconds())}."
    )


def _asked(log_e: float) -> str:
    return "more than anyone has" if math.isinf(log_e) else figures.decimal(math.exp(min(log_e, 700.0)))


def _written(domain: str) -> str:
    """The domain as people write it, where that is something else; "" where it is not."""
    try:
        text = str(idna.decode(domain)) if "xn--" in domain else ""
    except (idna.IDNAError, UnicodeError):
        return ""
    return "" if text == domain else text


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
