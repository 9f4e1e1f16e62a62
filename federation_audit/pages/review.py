"""The review queue, for reviewers: rows without pixels, and their answers.

Nobody is told what others said of an image before they have answered themselves, neither by words nor by the order.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from federation_audit.accounts.actions import record
from federation_audit.accounts.database import Database
from federation_audit.accounts.roles import Role
from federation_audit.assessing.assessor import Assessed
from federation_audit.pages.review_rows import (
    MEDIA,
    PATH,
    QUEUE,
    path_of,
    show_rows,
)
from federation_audit.pages.review_words import SAID_SO, TONES, sentence_of, stratum_in_words
from federation_audit.pages.site import Area
from federation_audit.pages.table import Rows
from federation_audit.pages.viewing import viewing_link
from federation_audit.pages.visits import Here, Visit, own_path
from federation_audit.reviewing.answering import Asked, answer_media, answer_rows
from federation_audit.reviewing.closeup import Cluster, read_cluster, waiting_of
from federation_audit.reviewing.errors import ClusterChanged, ReviewRefused
from federation_audit.reviewing.flagged import read_flagged
from federation_audit.reviewing.giving import last_answer, undo
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.overriding import DISTANCE, Publisher, Wish, count_unpublished, guarded
from federation_audit.reviewing.pace import PUT_OFF, read_pace
from federation_audit.reviewing.queue import read_details, read_one, read_waiting
from schemas.messages import DISTANCE_MOST, OverrideEffect
from schemas.topics import DAY_MS

_FIELD = Form(max_length=1_000)
_ROW = Form(max_length=200)
_NAMED_MOST = 3
_UNDO_MS = DAY_MS

FAULTS = {
    "none": "Nothing was changed: select at least one row first.",
    "changed": "Nothing was changed: other images belong to this row now than those that were shown. Look again.",
    "gone": "Nothing was changed: this is settled, or you have answered it already.",
    "cap": "Nothing was changed: these are more answers than you have left today. Select fewer.",
    "undo": "Nothing was changed: that is not your last answer any more.",
    "kafka": "The overrides are not in force: Kafka did not take them. Nothing is lost; try again when it is there.",
}
"""What a page says after a form was not done; the address carries the word."""

OPINIONS: Mapping[Opinion, tuple[str, str]] = {
    Opinion.CONFIRM: ("Confirm", "c"),
    Opinion.DISMISS: ("Dismiss", "d"),
    Opinion.UNSURE: ("Unsure", "u"),
}
"""What each button says, and its key."""


def review_area() -> Area:
    """The queue, and the pages of single images. For reviewers: a viewer judges nothing, and sees what is settled."""
    router = APIRouter()
    publisher = Publisher()

    @router.get(PATH, response_model=None)
    def show(here: Here) -> Response:
        selection = here.select(QUEUE)
        query = here.request.query_params
        with here.site.database.reading() as connection:
            context = _context(here, connection)
            part, total = read_waiting(
                connection,
                here.user.name,
                verified_lists=here.site.surroundings.audit.verified_lists,
                evidence=here.site.assessor.newest().accused,
                tenant=selection.term("tenant"),
                author=selection.term("q"),
                start=selection.start,
                size=selection.size,
            )
            shown = show_rows(here.site, part, read_details(connection, part), selection.start)
        rows = Rows(shown, total)
        at = query.get("at", "")
        return here.show(
            "review.html",
            QUEUE,
            selection,
            rows,
            focus=min(int(at), len(shown) - 1) if at.isascii() and at.isdecimal() and len(at) < 9 and shown else -1,
            keep=query.get("allow") != "no",
            **context,
        )

    @router.post("/review/answer", response_model=None)
    def answer(
        here: Here,
        one: Annotated[str, _FIELD] = "",
        bulk: Annotated[str, _FIELD] = "",
        row: Annotated[list[Annotated[str, _ROW]] | None, Form()] = None,
        note: Annotated[str, _FIELD] = "",
        allow: Annotated[str, _FIELD] = "",
        looks: Annotated[str, _FIELD] = "",
        distance: Annotated[str, _FIELD] = "",
        deny: Annotated[str, _FIELD] = "",
        back: Annotated[str, _FIELD] = PATH,
    ) -> Response:
        target = _back(back)
        if one:
            said, _, rest = one.partition(" ")
            key, _, at = rest.partition(" ")
            keys, place = [key], int(at) if at.isascii() and at.isdecimal() and len(at) < 9 else 0
        else:
            said, keys, place = bulk, row or [], 0
        opinion = _opinion(said)
        target = _with(target, at=str(place), **({} if allow else {"allow": "no"}))
        if not keys:
            return here.goto(_with(target, fault="none"))
        wish = _wish(here, opinion, note, allow, looks, distance, deny)
        audit = here.site.surroundings.audit
        try:
            with here.site.database.writing() as connection:
                given = answer_rows(
                    connection,
                    here.actor,
                    [_asked(each) for each in keys],
                    opinion,
                    note=note.strip(),
                    at=here.now_ms,
                    settings=audit.review,
                    verified_lists=audit.verified_lists,
                    wish=wish,
                )
        except ClusterChanged:
            return here.goto(_with(target, fault="changed"))
        except ReviewRefused:
            return here.goto(_with(target, fault="cap"))
        if given is None:
            return here.goto(_with(target, fault="gone"))
        if wish is not None:
            _publish(here, publisher, insist=False)
        return here.goto(target)

    @router.post("/review/undo", response_model=None)
    def take_back(here: Here, answer: Annotated[str, _FIELD] = "", back: Annotated[str, _FIELD] = PATH) -> Response:
        target = _back(back)
        try:
            with here.site.database.writing() as connection:
                undo(connection, here.actor, answer, at=here.now_ms)
        except ReviewRefused:
            return here.goto(_with(target, fault="undo"))
        _publish(here, publisher, insist=False)
        return here.goto(target, "undone")

    @router.post("/review/break", response_model=None)
    def put_off(here: Here, back: Annotated[str, _FIELD] = PATH) -> Response:
        with here.site.database.writing() as connection:
            record(connection, here.actor, PUT_OFF, at=here.now_ms)
        return here.goto(_back(back))

    @router.post("/review/overrides", response_model=None)
    def publish(here: Here, back: Annotated[str, _FIELD] = PATH) -> Response:
        waiting = _publish(here, publisher, insist=True)
        target = _back(back)
        return here.goto(_with(target, fault="kafka")) if waiting else here.goto(target, "overrides")

    @router.get("/review/{tenant}/{sha256}", response_model=None)
    def show_one(here: Here, tenant: str, sha256: str) -> Response:
        selection = here.select(MEDIA)
        verified = here.site.surroundings.audit.verified_lists
        with here.site.database.reading() as connection:
            cluster = _cluster(here, connection, tenant, sha256, start=selection.start, size=selection.size)
            context = _context(here, connection)
            row = read_one(connection, here.user.name, tenant, cluster.name, verified_lists=verified)
            shown = None
            if row is not None:
                [shown] = show_rows(here.site, [row], read_details(connection, [row]), 0)
            kept = guarded(connection, [each.id for each in cluster.media])
        sentences = here.site.surroundings.sentences
        return here.show(
            "review_image.html",
            MEDIA,
            selection,
            Rows(cluster.media, cluster.total),
            cluster=cluster,
            shown=shown,
            waiting=waiting_of(row),
            keep=True,
            guarded=kept,
            reason=lambda rule: sentence_of(rule, sentences),
            stratum=stratum_in_words,
            picture=lambda medium: viewing_link(here, tenant, medium.sha256),
            tones=TONES,
            **context,
        )

    @router.post("/review/{tenant}/{sha256}", response_model=None)
    def answer_one(
        here: Here,
        tenant: str,
        sha256: str,
        opinion: Annotated[str, _FIELD] = "",
        medium: Annotated[list[Annotated[str, _ROW]] | None, Form()] = None,
        key: Annotated[str, _FIELD] = "",
        note: Annotated[str, _FIELD] = "",
        allow: Annotated[str, _FIELD] = "",
        looks: Annotated[str, _FIELD] = "",
        distance: Annotated[str, _FIELD] = "",
        deny: Annotated[str, _FIELD] = "",
    ) -> Response:
        said = _opinion(opinion)
        wish = _wish(here, said, note, allow, looks, distance, deny)
        audit = here.site.surroundings.audit
        path = f"{PATH}/{tenant}/{sha256}"
        common: dict[str, Any] = {"note": note.strip(), "at": here.now_ms, "settings": audit.review, "wish": wish}
        try:
            with here.site.database.writing() as connection:
                cluster = _cluster(here, connection, tenant, sha256, start=0, size=1)
                path = path_of(tenant, cluster.name)
                if medium:
                    hashes = [_hash(each) for each in medium]
                    given = answer_media(connection, here.actor, tenant, hashes, said, **common)
                elif key:
                    verified = audit.verified_lists
                    given = answer_rows(connection, here.actor, [_asked(key)], said, verified_lists=verified, **common)
                else:
                    return here.goto(_with(path, fault="none"))
        except ClusterChanged:
            return here.goto(_with(path, fault="changed"))
        except ReviewRefused:
            return here.goto(_with(path, fault="cap"))
        if given is None:
            return here.goto(_with(path, fault="gone"))
        if wish is not None:
            _publish(here, publisher, insist=False)
        return here.goto(path)

    return Area("Review", PATH, Role.REVIEWER, router, _prepare)


def _prepare(_: Assessed, database: Database) -> None:
    with database.reading() as connection:
        read_flagged(connection)


def _context(here: Visit, connection: Connection) -> dict[str, Any]:
    """What every page of the queue has: pace, last answer, overrides that are not in force, faults."""
    settings = here.site.surroundings.audit.review
    query = here.request.query_params
    return {
        "pace": read_pace(connection, here.user.name, settings, here.now_ms),
        "last": last_answer(connection, here.user.name, since=here.now_ms - _UNDO_MS),
        "unpublished": count_unpublished(connection),
        "fault": FAULTS.get(query.get("fault", ""), ""),
        "opinions": OPINIONS,
        "said_so": SAID_SO,
        "is_admin": here.user.role.includes(Role.ADMIN),
        "distance": DISTANCE,
        "distance_most": DISTANCE_MOST,
        "named_most": _NAMED_MOST,
        "break_after": settings.break_after_min,
    }


def _cluster(here: Visit, connection: Connection, tenant: str, sha256: str, *, start: int, size: int) -> Cluster:
    try:
        digest = bytes.fromhex(sha256)
    except ValueError:
        digest = b""
    plain = tenant.isascii() and tenant.isprintable()
    found = (
        read_cluster(connection, here.user.name, tenant, digest, start=start, size=size)
        if len(digest) == 32 and plain
        else None
    )
    if found is None:
        raise HTTPException(404)
    return found


def _publish(here: Visit, publisher: Publisher, *, insist: bool) -> int:
    """Bring what was ordered to Kafka; how many overrides are not there yet."""
    told = publisher.publish(here.site.database, here.site.surroundings.broker, here.actor, insist=insist)
    return told.waiting


def _opinion(text: str) -> Opinion:
    try:
        return Opinion(text)
    except ValueError:
        raise HTTPException(422) from None


def _asked(key: str) -> Asked:
    tenant, _, rest = key.partition("/")
    name, _, seen = rest.partition("/")
    return Asked(tenant, _hash(name), seen)


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise HTTPException(422)
    return digest


def _wish(here: Visit, opinion: Opinion, note: str, allow: str, looks: str, distance: str, deny: str) -> Wish | None:
    """The override that goes with an answer. Letting exact bytes in is a reviewer's; all else is for admins."""
    is_admin = here.user.role.includes(Role.ADMIN)
    far = distance.strip()
    if looks and is_admin and not (far.isascii() and far.isdecimal() and int(far[:4]) <= DISTANCE_MOST):
        raise HTTPException(422)
    reach = int(far) if looks and is_admin else None
    why = f": {note.strip()}" if note.strip() else ""
    if opinion is Opinion.DISMISS and allow:
        return Wish(OverrideEffect.ALLOW, f"false positive, by review{why}"[:500], reach, all_of_them=is_admin)
    if opinion is Opinion.CONFIRM and deny and is_admin:
        return Wish(OverrideEffect.DENY, f"confirmed by review{why}"[:500], reach, all_of_them=True)
    return None


def _back(path: str) -> str:
    """`path` where it leads to the queue, else the queue."""
    own = own_path(path)
    return own if own == PATH or own.startswith((f"{PATH}?", f"{PATH}/")) else PATH


def _with(path: str, **terms: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{urlencode(terms)}" if terms else path
