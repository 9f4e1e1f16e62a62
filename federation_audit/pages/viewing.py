"""Pictures for those who must judge them: off unless an admin turned them on, veiled, one at a time, on record."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Form
from sqlalchemy import Connection, Select, func, select
from starlette.responses import Response

from federation_audit.accounts.roles import Role
from federation_audit.pages.cells import Link, Mark, Moment, Said
from federation_audit.pages.failures import fail
from federation_audit.pages.site import Area, Site
from federation_audit.pages.table import Column, Filter, Rows, Selection, Table, ordered
from federation_audit.pages.visits import Forbidden, Here, Visit
from federation_audit.viewing.archive import NoFrames, open_frames
from federation_audit.viewing.media import Hidden, Medium, picture_path, read_medium
from federation_audit.viewing.settings import ViewingSettings
from federation_audit.viewing.tables import VIEWS
from federation_audit.viewing.tickets import HOLD_S, Tickets
from federation_audit.viewing.veils import VEILS, FrameUnreadable, Veil, veil
from federation_audit.viewing.views import (
    REASON_MOST,
    View,
    ViewRefused,
    as_view,
    check_reason,
    check_view,
    count_views,
    pictures_today,
    reached,
    record_view,
    steps_from,
    views_of,
)

_FIELD = Form()
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRAMES_MOST = 8

SHOWN = {Veil.BLURRED: "grey, strongly blurred", Veil.GREY: "grey, blurred", Veil.PLAIN: "as it is"}
_ASKED = {
    Veil.BLURRED: "Show it grey and strongly blurred",
    Veil.GREY: "Show it less blurred, still grey",
    Veil.PLAIN: "Show it as it is",
}
_WHY = {
    Hidden.REJECTED: "This picture was rejected. The frames of rejected pictures are erased, from the queue within"
    " minutes and from the archive within the hour, and never kept for looking at: nobody here can see them, and nobody"
    " has to. Decide by the rules, the scores and the origin.",
    Hidden.DENIED: "An override denies this picture. Its frames are erased as those of a rejected one.",
    Hidden.REMOVED: "This picture was removed from the image store, and its frames are erased.",
    Hidden.NOT_SCANNED: "No scanner has judged this picture (a list or an answer named it), so that none of its frames"
    " were kept.",
}
OFF = (
    "Looking at pictures is off. An admin can turn it on with the setting audit.viewing.enabled; docs/viewing.md says"
    " what that means."
)

TABLE: Table[View] = Table(
    name="views",
    title="Who looked at pictures",
    order="-at",
    empty="Nobody has looked at a picture.",
    filters=(
        Filter("q", "Why contains"),
        Filter("who", "Who", hint="a user's name"),
        Filter("veil", "How", tuple((each.value, SHOWN[each]) for each in VEILS)),
    ),
    columns=(
        Column("at", "When", lambda view: Moment(view.at), sortable=True, starts="down"),
        Column("who", "Who", lambda view: view.who, sortable=True),
        Column(
            "picture",
            "Picture",
            lambda view: Link(
                f"{view.tenant}/{view.sha256.hex()[:12]}", picture_path(view.tenant, view.sha256), opens=True
            ),
        ),
        Column("why", "Why", lambda view: Said(view.reason)),
        Column("how", "How", lambda view: shown_as(view.veil)),
        Column("sha256", "SHA-256", lambda view: Said(view.sha256.hex(), cut=12)),
        Column("scan", "Scan", lambda view: Said(view.scan_id, cut=16)),
    ),
)


def viewing_link(here: Visit, tenant: str, sha256: bytes) -> str | None:
    """Where this picture can be looked at; None where pictures are off, or not for the role of who is there."""
    settings = here.site.surroundings.audit.viewing
    if not _is_on(here.site) or not here.user.role.includes(Role(settings.least_role)):
        return None
    return picture_path(tenant, sha256)


def shown_as(name: str) -> Mark:
    """A veil in a table."""
    return Mark(SHOWN[Veil(name)], "warn" if name == Veil.PLAIN else "plain")


def viewing_area(*, listed: bool = True) -> Area:
    """Pictures, and who looked at them. `listed`: whether that stands in the navigation."""
    router = APIRouter()
    tickets = Tickets()

    @router.get("/views", response_model=None)
    def show_views(here: Here) -> Response:
        selection = here.select(TABLE)
        everybody = here.user.role.includes(Role.ADMIN)
        with here.site.database.reading() as connection:
            found = _find(connection, selection, None if everybody else here.user.name)
        return here.show(
            "views.html", TABLE, selection, found, everybody=everybody, off="" if _is_on(here.site) else OFF
        )

    @router.get("/picture/{tenant}/{sha256}", response_model=None)
    def show_page(here: Here, tenant: str, sha256: str) -> Response:
        medium = _medium(here, tenant, sha256)
        return medium if isinstance(medium, Response) else _page(here, medium)

    @router.post("/picture/{tenant}/{sha256}", response_model=None)
    def look(
        here: Here,
        tenant: str,
        sha256: str,
        reason: Annotated[str, _FIELD] = "",
        step: Annotated[str, _FIELD] = "",
        frame: Annotated[str, _FIELD] = "",
        sure: Annotated[str, _FIELD] = "",
    ) -> Response:
        medium = _medium(here, tenant, sha256)
        if isinstance(medium, Response):
            return medium
        try:
            how, kept = _step(step), check_reason(reason)
            if how is not Veil.BLURRED and sure != "yes":
                raise ViewRefused("Tick the box if you need to see more of it. Nothing was shown.")
            picture, number, count = _look(here, medium, how, reason=kept, frame=_frame(frame, medium))
        except ViewRefused as refused:
            return _page(here, medium, fault=str(refused), reason=reason)
        except NoFrames as missing:
            return _page(here, medium, missing=str(missing), reason=reason)
        ticket = tickets.issue(here.own_session.key, picture)
        return _page(here, medium, reason=kept, shown=how, frame=number, frames=count, source=f"{medium.path}/{ticket}")

    @router.get("/picture/{tenant}/{sha256}/{ticket}", response_model=None)
    def give(here: Here, tenant: str, sha256: str, ticket: str) -> Response:
        headers = here.request.headers
        inside = headers.get("sec-fetch-dest", "image") == "image"  # never a page, a tab or a download of its own
        own = headers.get("sec-fetch-site", "same-origin") == "same-origin"
        picture = tickets.redeem(here.own_session.key, ticket) if inside and own else None
        if picture is None:
            return fail(
                here.request,
                404,
                f"A picture is given once, within {HOLD_S:.0f} seconds, to the page that asked for it.",
            )
        return Response(
            picture,
            media_type="image/jpeg",
            headers={
                "cache-control": "no-store",
                "content-disposition": 'inline; filename="veiled.jpg"',
                "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
                "cross-origin-resource-policy": "same-origin",
            },
        )

    return Area("Views" if listed else "", "/views", Role.REVIEWER, router)


def _is_on(site: Site) -> bool:
    around = site.surroundings
    return around.audit.viewing.enabled and around.broker is not None and around.keyring is not None


def _settings(here: Visit) -> ViewingSettings:
    return here.site.surroundings.audit.viewing


def _medium(here: Visit, tenant: str, sha256: str) -> Medium | Response:
    """The medium of an address, or the answer where there is none to look at. Raises `Forbidden`."""
    if not _is_on(here.site):
        return fail(here.request, 404, OFF)
    least = Role(_settings(here).least_role)
    if not here.user.role.includes(least):
        raise Forbidden(here.user, least)
    if _TENANT.fullmatch(tenant) and _SHA256.fullmatch(sha256):
        with here.site.database.reading() as connection:
            medium = read_medium(connection, tenant, bytes.fromhex(sha256))
        if medium is not None:
            return medium
    return fail(here.request, 404, "The audit knows no picture of this tenant and hash. Open it from its row.")


def _look(here: Visit, medium: Medium, how: Veil, *, reason: str, frame: int) -> tuple[bytes, int, int]:
    """The veiled picture, the number of its frame and how many there are; the look is on record when this returns.

    Raises `ViewRefused` or `NoFrames`: then nothing is to be shown.
    """
    settings, around = _settings(here), here.site.surroundings
    plain, most_a_day = settings.plain, settings.most_a_day
    if medium.hidden is not None:
        raise NoFrames(_WHY[medium.hidden])
    with here.site.database.reading() as connection:
        check_view(connection, here.user.name, medium, how, at=here.now_ms, plain=plain, most_a_day=most_a_day)
    assert around.broker is not None and around.keyring is not None
    frames = open_frames(around.broker, around.keyring, medium)
    number = min(frame, len(frames.jpegs) - 1)
    try:
        picture = veil(frames.jpegs[number], how)
    except FrameUnreadable as error:
        raise NoFrames(f"Frame {number + 1} cannot be read: {error}.") from error
    with here.site.database.writing() as connection:
        record_view(
            connection,
            here.actor,
            medium,
            how,
            scan_id=frames.scan_id,
            reason=reason,
            frame=number,
            at=here.now_ms,
            plain=plain,
            most_a_day=most_a_day,
        )
    return picture, number, len(frames.jpegs)


def _page(
    here: Visit, medium: Medium, *, fault: str = "", missing: str = "", reason: str = "", **shown: Any
) -> Response:
    """The medium's page; with a picture where `shown` has it."""
    settings = _settings(here)
    with here.site.database.reading() as connection:
        taken = reached(connection, here.user.name, medium, here.now_ms)
        looked = views_of(connection, medium.tenant, medium.sha256)
        count = count_views(connection, medium.tenant, medium.sha256)
        today = len(pictures_today(connection, here.user.name, here.now_ms))
    showing: Veil | None = shown.get("shown")
    steps = steps_from(taken, plain=settings.plain)
    why = _WHY[medium.hidden] if medium.hidden else missing
    sentences = here.site.surroundings.sentences
    return here.page(
        "picture.html",
        "Picture",
        status=422 if fault else 404 if missing else 200,
        medium=medium,
        rules=[(name, sentences.get(name, "")) for name in medium.rules],
        fault=fault,
        why=why,
        reason=reason,
        reason_most=REASON_MOST,
        showing=showing,
        shown_text=SHOWN[showing] if showing else "",
        source=shown.get("source", ""),
        frame=shown.get("frame", medium.frame),
        frames=shown.get("frames", 0),
        steps=[(each, _ASKED[each]) for each in steps],
        next_step=next(((each, _ASKED[each]) for each in steps if showing and each is _after(showing)), None),
        looked=looked,
        looks=count,
        how=SHOWN,
        today=today,
        most_a_day=settings.most_a_day,
    )


def _after(showing: Veil) -> Veil | None:
    number = VEILS.index(showing) + 1
    return VEILS[number] if number < len(VEILS) else None


def _step(text: str) -> Veil:
    try:
        return Veil(text or Veil.BLURRED)
    except ValueError:
        raise ViewRefused("Choose how it is to be shown. Nothing was shown.") from None


def _frame(text: str, medium: Medium) -> int:
    """The frame asked for, counted from 0; the one that a rule saw worst where none is."""
    if not text:
        return medium.frame
    if text.isascii() and text.isdecimal() and 1 <= int(text[:3]) <= _FRAMES_MOST:
        return int(text) - 1
    raise ViewRefused(f"Frames are numbered from 1 to {_FRAMES_MOST}. Nothing was shown.")


def _find(connection: Connection, selection: Selection, who: str | None) -> Rows[View]:
    """The views of `who`, of everybody when None."""

    def matching(statement: Select[Any]) -> Select[Any]:
        if who is not None:
            statement = statement.where(VIEWS.c.who == who)
        if term := selection.term("q"):
            statement = statement.where(VIEWS.c.reason.icontains(term, autoescape=True))
        if term := selection.term("who"):
            statement = statement.where(VIEWS.c.who.icontains(term, autoescape=True))
        if term := selection.term("veil"):
            statement = statement.where(VIEWS.c.veil == term)
        return statement

    total = connection.execute(matching(select(func.count()).select_from(VIEWS))).scalar_one()
    columns = {"at": VIEWS.c.at, "who": VIEWS.c.who}
    rows = connection.execute(ordered(matching(select(VIEWS)), selection, columns, last=VIEWS.c.id))
    return Rows([as_view(row) for row in rows], total)
