"""The overview: what was done in the last days, by what, whether the audit is up to date, and what waits for people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from federation_audit.accounts.roles import Role
from federation_audit.pages import figures
from federation_audit.pages.cells import Day as Date
from federation_audit.pages.funnel import instance_path
from federation_audit.pages.plots import Bar, draw_bars
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Table, take
from federation_audit.pages.visits import Here
from federation_audit.pages.waiting import SOON_MS, Waiting, read_waiting
from federation_audit.statistics.events import Stratum
from federation_audit.store.periods import as_date
from federation_audit.store.state import State, read_state
from federation_audit.store.sums import Sums, add_up, read_sums, read_tenants
from schemas.messages import AnsweredBy
from schemas.topics import DAY_MS

STALE_MS = 60_000
"""A recorder writes every second or two; one that has not for so long is not running."""

RANGES = {"7": "7 days", "": "30 days", "90": "90 days", "all": "all that is kept"}
_DAYS = {"7": 7, "": 30, "90": 90}
_LISTED_MOST = 12

MEANINGS = {
    AnsweredBy.VERDICT: "a scanner judged it while the other side waited",
    AnsweredBy.KNOWN: "it was judged before",
    AnsweredBy.LIST: "it is on a list of known images",
    AnsweredBy.OVERRIDE: "a person had said what to do with it",
    AnsweredBy.DEADLINE: "no verdict came in time",
    AnsweredBy.OVERLOAD: "too much was waiting already",
    AnsweredBy.SPOOLED: "it was put aside, to be judged later",
    AnsweredBy.UNREADABLE: "it is no image that can be read",
}
TITLES = {by: by.value.capitalize() for by in AnsweredBy}


@dataclass(frozen=True, slots=True)
class Day:
    """A day since the epoch, and its sums."""

    day: int
    sums: Sums


def _answers_of(by: AnsweredBy) -> Column[Day]:
    return Column(by.value, TITLES[by], lambda row: row.sums.answered(by), numeric=True)


TABLE: Table[Day] = Table(
    name="days",
    title="Day by day",
    order="-day",
    empty="Nothing was recorded in these days.",
    columns=(
        Column("day", "Day", lambda row: Date(as_date(row.day)), sortable=True, starts="down"),
        Column("images", "Images", lambda row: row.sums.images, numeric=True),
        Column("flagged", "Flagged", lambda row: row.sums.flagged, numeric=True),
        *(_answers_of(by) for by in AnsweredBy),
        Column("unjudged", "Unjudged", lambda row: row.sums.unjudged, numeric=True),
        Column("judged_late", "Judged since", lambda row: row.sums.judged_late, numeric=True),
        Column("removed", "Removed", lambda row: row.sums.removed, numeric=True),
        Column("failures", "Failures", lambda row: row.sums.failed, numeric=True),
    ),
)


def overview_area() -> Area:
    """The start page, for everybody who is logged in."""
    router = APIRouter()

    @router.get("/overview", response_model=None)
    def show(here: Here) -> Response:
        assessed = here.site.assessor.newest()
        with here.site.database.reading() as connection:
            tenants = read_tenants(connection)
            table = _with_filters(tenants)
            selection = here.select(table)
            wanted, tenant = selection.term("range"), selection.term("tenant")
            today = here.now_ms // DAY_MS
            since = today - _DAYS[wanted] + 1 if wanted in _DAYS else 0
            sums = read_sums(connection, since_day=since, tenant=tenant)
            state = read_state(connection)
            verified = here.site.surroundings.audit.verified_lists
            waiting = read_waiting(connection, assessed, here.now_ms, verified_lists=verified)
        since = since or min(sums, default=today)
        days = [Day(day, sums.get(day, Sums({}))) for day in range(since, max([today, *sums]) + 1)]
        total = add_up(list(sums.values()))
        return here.show(
            "overview.html",
            table,
            selection,
            take(days, table, selection, lambda _: True),
            total=total,
            answers=[
                (TITLES[by], MEANINGS[by], total.answered(by), total.answered(by, "refused")) for by in AnsweredBy
            ],
            plots=_plots(days),
            recorder=say_recorder(state, here.now_ms),
            in_force=[_as_judges(each) for each in assessed.known.in_force],
            waits=_waits(waiting, {area.path for area in here.site.open_to(here.user.role)}),
            range_title=RANGES[wanted],
            tenant=tenant,
        )

    return Area("Overview", "/overview", Role.VIEWER, router)


def _with_filters(tenants: Sequence[str]) -> Table[Day]:
    ranges = tuple((value, title) for value, title in RANGES.items() if value)
    filters = [Filter("range", "Time", ranges, unset=RANGES[""])]
    if len(tenants) > 1:
        filters.append(Filter("tenant", "Tenant", tuple((each, each) for each in tenants)))
    return replace(TABLE, filters=tuple(filters))


def _plots(days: Sequence[Day]) -> list[tuple[str, int, str, Markup]]:
    """Title, sum, what it means, and the plot."""
    wanted: tuple[tuple[str, str, str, Callable[[Sums], int]], ...] = (
        ("Images", "plain", "judged, or waiting for it", lambda sums: sums.images),
        ("Flagged", "warn", "judged review or reject", lambda sums: sums.flagged),
        ("Still unjudged", "watch", "answered without a verdict, and none came", lambda sums: sums.unjudged),
        ("Judged since", "good", "answered without a verdict, which came later", lambda sums: sums.judged_late),
        ("Removed", "bad", "taken off the image store", lambda sums: sums.removed),
        ("Failures", "quiet", "no scanner could judge it", lambda sums: sums.failed),
    )
    found = []
    for title, tone, meaning, value in wanted:
        bars = []
        for each in days:
            day, number = as_date(each.day).isoformat(), value(each.sums)
            bars.append(Bar(day, number, f"{day}: {number:,}"))
        total = sum(int(bar.value) for bar in bars)
        highest = max(bars, key=lambda bar: bar.value, default=None)
        says = f"{total:,} in {len(bars)} days"
        if highest is not None and highest.value:
            says += f", most on {highest.label}: {int(highest.value):,}"
        found.append((title, total, meaning, draw_bars(f"{title} by day", f"{says}.", bars, tone=tone)))
    return found


def say_recorder(state: State, now: int) -> tuple[str, str]:
    """A tone, and a sentence about whether the audit is up to date."""
    if not state.recorded_at:
        return "warn", "No recorder has written into this store yet. Start it: fediwarden audit record."
    since = figures.relative(state.recorded_at, now)
    if now - state.recorded_at > STALE_MS:
        moment = figures.utc(state.recorded_at)
        return "warn", (
            f"The recorder is not running since {moment} ({since}): what came later is not counted here."
            " Start it: fediwarden audit record."
        )
    if state.lag < 0:
        return "watch", f"The recorder wrote {since}. Kafka does not say how much is yet to be read."
    if state.lag == 0:
        return "", f"The recorder wrote {since}, and has read everything."
    records = "record is" if state.lag == 1 else "records are"
    return "", f"The recorder wrote {since}; {state.lag:,} {records} yet to be read."


def _as_judges(stratum: Stratum) -> Mapping[str, object]:
    models = [each.partition(" ")[::2] for each in stratum.model.split(", ")]
    name, _, version = stratum.hash_list.partition("@")
    return {"models": models, "policy": stratum.policy, "list": name, "list_version": version}


def _waits(waiting: Waiting, paths: set[str]) -> list[Markup]:
    """Sentences, with links where the reader may go there."""
    found = []

    def link(text: str, path: str) -> Markup:
        if path not in paths:
            return Markup("{}").format(text)
        return Markup('<a href="{}">{}</a>').format(path, text)

    if waiting.reviews:
        many = f"{waiting.reviews:,} {'row' if waiting.reviews == 1 else 'rows'}"
        found.append(Markup("{} waiting for review").format(link(many, "/review")))
    if waiting.recommended:
        many = "1 recommendation" if len(waiting.recommended) == 1 else f"{len(waiting.recommended):,} recommendations"
        found.append(Markup("{} without a person's decision: {}").format(many, _domains(waiting.recommended)))
    if waiting.ended:
        domains = tuple(each.domain for each in waiting.ended)
        found.append(Markup("Decisions that have run out: {}").format(_domains(domains)))
    if waiting.ending:
        domains = tuple(each.domain for each in waiting.ending)
        found.append(Markup("Decisions that end within {} days: {}").format(SOON_MS // DAY_MS, _domains(domains)))
    return found


def _domains(domains: Sequence[str]) -> Markup:
    shown = Markup(", ").join(
        Markup('<a href="{}">{}</a>').format(instance_path(each), each) for each in domains[:_LISTED_MOST]
    )
    rest = len(domains) - _LISTED_MOST
    return shown if rest <= 0 else shown + f" and {rest:,} more"
