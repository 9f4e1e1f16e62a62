"""Decisions: what waits for one, what is in force, what comes back; and the page on which one is taken."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Form
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from federation_audit.accounts.roles import Role
from federation_audit.cases import Action, Level
from federation_audit.deciding.addresses import give_address, keep_found, take_away_address
from federation_audit.deciding.decisions import (
    EXPIRING_DAYS,
    State,
    Taken,
    decide,
    every_decision,
    open_decisions,
    withdraw,
)
from federation_audit.deciding.errors import DecidedMeanwhile, NotDecided, NotThere
from federation_audit.deciding.letters import write_down_answer, write_down_letter
from federation_audit.deciding.notes import note
from federation_audit.deciding.recommending import waiting
from federation_audit.deciding.remediations import take_back_cleanup, write_down_cleanup
from federation_audit.pages.asking import ask_for_contacts
from federation_audit.pages.caseload import LEVELS, level_mark, level_of
from federation_audit.pages.cells import Cell, Link, Mark, Moment, Said, Tone
from federation_audit.pages.people import ACTIONS, STATES, people_of
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Selection, Table, take
from federation_audit.pages.visits import Forbidden, Here, Visit, own_path
from schemas.domains import NotADomain, normalise_domain

TEXT = Form(max_length=20_000)
_WAITING: Final = "waiting"
_TONES: Final[dict[str, Tone]] = {_WAITING: "bad", **{state.value: tone for state, tone in STATES.items()}}
_ORDER: Final = (_WAITING, *(each.value for each in (State.DUE, State.EXPIRING, State.IN_FORCE, State.OVER)))
_MEANING: Final = {
    _WAITING: "recommended, and nobody has decided",
    State.DUE.value: "their time is over: decide anew, or let them go",
    State.EXPIRING.value: f"in force, for {EXPIRING_DAYS} days at most",
    State.IN_FORCE.value: "in force",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A row: a recommendation that waits (`taken` is None, or due), or a decision."""

    domain: str
    level: Level
    taken: Taken | None
    state: str


def _decided(line: Line) -> Cell:
    return ACTIONS[line.taken.action][0] if line.taken else "nothing yet"


def _until(line: Line) -> Cell:
    if line.taken is None:
        return ""
    return Moment(line.taken.until) if line.taken.until else "no end"


TABLE: Table[Line] = Table(
    name="decisions",
    title="Decisions",
    order="state",
    empty="Nothing here: no recommendation waits, and no decision matches.",
    filters=(
        Filter("q", "Instance contains"),
        Filter("state", "State", tuple((each, each) for each in _ORDER)),
        Filter("action", "Decided", tuple((each.value, word) for each, (word, _) in ACTIONS.items())),
    ),
    columns=(
        Column(
            "instance",
            "Instance",
            lambda line: Link(Said(line.domain), path_of(line.domain), opens=True),
            sortable=True,
        ),
        Column("state", "State", lambda line: Mark(line.state, _TONES[line.state]), sortable=True),
        Column("level", "Evidence now", lambda line: level_mark(line.level)),
        Column("decision", "Decided", _decided, sortable=True),
        Column(
            "reason", "Reason", lambda line: Said(" ".join(line.taken.reason.split()), cut=120) if line.taken else ""
        ),
        Column("by", "By", lambda line: line.taken.by if line.taken else "", sortable=True),
        Column("at", "When", lambda line: Moment(line.taken.at) if line.taken else "", sortable=True, starts="down"),
        Column("until", "Until", _until, sortable=True),
    ),
)


def path_of(domain: str) -> str:
    """The page on which `domain` is decided about."""
    return f"/decisions/{quote(domain, safe='')}"


def known_domain(text: str) -> str:
    """A path's domain in our form. Raises 404."""
    try:
        return normalise_domain(text)
    except NotADomain:
        raise HTTPException(404) from None


def must_be(here: Visit, least: Role) -> None:
    """Return when the user's role includes `least`. Raises `Forbidden`."""
    if not here.user.role.includes(least):
        raise Forbidden(here.user, least)


def decisions_area() -> Area:
    """Decisions: everybody reads, admins decide."""
    router = APIRouter()

    @router.get("/decisions", response_model=None)
    def show(here: Here) -> Response:
        selection = here.select(TABLE)
        lines = _lines(here, over=selection.term("state") == State.OVER.value)
        counts = [(each, sum(line.state == each for line in lines), _MEANING[each]) for each in _MEANING]
        found = take(sorted(lines, key=_urgency), _table(selection), selection, lambda line: _matches(line, selection))
        return here.show("decisions.html", TABLE, selection, found, counts=counts, tones=_TONES)

    @router.get("/decisions/{domain}", response_model=None)
    def show_one(here: Here, domain: str) -> Response:
        name = known_domain(domain)
        return one(here, name) if name == domain else RedirectResponse(path_of(name), 303)

    @router.post("/decisions/{domain}", response_model=None)
    def decide_on(
        here: Here,
        domain: str,
        action: Annotated[str, TEXT] = "",
        reason: Annotated[str, TEXT] = "",
        days: Annotated[str, TEXT] = "",
        instead_of: Annotated[str, TEXT] = "",
        back: Annotated[str, TEXT] = "",
    ) -> Response:
        typed = {"form": "decide", "action": action, "reason": reason, "days": days}
        level = level_of(here.site.assessor.newest(), known_domain(domain))

        def write(connection: Connection, name: str) -> None:
            decide(
                connection,
                here.actor,
                name,
                _action(action),
                reason,
                level=level,
                days=_days(days),
                at=here.now_ms,
                instead_of=_number(instead_of) if instead_of else None,
            )

        return change(here, domain, write, "decided", back, typed)

    @router.post("/decisions/{domain}/withdraw", response_model=None)
    def withdraw_it(
        here: Here, domain: str, number: Annotated[str, TEXT] = "", back: Annotated[str, TEXT] = ""
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: withdraw(connection, here.actor, _number(number), of=name, at=here.now_ms),
            "withdrawn",
            back,
        )

    @router.post("/decisions/{domain}/notes", response_model=None)
    def keep_note(
        here: Here, domain: str, text: Annotated[str, TEXT] = "", back: Annotated[str, TEXT] = ""
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: note(connection, here.actor, name, text, at=here.now_ms),
            "kept",
            back,
            {"form": "note", "text": text},
            least=Role.REVIEWER,
        )

    @router.post("/decisions/{domain}/letters", response_model=None)
    def keep_letter(
        here: Here,
        domain: str,
        way: Annotated[str, TEXT] = "",
        day: Annotated[str, TEXT] = "",
        back: Annotated[str, TEXT] = "",
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: write_down_letter(
                connection, here.actor, name, way, sent=_day(day, "sent"), at=here.now_ms
            ),
            "kept",
            back,
            {"form": "letter", "way": way, "day": day},
        )

    @router.post("/decisions/{domain}/letters/answered", response_model=None)
    def keep_answer(
        here: Here,
        domain: str,
        number: Annotated[str, TEXT] = "",
        day: Annotated[str, TEXT] = "",
        back: Annotated[str, TEXT] = "",
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: write_down_answer(
                connection, here.actor, name, _number(number), day=_day(day, "answered"), at=here.now_ms
            ),
            "kept",
            back,
            {"form": "answer", "number": number},
        )

    @router.post("/decisions/{domain}/cleanups", response_model=None)
    def keep_cleanup(
        here: Here, domain: str, day: Annotated[str, TEXT] = "", back: Annotated[str, TEXT] = ""
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: write_down_cleanup(
                connection, here.actor, name, day=_day(day, "day"), at=here.now_ms
            ),
            "cleaned",
            back,
            {"form": "cleanup", "day": day},
        )

    @router.post("/decisions/{domain}/cleanups/remove", response_model=None)
    def remove_cleanup(
        here: Here, domain: str, number: Annotated[str, TEXT] = "", back: Annotated[str, TEXT] = ""
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: take_back_cleanup(connection, here.actor, name, _number(number), at=here.now_ms),
            "cleaned",
            back,
        )

    @router.post("/decisions/{domain}/addresses", response_model=None)
    def keep_address(
        here: Here, domain: str, address: Annotated[str, TEXT] = "", back: Annotated[str, TEXT] = ""
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: give_address(connection, here.actor, name, address, at=here.now_ms),
            "kept",
            back,
            {"form": "address", "address": address},
        )

    @router.post("/decisions/{domain}/addresses/remove", response_model=None)
    def remove_address(
        here: Here, domain: str, value: Annotated[str, TEXT] = "", back: Annotated[str, TEXT] = ""
    ) -> Response:
        return change(
            here,
            domain,
            lambda connection, name: take_away_address(connection, here.actor, name, value, at=here.now_ms),
            "kept",
            back,
        )

    @router.post("/decisions/{domain}/addresses/find", response_model=None)
    def find_addresses(here: Here, domain: str) -> Response:
        must_be(here, Role.ADMIN)
        name = known_domain(domain)
        asked = ask_for_contacts(name, here.site.surroundings.audit.contacts)
        if asked.found is not None:
            contacts = asked.found.contacts
            with here.site.database.writing() as connection:
                keep_found(connection, here.actor, name, contacts, at=here.now_ms)
        return one(here, name, asked=asked, status=200 if asked.found is not None else 409)

    return Area("Decisions", "/decisions", Role.VIEWER, router)


def one(
    here: Visit,
    domain: str,
    *,
    fault: NotDecided | None = None,
    typed: dict[str, str] | None = None,
    asked: object = None,
    status: int = 200,
) -> Response:
    """The page of `domain`."""
    assessed = here.site.assessor.newest()
    found = assessed.assessment.instances.get(domain)
    if fault is not None:
        status = 409 if isinstance(fault, DecidedMeanwhile | NotThere) else 422
    return here.page(
        "decision.html",
        domain,
        status=status,
        domain=domain,
        assessed=found,
        made_at=assessed.made_at,
        level=level_of(assessed, domain),
        levels=LEVELS,
        asked=asked,
        people=people_of(here, domain, typed=typed, fault=fault),
    )


def change(
    here: Visit,
    domain: str,
    write: Callable[[Connection, str], object],
    said: str,
    back: str,
    typed: dict[str, str] | None = None,
    *,
    least: Role = Role.ADMIN,
) -> Response:
    """Write, and go back; what cannot be written is shown with what was typed."""
    must_be(here, least)
    name = known_domain(domain)
    try:
        with here.site.database.writing() as connection:
            write(connection, name)
    except NotDecided as error:
        return one(here, name, fault=error, typed=typed)
    path = own_path(back).partition("?")[0]
    return here.goto(path if path != "/" else path_of(name), said)


def _lines(here: Visit, *, over: bool) -> list[Line]:
    assessed = here.site.assessor.newest()
    with here.site.database.reading() as connection:
        standing = open_decisions(connection)
        past = [each for each in every_decision(connection) if each.ended_at is not None] if over else []
    in_force = {each.domain for each in standing if each.binds(here.now_ms)}
    due = {each.domain: each for each in standing if not each.binds(here.now_ms)}
    waits = [
        Line(each.instance, Level(int(each.level)), due.get(each.instance), _WAITING)
        for each in waiting(assessed.assessment, in_force)
        if each.instance not in due
    ]
    decided = [
        Line(each.domain, level_of(assessed, each.domain), each, each.state(here.now_ms).value)
        for each in [*standing, *past]
    ]
    return [*waits, *decided]


def _urgency(line: Line) -> tuple[Any, ...]:
    until = (line.taken.until if line.taken else None) or 0
    return _ORDER.index(line.state), -line.level, until, line.domain


def _table(selection: Selection) -> Table[Line]:
    """The table as `take` orders it: cells that hold words where there is no moment cannot be compared."""
    rank = _RANKS.get(selection.order)
    if rank is None:
        return TABLE
    return Table(TABLE.name, TABLE.title, (Column(selection.order, "", rank),), TABLE.order, TABLE.empty)


_RANKS: Final[dict[str, Callable[[Line], Cell]]] = {
    "state": lambda line: _ORDER.index(line.state),
    "at": lambda line: line.taken.at if line.taken else None,
    "until": lambda line: line.taken.until if line.taken else None,
}


def _matches(line: Line, selection: Selection) -> bool:
    action = line.taken.action.value if line.taken else ""
    return (
        selection.term("q").lower() in line.domain
        and selection.term("state") in ("", line.state)
        and selection.term("action") in ("", action)
    )


def _action(text: str) -> Action:
    try:
        return Action(text)
    except ValueError:
        raise NotDecided("Choose what is to be done.", "action") from None


def _days(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise NotDecided("Write a number of days, such as 90.", "days")
    return int(text)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else -2


def _day(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise NotDecided("Write the day as 2026-11-28.", field) from None
