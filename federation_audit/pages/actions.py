"""The log of actions, for admins."""

from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection, Select, func, select
from starlette.responses import Response

from federation_audit.accounts.actions import Action, as_action
from federation_audit.accounts.roles import Role
from federation_audit.accounts.tables import ACTIONS
from federation_audit.pages.cells import Cell, Moment, Said
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Rows, Selection, Table, ordered
from federation_audit.pages.visits import Here

_NOBODY = "nobody (not logged in)"


def _detail(action: Action) -> Cell:
    if not action.detail:
        return ""
    return Said("; ".join(f"{name}: {value}" for name, value in action.detail.items()), cut=160)


TABLE: Table[Action] = Table(
    name="actions",
    title="Actions",
    order="-at",
    empty="No action matches. Clear the filters to see all.",
    filters=(
        Filter("who", "Who", hint="a user's name"),
        Filter("what", "What", hint="such as login"),
        Filter("about", "About"),
    ),
    columns=(
        Column("at", "When", lambda action: Moment(action.at), sortable=True, starts="down"),
        Column("who", "Who", lambda action: action.who or _NOBODY, sortable=True),
        Column("what", "What", lambda action: action.what, sortable=True),
        Column("about", "About", lambda action: Said(action.about) if action.about else ""),
        Column("detail", "More", _detail),
        Column("network", "From", lambda action: action.network or "this machine"),
    ),
)


def actions_area() -> Area:
    """The log of actions, for admins."""
    router = APIRouter()

    @router.get("/actions", response_model=None)
    def show(here: Here) -> Response:
        selection = here.select(TABLE)
        with here.site.database.reading() as connection:
            found = _find(connection, selection)
        return here.show("actions.html", TABLE, selection, found)

    return Area("Actions", "/actions", Role.ADMIN, router)


def _find(connection: Connection, selection: Selection) -> Rows[Action]:
    def matching(statement: Select[Any]) -> Select[Any]:
        for key, column in (("who", ACTIONS.c.who), ("what", ACTIONS.c.what), ("about", ACTIONS.c.about)):
            if term := selection.term(key):
                statement = statement.where(column.icontains(term, autoescape=True))
        return statement

    total = connection.execute(matching(select(func.count()).select_from(ACTIONS))).scalar_one()
    columns = {"at": ACTIONS.c.at, "who": ACTIONS.c.who, "what": ACTIONS.c.what}
    rows = connection.execute(ordered(matching(select(ACTIONS)), selection, columns, last=ACTIONS.c.id))
    return Rows([as_action(row) for row in rows], total)
