"""Decisions: what waits for one, what is in force, what comes back; and the page on which one is taken."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Form
from pydantic import BaseModel, Field
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
    """A row: a recommendation that waits (`taken` is None), or a decision."""

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


_Text = Annotated[str, Field(max_length=20_000)]


class Entered(BaseModel):
    """What the forms about an instance have; each has some of it. `back` is the page that it stands on."""

    action: _Text = ""
    reason: _Text = ""
    days: _Text = ""
    instead_of: _Text = ""
    number: _Text = ""
    text: _Text = ""
    way: _Text = ""
    day: _Text = ""
    address: _Text = ""
    value: _Text = ""
    back: _Text = ""


Write = Callable[[Connection, Visit, str, Entered], object]
"""Writes what was entered about a domain. Raises `NotDecided`."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A form: where it is sent to below a domain's path, what it writes, and what is said then. `name` is what its
    template knows it by when it is shown again."""

    path: str
    name: str
    write: Write
    said: str
    least: Role = Role.ADMIN


def _decide(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    decide(
        connection,
        here.actor,
        domain,
        _action(entered.action),
        entered.reason,
        level=level_of(here.site.assessor.newest(), domain),
        days=_days(entered.days),
        at=here.now_ms,
        instead_of=_number(entered.instead_of) if entered.instead_of else None,
    )


def _withdraw(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    withdraw(connection, here.actor, _number(entered.number), of=domain, at=here.now_ms)


def _note(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    note(connection, here.actor, domain, entered.text, at=here.now_ms)


def _letter(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    day = _day(entered.day, "sent")
    write_down_letter(connection, here.actor, domain, entered.way, sent=day, at=here.now_ms)


def _answer(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    day = _day(entered.day, "answered")
    write_down_answer(connection, here.actor, domain, _number(entered.number), day=day, at=here.now_ms)


def _cleanup(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    write_down_cleanup(connection, here.actor, domain, day=_day(entered.day, "day"), at=here.now_ms)


def _no_cleanup(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    take_back_cleanup(connection, here.actor, domain, _number(entered.number), at=here.now_ms)


def _address(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    give_address(connection, here.actor, domain, entered.address, at=here.now_ms)


def _no_address(connection: Connection, here: Visit, domain: str, entered: Entered) -> None:
    take_away_address(connection, here.actor, domain, entered.value, at=here.now_ms)


_FORMS: Final = (
    _Form("", "decide", _decide, "decided"),
    _Form("/withdraw", "withdraw", _withdraw, "withdrawn"),
    _Form("/notes", "note", _note, "kept", Role.REVIEWER),
    _Form("/letters", "letter", _letter, "kept"),
    _Form("/letters/answered", "answer", _answer, "kept"),
    _Form("/cleanups", "cleanup", _cleanup, "cleaned"),
    _Form("/cleanups/remove", "no cleanup", _no_cleanup, "cleaned"),
    _Form("/addresses", "address", _address, "kept"),
    _Form("/addresses/remove", "no address", _no_address, "kept"),
)


def _taker(form: _Form) -> Callable[..., Response]:
    """The route that a form is sent to: it writes, and goes back; what cannot be written is shown as it was typed."""

    def take_form(here: Here, domain: str, entered: Annotated[Entered, Form()]) -> Response:
        must_be(here, form.least)
        name = known_domain(domain)
        here.site.assessor.newest()  # the first takes a while: not while nobody else can write
        try:
            with here.site.database.writing() as connection:
                form.write(connection, here, name, entered)
        except NotDecided as error:
            return one(here, name, fault=error, typed={"form": form.name, **entered.model_dump()})
        path = own_path(entered.back).partition("?")[0]
        return here.goto(path if path != "/" else path_of(name), form.said)

    return take_form


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

    for form in _FORMS:
        router.add_api_route(f"/decisions/{{domain}}{form.path}", _taker(form), methods=["POST"], response_model=None)

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


def _lines(here: Visit, *, over: bool) -> list[Line]:
    assessed = here.site.assessor.newest()
    with here.site.database.reading() as connection:
        standing = open_decisions(connection)
        past = [each for each in every_decision(connection) if each.ended_at is not None] if over else []
    waits = [
        Line(each.instance, Level(int(each.level)), None, _WAITING)
        for each in waiting(assessed.assessment, {each.domain for each in standing})
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
