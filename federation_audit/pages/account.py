"""The user's own page: password, sessions, colours and keys."""

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import Response

from federation_audit.accounts.errors import AccountError, PasswordRefused, PasswordWrong, TooManyAttempts
from federation_audit.accounts.passwords import LENGTH_LEAST
from federation_audit.accounts.roles import Role
from federation_audit.pages.site import Area
from federation_audit.pages.visits import OWN_PASSWORD, Here, Visit

_FIELD = Form(max_length=1_000)


def account_area() -> Area:
    """For everybody who is logged in; reached by the user's name at the top."""
    router = APIRouter()

    def page(here: Visit, fault: AccountError | None = None, *, status: int = 200) -> Response:
        return here.page(
            "account.html",
            "Your account",
            status=status,
            fault=str(fault or ""),
            fault_field=_field_of(fault),
            sessions=here.site.sessions.of(here.user),
            own_key=here.own_session.key,
            least=LENGTH_LEAST,
        )

    @router.get(OWN_PASSWORD, response_model=None)
    def show(here: Here) -> Response:
        return page(here)

    @router.post("/account/password", response_model=None)
    def change(
        here: Here,
        current: Annotated[str, _FIELD] = "",
        password: Annotated[str, _FIELD] = "",
        again: Annotated[str, _FIELD] = "",
    ) -> Response:
        user, session = here.user, here.own_session
        try:
            if password != again:
                raise _Different("The two new passwords differ. Type them again.")
            if password == current:
                raise PasswordRefused("This is the old password. Take a new one.")
            here.site.sessions.verify(user, current, network=here.network)
            here.site.users.set_password(
                user.name, password, by=here.actor, must_change=False, keep_session=session.key
            )
        except TooManyAttempts:
            raise
        except AccountError as error:
            return page(here, error, status=422)
        return here.goto(OWN_PASSWORD, "password")

    @router.post("/account/elsewhere", response_model=None)
    def end_others(here: Here) -> Response:
        here.site.sessions.end_others(here.own_session, by=here.actor)
        return here.goto(OWN_PASSWORD, "elsewhere")

    return Area("", OWN_PASSWORD, Role.VIEWER, router)


class _Different(AccountError):
    field = "again"


def _field_of(fault: AccountError | None) -> str:
    """Which field of the form a fault is about."""
    if isinstance(fault, PasswordWrong):
        return "current"
    return fault.field if fault is not None else ""
