"""The instances: who stands out, in a plot and in a table by level; never a league table by counts."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from federation_audit.accounts.database import Database
from federation_audit.accounts.roles import Role
from federation_audit.assessing.assessor import Assessed
from federation_audit.assessing.traces import prepare_traces
from federation_audit.pages.cells import Cell, Link, Mark
from federation_audit.pages.figures import utc
from federation_audit.pages.funnel import (
    TONES,
    Funnel,
    draw_funnel,
    draw_shape,
    instance_path,
    level_word,
    make_funnel,
)
from federation_audit.pages.instance import add_instance_routes
from federation_audit.pages.numbers import is_comparable, show_chance, show_ratio
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Rows, Selection, Table
from federation_audit.pages.visits import Here
from federation_audit.pages.waiting import InForce, read_decisions
from federation_audit.statistics.levels import InstanceAssessment, Level
from schemas.domains import NotADomain, normalise_domain

ACTIONS = {
    "none": "do nothing",
    "contact": "contact",
    "restrict-media": "restrict media",
    "defederate": "defederate",
}
_UNDECIDED, _RUN_OUT = "open", "ended"


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An instance with the decision on it, and when the page is made (ms)."""

    of: InstanceAssessment
    decision: InForce | None
    now: int


def show_decision(decision: InForce | None, now: int) -> Cell:
    """The decision in force, as a cell."""
    if decision is None:
        return "none yet"
    word = ACTIONS.get(decision.action, decision.action)
    if decision.has_expired(now):
        return Mark(f"{word}: has run out", "watch")
    return word if decision.until is None else f"{word}, until {utc(decision.until)[:10]}"


TABLE: Table[InstanceRow] = Table(
    name="instances",
    title="Instances",
    order="-level",
    empty="No instance matches. Clear the search to see all.",
    filters=(
        Filter("q", "Domain contains", hint="such as bad.example"),
        Filter("level", "Level", tuple((str(int(level)), level_word(level)) for level in reversed(Level))),
        Filter(
            "decision",
            "Decision",
            ((_UNDECIDED, "none yet"), *ACTIONS.items(), (_RUN_OUT, "has run out")),
        ),
    ),
    columns=(
        Column(
            "instance",
            "Instance",
            lambda row: Link(row.of.instance, instance_path(row.of.instance), opens=True),
            sortable=True,
        ),
        Column(
            "level",
            "Level",
            lambda row: Mark(level_word(row.of.level), TONES[row.of.level]),
            sortable=True,
            starts="down",
        ),
        Column("ratio", "Times the usual (90 % interval)", lambda row: show_ratio(row.of), numeric=True),
        Column(
            "chance",
            "More than twice the usual",
            lambda row: show_chance(row.of),
            sortable=True,
            starts="down",
            numeric=True,
        ),
        Column("images", "Images", lambda row: row.of.triage.media, numeric=True),
        Column("confirmed", "Incidents confirmed", lambda row: len(row.of.decision.incidents), numeric=True),
        Column("reason", "Why", lambda row: row.of.reasons[0]),
        Column("decision", "Decision", lambda row: show_decision(row.decision, row.now)),
    ),
)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is the same for everybody who looks at one assessment."""

    assessed: Assessed
    ranked: tuple[InstanceAssessment, ...]
    funnel: Funnel
    plot: Markup
    listed_alone: int


def instances_area() -> Area:
    """All instances, and each of them."""
    router = APIRouter()
    kept: list[_Prepared] = []

    def prepare(assessed: Assessed, database: Database) -> None:
        find_prepared(assessed)
        with database.reading() as connection:
            prepare_traces(connection)

    def find_prepared(assessed: Assessed) -> _Prepared:
        if not kept or kept[0].assessed is not assessed:
            ranked = sorted(assessed.assessment, key=lambda each: (-each.level, each.instance))
            funnel = make_funnel(assessed.assessment)
            listed = assessed.known.listed
            alone = sum(not each.of.triage.flagged and each.of.instance in listed for each in funnel.points)
            kept[:] = [_Prepared(assessed, tuple(ranked), funnel, draw_funnel(funnel), alone)]
        return kept[0]

    @router.get("/instances", response_model=None)
    def show(here: Here) -> Response:
        prepared = find_prepared(here.site.assessor.newest())
        with here.site.database.reading() as connection:
            decisions = read_decisions(connection)
        assessment = prepared.assessed.assessment
        selection = here.select(TABLE)
        found = _choose(prepared.ranked, decisions, selection, here.now_ms)
        every = float(assessment.table.media.sum())
        return here.show(
            "instances.html",
            TABLE,
            selection,
            found,
            funnel=prepared.funnel,
            plot=prepared.plot,
            listed_alone=prepared.listed_alone,
            legend=[(level_word(level), draw_shape(level)) for level in Level],
            unattributed=assessment.unattributed_media / every if every else None,
            at=assessment.at,
            made_at=prepared.assessed.made_at,
            least=assessment.rules.least_media,
            prior=assessment.usual.prior,
        )

    add_instance_routes(router)
    return Area("Instances", "/instances", Role.VIEWER, router, prepare)


def _choose(
    ranked: tuple[InstanceAssessment, ...], decisions: Mapping[str, InForce], selection: Selection, now: int
) -> Rows[InstanceRow]:
    """Those that match, in order, the part that is wanted: cells are made for that part alone."""
    query, level, decided = _query(selection.term("q")), selection.term("level"), selection.term("decision")
    found = [
        each
        for each in ranked
        if any(part in each.instance for part in query)
        and (not level or each.level == int(level))
        and (not decided or _is_decided(decisions.get(each.instance), decided, now))
    ]
    if selection.order == "instance":
        found.sort(key=lambda each: each.instance, reverse=selection.down)
    elif selection.order == "chance":
        found.sort(key=lambda each: each.instance)
        found.sort(key=lambda each: each.triage.chance if is_comparable(each) else -1.0, reverse=selection.down)
    elif not selection.down:
        found.sort(key=lambda each: (each.level, each.instance))
    part = found[selection.start : selection.start + selection.size]
    return Rows([InstanceRow(each, decisions.get(each.instance), now) for each in part], len(found))


def _query(term: str) -> tuple[str, ...]:
    """What to look for in domains: as it was typed, and in their form."""
    typed = term.lower()
    try:
        return (typed, normalise_domain(typed)) if typed else ("",)
    except NotADomain:
        return (typed,)


def _is_decided(decision: InForce | None, wanted: str, now: int) -> bool:
    if decision is None:
        return wanted == _UNDECIDED
    if wanted == _RUN_OUT:
        return decision.has_expired(now)
    return decision.action == wanted and not decision.has_expired(now)
