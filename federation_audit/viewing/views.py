"""Who looked at what: written before anything is shown, and read by everybody whom it concerns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.tables import USERS
from federation_audit.viewing.media import Medium
from federation_audit.viewing.tables import VIEWS
from federation_audit.viewing.veils import VEILS, Veil
from schemas.topics import DAY_MS, MINUTE_MS

STEP_MS = 15 * MINUTE_MS
"""How long a step counts as taken: who comes back later begins with the first."""

REASON_LEAST, REASON_MOST = 5, 500


class ViewRefused(Exception):
    """Nothing is shown; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class View:
    """One look at a picture."""

    id: int
    at: int
    who: str
    tenant: str
    sha256: bytes
    scan_id: str
    reason: str
    veil: str


def as_view(row: Any) -> View:
    """A row of the table as a view."""
    return View(row.id, row.at, row.who, row.tenant, bytes(row.sha256), row.scan_id, row.reason, row.veil)


def check_reason(text: str) -> str:
    """The reason as it is kept. Raises `ViewRefused`."""
    reason = " ".join(text.replace("\0", " ").split())
    if len(reason) < REASON_LEAST:
        raise ViewRefused("Say in a few words why you need to see it. It is kept with your name.")
    if len(reason) > REASON_MOST:
        raise ViewRefused(f"The reason has {len(reason)} characters; at most {REASON_MOST} are kept. Say it shorter.")
    return reason


def reached(connection: Connection, who: str, medium: Medium, at: int) -> Veil | None:
    """The furthest step that `who` has taken with the medium lately; None before the first."""
    found = connection.execute(
        select(VIEWS.c.veil).where(
            VIEWS.c.who == who,
            VIEWS.c.tenant == medium.tenant,
            VIEWS.c.sha256 == medium.sha256,
            VIEWS.c.at > at - STEP_MS,
        )
    ).scalars()
    return max((Veil(each) for each in found), key=VEILS.index, default=None)


def steps_from(taken: Veil | None, *, plain: bool) -> tuple[Veil, ...]:
    """The veils that may be asked for after `taken`: those up to it, and the next."""
    count = 1 if taken is None else VEILS.index(taken) + 2
    return tuple(each for each in VEILS[:count] if plain or each is not Veil.PLAIN)


def pictures_today(connection: Connection, who: str, at: int) -> set[tuple[str, bytes]]:
    """The media that `who` has looked at on the day (UTC) of `at`."""
    rows = connection.execute(
        select(VIEWS.c.tenant, VIEWS.c.sha256).where(VIEWS.c.who == who, VIEWS.c.at >= at - at % DAY_MS).distinct()
    )
    return {(tenant, bytes(sha256)) for tenant, sha256 in rows}


def check_view(
    connection: Connection, who: str, medium: Medium, veil: Veil, *, at: int, plain: bool, most_a_day: int
) -> None:
    """Raises `ViewRefused`: not the next step, or the day's last picture has been seen."""
    if veil not in steps_from(reached(connection, who, medium, at), plain=plain):
        raise ViewRefused("Go one step at a time: first blurred, then less so. Nothing was shown.")
    today = pictures_today(connection, who, at)
    if len(today) >= most_a_day and (medium.tenant, medium.sha256) not in today:
        raise ViewRefused(
            f"You have looked at {len(today)} pictures today, which is the limit for a day (UTC). That is for your own"
            " sake; the queue can go on without pictures, or with somebody else."
        )


def record_view(
    connection: Connection,
    by: Actor,
    medium: Medium,
    veil: Veil,
    *,
    scan_id: str,
    reason: str,
    frame: int,
    at: int,
    plain: bool,
    most_a_day: int,
) -> None:
    """Write that `by` looks, in the caller's transaction, with its entry in the log. Raises as `check_view` does."""
    # Two looks of one person at once would both be under the limit: the second waits here for the first.
    connection.execute(select(USERS.c.id).where(USERS.c.name == by.name).with_for_update())
    check_view(connection, by.name, medium, veil, at=at, plain=plain, most_a_day=most_a_day)
    connection.execute(
        insert(VIEWS).values(
            at=at,
            who=by.name,
            tenant=medium.tenant,
            sha256=medium.sha256,
            scan_id=scan_id,
            reason=reason,
            veil=veil.value,
        )
    )
    about = f"{medium.tenant}/{medium.sha256.hex()}"
    record(
        connection,
        by,
        "picture viewed",
        about=about,
        at=at,
        detail={"veil": veil.value, "frame": frame + 1, "reason": reason},
    )


def views_of(connection: Connection, tenant: str, sha256: bytes, *, most: int = 50) -> Sequence[View]:
    """The looks at a medium, the latest first."""
    query = select(VIEWS).where(VIEWS.c.tenant == tenant, VIEWS.c.sha256 == sha256)
    found = connection.execute(query.order_by(VIEWS.c.at.desc(), VIEWS.c.id.desc()).limit(most))
    return [as_view(row) for row in found]


def count_views(connection: Connection, tenant: str, sha256: bytes) -> int:
    """How many looks at a medium there were."""
    query = select(func.count()).select_from(VIEWS).where(VIEWS.c.tenant == tenant, VIEWS.c.sha256 == sha256)
    return connection.execute(query).scalar_one()
