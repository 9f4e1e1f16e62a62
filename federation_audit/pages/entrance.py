"""Coming and going: the start page, the login, the logout, and how the pages look in this browser."""

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import Response

from federation_audit.accounts.errors import PasswordWrong, TooManyAttempts
from federation_audit.accounts.users import is_anybody_there
from federation_audit.pages.cookies import LOOKS
from federation_audit.pages.site import Area
from federation_audit.pages.visits import Here, own_path

_FIELD = Form(max_length=1_000)


def entrance_area() -> Area:
    """For everybody; not in the navigation."""
    router = APIRouter(default_response_class=Response)

    @router.get("/", response_model=None)
    def start(here: Here) -> Response:
        """The first page that the user's role may see."""
        areas = here.site.open_to(here.user.role)
        return here.goto(areas[0].path if areas and not here.user.must_change else "/account")

    @router.get("/login", response_model=None)
    def ask(here: Here, next: str = "") -> Response:  # noqa: A002  # the query's name
        # The cookie is not sent along when one comes from another site (a mail's link): then this page offers to go on.
        from_elsewhere = here.request.headers.get("sec-fetch-site") == "cross-site"
        if here.session is not None:
            return here.goto(own_path(next))
        return _ask_to_log_in(here, next, from_elsewhere=from_elsewhere)

    @router.post("/login", response_model=None)
    def log_in(
        here: Here,
        name: Annotated[str, _FIELD] = "",
        password: Annotated[str, _FIELD] = "",
        next: Annotated[str, _FIELD] = "",  # noqa: A002  # the field's name
    ) -> Response:
        site = here.site
        try:
            token = site.sessions.log_in(name, password, network=here.network)
        except (PasswordWrong, TooManyAttempts) as error:
            held_back = isinstance(error, TooManyAttempts)
            answer = _ask_to_log_in(here, next, status=429 if held_back else 403, name=name, fault=str(error))
            if isinstance(error, TooManyAttempts):
                answer.headers["retry-after"] = str(error.retry_s)
            return answer
        if here.session is not None:
            site.sessions.end(here.session, by=here.actor)
        here.keep(site.jar.written(site.jar.session, token))
        here.keep(site.jar.dropped(site.jar.visit))
        return here.goto(own_path(next))

    @router.post("/logout", response_model=None)
    def log_out(here: Here) -> Response:
        if here.session is not None:
            here.site.sessions.end(here.session, by=here.actor)
        here.keep(here.site.jar.dropped(here.site.jar.session))
        return here.goto("/login", "logout")

    @router.post("/look", response_model=None)
    def set_look(
        here: Here,
        look: Annotated[str, _FIELD] = "",
        keys: Annotated[str, _FIELD] = "",
        back: Annotated[str, _FIELD] = "/",
    ) -> Response:
        jar = here.site.jar
        if look in LOOKS:
            here.keep(jar.written(jar.look, look, lasting=True))
        if keys in ("on", "off"):
            here.keep(jar.written(jar.keys, keys, lasting=True))
        return here.goto(own_path(back))

    return Area("", "/", None, router)


def _ask_to_log_in(
    here: Here,
    next: str,  # noqa: A002  # as the form names it
    *,
    status: int = 200,
    name: str = "",
    fault: str = "",
    from_elsewhere: bool = False,
) -> Response:
    with here.site.database.reading() as connection:
        nobody = not is_anybody_there(connection)
    return here.page(
        "login.html",
        "Log in",
        status=status,
        next=own_path(next),
        name=name,
        fault=fault,
        from_elsewhere=from_elsewhere,
        nobody=nobody,
    )
