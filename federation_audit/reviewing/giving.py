"""Writing what a reviewer says, and taking it back.

Everything is in the caller's transaction, with the log of actions and the overrides that are ordered along with it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.tables import USERS
from federation_audit.reviewing.errors import NothingToUndo
from federation_audit.reviewing.outcomes import Opinion, Outcome, outcome_of
from federation_audit.reviewing.overriding import Standing, Wish, lift_of_answer, order
from federation_audit.reviewing.pace import GIVEN
from federation_audit.reviewing.queue import current_decisions
from federation_audit.reviewing.tables import ORDERS, REVIEWS
from federation_audit.store.rows import chunks
from federation_audit.store.state import note_reviews_change
from schemas.messages import Decision

UNDONE = "review undone"
NOTE_MOST = 500


@dataclass(frozen=True, slots=True)
class Part:
    """Media that are answered together, all of one tenant; `name` is the smallest of their cluster there.

    `ids` are the store's ids of `media`, in the same order.
    """

    tenant: str
    name: bytes
    media: tuple[bytes, ...]
    ids: tuple[int, ...]

    @property
    def about(self) -> str:
        """As the log of actions names it."""
        return f"{self.tenant}/{self.name.hex()}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reviewer sent at once. `orders` are overrides that were ordered along with it, `in_force` of them are
    published."""

    id: str
    opinion: Opinion
    at: int
    images: int
    orders: int
    in_force: int


def give(
    connection: Connection,
    by: Actor,
    parts: Sequence[Part],
    opinion: Opinion,
    *,
    note: str,
    at: int,
    wish: Wish | None = None,
) -> str:
    """Write the opinion of `by` on all media of `parts`, in place of what they said before; the answer's id.

    The override that they wish for is ordered for those media alone of which all reviewers now say the same: dismissed
    for an allowance; for a denial, those that nobody dismissed and that are not rejected yet. `take_turn` comes first.
    """
    answer = secrets.token_hex(8)
    note = note.replace("\0", "")[:NOTE_MOST]
    for part in parts:
        known = _opinions(connection, part)
        mine = {sha256: opinions[by.name] for sha256, opinions in known.items() if by.name in opinions}
        common = {"opinion": opinion.value, "at": at, "note": note, "answer": answer}
        new = [
            {"tenant": part.tenant, "sha256": sha256, "reviewer": by.name, **common}
            for sha256 in part.media
            if sha256 not in mine
        ]
        if new:
            connection.execute(insert(REVIEWS), new)
        changed = [
            {
                "of": row.id,
                **common,
                "opinion_before": row.opinion,
                "at_before": row.at,
                "note_before": row.note,
            }
            for row in mine.values()
        ]
        if changed:
            connection.execute(update(REVIEWS).where(REVIEWS.c.id == bindparam("of")), changed)
        ordered = 0
        if wish is not None:
            outcomes = {
                sha256: outcome_of(
                    [opinion, *(Opinion(row.opinion) for who, row in known.get(sha256, {}).items() if who != by.name)]
                )
                for sha256 in part.media
            }
            wanted = {Outcome.DISMISSED} if wish.is_allowance else {Outcome.OPEN, Outcome.CONFIRMED}
            decisions = {} if wish.is_allowance else current_decisions(connection, part.ids)
            media = [
                Standing(part.tenant, sha256, number)
                for sha256, number in zip(part.media, part.ids, strict=True)
                if outcomes[sha256] in wanted and decisions.get(number) is not Decision.REJECT
            ]
            ordered = order(connection, by, answer, media, wish, at=at)
        detail: dict[str, Any] = {"opinion": opinion.value, "images": len(part.media)}
        detail |= {"note": note} if note else {}
        detail |= {"overrides": ordered} if ordered else {}
        detail |= {"instead of": _most(row.opinion for row in mine.values())} if mine else {}
        record(connection, by, GIVEN, about=part.about, at=at, detail=detail)
    note_reviews_change(connection)
    return answer


def take_turn(connection: Connection) -> None:
    """Let one answer be written at a time, so that each sees those before it. SQLite has one writer anyway."""
    connection.execute(select(USERS.c.id).order_by(USERS.c.id).with_for_update())


def last_answer(connection: Connection, reviewer: str, *, since: int) -> Answer | None:
    """What a reviewer said last, and not before `since`; None where they said nothing, or took it back."""
    newest = (
        select(REVIEWS.c.answer)
        .where(REVIEWS.c.reviewer == reviewer, REVIEWS.c.at >= since, REVIEWS.c.answer != "")
        .order_by(REVIEWS.c.at.desc(), REVIEWS.c.id.desc())
        .limit(1)
    )
    answer = connection.execute(newest).scalar()
    if answer is None:
        return None
    rows = _of_answer(connection, reviewer, answer)
    ordered = select(func.count(), func.count(ORDERS.c.published_at)).where(ORDERS.c.answer == answer)
    orders, published = connection.execute(ordered).one()
    return Answer(answer, Opinion(rows[0].opinion), rows[0].at, len(rows), orders, published)


def undo(connection: Connection, by: Actor, answer: str, *, at: int) -> int:
    """Take an answer back: what its reviewer said before counts again. How many images it was about.

    Overrides ordered with it are cancelled, or taken back where they were published. Raises `NothingToUndo`.
    """
    last = last_answer(connection, by.name, since=0)
    if last is None or last.id != answer:
        raise NothingToUndo(
            "Nothing was changed: this is not your last answer any more. Open the image to say something else of it."
        )
    rows = _of_answer(connection, by.name, answer)
    for chunk in chunks([row.id for row in rows if row.opinion_before is None]):
        connection.execute(delete(REVIEWS).where(REVIEWS.c.id.in_(chunk)))
    restored = [
        {"of": row.id, "opinion": row.opinion_before, "at": row.at_before, "note": row.note_before or ""}
        for row in rows
        if row.opinion_before is not None
    ]
    if restored:
        blank = {"answer": "", "opinion_before": None, "at_before": None, "note_before": None}
        connection.execute(update(REVIEWS).where(REVIEWS.c.id == bindparam("of")), [each | blank for each in restored])
    lifted = lift_of_answer(connection, by, answer, at=at)
    detail = {"opinion": last.opinion.value, "images": len(rows)} | ({"overrides": lifted} if lifted else {})
    about = f"{rows[0].tenant}/{min(bytes(row.sha256) for row in rows).hex()}"
    record(connection, by, UNDONE, about=about, at=at, detail=detail)
    note_reviews_change(connection)
    return len(rows)


def _opinions(connection: Connection, part: Part) -> dict[bytes, dict[str, Row[Any]]]:
    """Rows by image and reviewer."""
    found: dict[bytes, dict[str, Row[Any]]] = {}
    for chunk in chunks(part.media):
        query = select(REVIEWS).where(REVIEWS.c.tenant == part.tenant, REVIEWS.c.sha256.in_(chunk))
        for row in connection.execute(query):
            found.setdefault(bytes(row.sha256), {})[row.reviewer] = row
    return found


def _of_answer(connection: Connection, reviewer: str, answer: str) -> Sequence[Row[Any]]:
    query = select(REVIEWS).where(REVIEWS.c.reviewer == reviewer, REVIEWS.c.answer == answer).order_by(REVIEWS.c.id)
    return connection.execute(query).all()


def _most(opinions: Any) -> str:
    return ", ".join(sorted(set(opinions)))
