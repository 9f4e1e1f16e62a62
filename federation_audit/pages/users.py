"""Users, for admins: who there is, a new one, a role, a new password, the removal."""

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import Response

from federation_audit.accounts.errors import AccountError, NameRefused
from federation_audit.accounts.passwords import make_password
from federation_audit.accounts.roles import Role
from federation_audit.accounts.users import User
from federation_audit.pages.cells import Link, Mark, Moment
from federation_audit.pages.site import Area
from federation_audit.pages.table import Column, Filter, Table, take
from federation_audit.pages.visits import Here, Visit

_FIELD = Form(max_length=1_000)
ROLES = tuple(Role)
MEANINGS = {
    Role.VIEWER: "reads",
    Role.REVIEWER: "reads, and judges what is in the queue",
    Role.ADMIN: "all of it, decisions and users too",
}

TABLE: Table[User] = Table(
    name="users",
    title="Users",
    order="name",
    empty="No user matches. Clear the search to see all.",
    filters=(
        Filter("q", "Name contains"),
        Filter("role", "Role", tuple((role.value, role.value) for role in ROLES)),
    ),
    columns=(
        Column("name", "Name", lambda user: Link(user.name, f"/users/{user.name}", opens=True), sortable=True),
        Column("role", "Role", lambda user: user.role.value, sortable=True),
        Column(
            "password",
            "Password",
            lambda user: Mark("to be changed", "watch") if user.must_change else "their own",
        ),
        Column("login", "Last login", lambda user: Moment(user.login_at) if user.login_at else "never"),
        Column("created", "Added", lambda user: Moment(user.created_at), sortable=True, starts="down"),
    ),
)


def users_area() -> Area:
    """Users, for admins."""
    router = APIRouter()

    def overview(here: Visit, fault: AccountError | None = None, name: str = "", role: str = "viewer") -> Response:
        selection = here.select(TABLE)
        query, wanted = selection.term("q").lower(), selection.term("role")
        found = take(
            here.site.users.all(),
            TABLE,
            selection,
            lambda user: query in user.name and wanted in ("", user.role.value),
        )
        answer = here.show(
            "users.html", TABLE, selection, found, fault=str(fault or ""), name=name, role=role, meanings=MEANINGS
        )
        answer.status_code = 422 if fault else 200
        return answer

    def one(here: Visit, name: str, fault: str = "") -> Response:
        user = here.site.users.find(name)
        return here.page(
            "user.html", f"User {user.name}", status=422 if fault else 200, other=user, fault=fault, meanings=MEANINGS
        )

    @router.get("/users", response_model=None)
    def show(here: Here) -> Response:
        return overview(here)

    @router.post("/users", response_model=None)
    def add(here: Here, name: Annotated[str, _FIELD] = "", role: Annotated[str, _FIELD] = "") -> Response:
        password = make_password()
        try:
            user = here.site.users.add(name, _role(role), password, by=here.actor, must_change=True)
        except AccountError as error:
            return overview(here, error, name, role)
        return here.page("first_password.html", f"{user.name} was added", other=user, password=password)

    @router.get("/users/{name}", response_model=None)
    def show_one(here: Here, name: str) -> Response:
        return one(here, name)

    @router.post("/users/{name}/role", response_model=None)
    def change_role(here: Here, name: str, role: Annotated[str, _FIELD] = "") -> Response:
        try:
            here.site.users.set_role(name, _role(role), by=here.actor)
        except AccountError as error:
            return one(here, name, str(error))
        return here.goto(f"/users/{name}" if name != here.user.name else "/", "role")

    @router.post("/users/{name}/password", response_model=None)
    def new_password(here: Here, name: str) -> Response:
        user, password = here.site.users.find(name), make_password()
        if user.name == here.user.name:
            return here.goto("/account")
        here.site.users.set_password(user.name, password, by=here.actor, must_change=True)
        return here.page("first_password.html", f"{user.name} has a new password", other=user, password=password)

    @router.post("/users/{name}/remove", response_model=None)
    def remove(here: Here, name: str, sure: Annotated[str, _FIELD] = "") -> Response:
        if sure != "yes":
            return one(here, name, "Tick the box if the user is to be removed.")
        try:
            here.site.users.remove(name, by=here.actor)
        except AccountError as error:
            return one(here, name, str(error))
        return here.goto("/users" if name != here.user.name else "/login", "removed")

    return Area("Users", "/users", Role.ADMIN, router)


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise _RoleUnknown(f"Choose a role: {', '.join(ROLES)}.") from None


class _RoleUnknown(NameRefused):
    field = "role"
