"""Overrides that a review asks for: ordered in the review's transaction, published to the topic ``overrides`` after it.

An order stands in the database until Kafka has it, so that none is lost while Kafka is away, and none counts as in
force before it is. An order that is published twice does nothing more: an override goes by its hash and tenant.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.database import Database
from federation_audit.reviewing.tables import ORDERS
from federation_audit.store.identities import TextKind
from federation_audit.store.queries import read_strata
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import FLAGGED, JUDGEMENTS, LOOKS, MARKS, TEXTS
from schemas.broker import BrokerError, BrokerSettings, Producer, check_topics
from schemas.clock import now_ms
from schemas.messages import DISTANCE_MOST, OverrideEffect, OverrideKind, OverrideSet
from schemas.topics import OVERRIDES

log = structlog.get_logger("federation_audit.reviewing")

DISTANCE = 31
"""PDQ's own bound for pictures that look the same, of 256 bits."""

PUBLISHED = "override published"
LIFT = "lift"
_DENIED = "denied"
_WITHIN_S = 5.0
_REST_S = 30.0
_AT_ONCE = 200


class Standing(NamedTuple):
    """A medium that is in the store."""

    tenant: str
    sha256: bytes
    id: int


@dataclass(frozen=True, slots=True)
class Wish:
    """An override that a reviewer wants. Without a `distance` it goes by the bytes alone, else by the look as well.

    `all_of_them`: also for images that a known-hash list has, or that somebody denied. That is for admins.
    """

    effect: OverrideEffect
    reason: str
    distance: int | None = None
    all_of_them: bool = False

    def __post_init__(self) -> None:
        if self.distance is not None and not 0 <= self.distance <= DISTANCE_MOST:
            raise ValueError(f"distance is 0 to {DISTANCE_MOST}")

    @property
    def is_allowance(self) -> bool:
        """Whether it lets images in."""
        return self.effect is OverrideEffect.ALLOW


@dataclass(frozen=True, slots=True)
class Publication:
    """How many orders were published, how many wait still, and why: a sentence, empty when none does."""

    published: int
    waiting: int
    why: str = ""


def order(connection: Connection, by: Actor, answer: str, media: Sequence[Standing], wish: Wish, *, at: int) -> int:
    """Order what is wished for, for `media`, each for its own tenant; the number of overrides that makes."""
    if not wish.all_of_them:
        kept = guarded(connection, [each.id for each in media])
        media = [each for each in media if each.id not in kept]
    looks: dict[int, list[bytes]] = {}
    if wish.distance is not None:
        for chunk in chunks([each.id for each in media]):
            for number, pdq in connection.execute(
                select(LOOKS.c.media_id, LOOKS.c.pdq).where(among(connection, LOOKS.c.media_id, chunk))
            ):
                looks.setdefault(number, []).append(bytes(pdq))
    rows = []
    for each in media:
        goes_by = [(OverrideKind.SHA256, each.sha256, 0)]
        goes_by += [(OverrideKind.PDQ, pdq, wish.distance or 0) for pdq in sorted(looks.get(each.id, []))]
        rows += [
            {
                "answer": answer,
                "tenant": each.tenant,
                "sha256": each.sha256,
                "effect": wish.effect.value,
                "kind": kind.value,
                "hash": hash_,
                "distance": distance,
                "reason": wish.reason[:500],
                "ordered_by": by.name,
                "ordered_at": at,
            }
            for kind, hash_, distance in goes_by
        ]
    if rows:
        connection.execute(insert(ORDERS), rows)
    return len(rows)


def lift_of_answer(connection: Connection, by: Actor, answer: str, *, at: int) -> int:
    """Cancel what was ordered with an answer; what is published already is to be taken back. How many overrides."""
    rows = connection.execute(select(ORDERS).where(ORDERS.c.answer == answer).order_by(ORDERS.c.id)).all()
    connection.execute(delete(ORDERS).where(ORDERS.c.answer == answer, ORDERS.c.published_at.is_(None)))
    lifts = [_lift_of(row, by, at) for row in rows if row.published_at is not None and row.effect != LIFT]
    if lifts:
        connection.execute(insert(ORDERS), lifts)
    return len(rows)


def _lift_of(row: Row[Any], by: Actor, at: int) -> dict[str, Any]:
    same = ("answer", "tenant", "sha256", "kind", "hash", "distance", "reason")
    return {name: getattr(row, name) for name in same} | {"effect": LIFT, "ordered_by": by.name, "ordered_at": at}


def guarded(connection: Connection, media: Collection[int]) -> set[int]:
    """Those of `media` that a known-hash list has, or that somebody denied: letting them in is an admin's decision."""
    found = set(read_lists(connection, media))
    denied = select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.MARK), TEXTS.c.text == _DENIED).scalar_subquery()
    for chunk in chunks(media):
        query = select(MARKS.c.media_id).where(among(connection, MARKS.c.media_id, chunk), MARKS.c.mark_id == denied)
        found.update(connection.scalars(query))
    return found


def read_lists(connection: Connection, media: Collection[int] | None = None) -> dict[int, set[str]]:
    """Which known-hash lists, by name, have which of `media`, or of all."""
    lists = {each.id: each.hash_list.partition("@")[0] for each in read_strata(connection).values() if each.is_list}
    found: dict[int, set[str]] = {}
    if not lists:
        return found
    query = select(JUDGEMENTS.c.media_id, JUDGEMENTS.c.stratum_id).where(
        JUDGEMENTS.c.stratum_id.in_(list(lists)), FLAGGED
    )
    parts = (
        [query]
        if media is None
        else [query.where(among(connection, JUDGEMENTS.c.media_id, chunk)) for chunk in chunks(media)]
    )
    for part in parts:
        for number, stratum in connection.execute(part).all():  # one by one they take twice as long
            found.setdefault(number, set()).add(lists[stratum])
    return found


def count_unpublished(connection: Connection) -> int:
    """How many orders Kafka does not have yet."""
    return connection.execute(
        select(func.count()).select_from(ORDERS).where(ORDERS.c.published_at.is_(None))
    ).scalar_one()


class Publisher:
    """Brings orders to Kafka, for one process. After a failure it rests for half a minute, unless it is told not to:
    nobody shall wait for a Kafka that is away at every answer."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._failed: tuple[float, str] | None = None

    def publish(self, database: Database, broker: BrokerSettings | None, by: Actor, *, insist: bool) -> Publication:
        """Publish every order that waits, for at most a few seconds. Raises what the database does, nothing else."""
        with self._turn:
            with database.reading() as connection:
                waiting = connection.execute(
                    select(ORDERS).where(ORDERS.c.published_at.is_(None)).order_by(ORDERS.c.id)
                ).all()
            if not waiting:
                return Publication(0, 0)
            if broker is None:
                return Publication(0, len(waiting), "These pages run without Kafka.")
            if self._failed is not None and not insist and time.monotonic() - self._failed[0] < _REST_S:
                return Publication(0, len(waiting), self._failed[1])
            done, why = asyncio.run(_send(broker, waiting))
            self._failed = (time.monotonic(), why) if why else None
            if why:
                log.warning("overrides not published", waiting=len(waiting) - len(done), why=why)
            if done:
                with database.writing() as connection:
                    _note(connection, by, done)
            return Publication(len(done), len(waiting) - len(done), why)


async def _send(broker: BrokerSettings, orders: Sequence[Row[Any]]) -> tuple[list[Row[Any]], str]:
    """Those that Kafka has now, and why not all of them."""
    newest = {_message_of(each).override_id: each for each in orders}  # a later order takes an earlier one's place
    left, sent = list(newest.items()), set[str]()
    why = ""

    async def send_one(producer: Producer, key: str, one: Row[Any]) -> None:
        message = None if one.effect == LIFT else _message_of(one)
        await producer.publish(OVERRIDES, message, key=key.encode("ascii"), give_up_after=_WITHIN_S)
        sent.add(key)

    try:
        async with asyncio.timeout(2 * _WITHIN_S):
            await check_topics(broker, (OVERRIDES,))
            async with Producer(broker, client_id="fediwarden-review") as producer:
                for part in chunks(left, _AT_ONCE):
                    results = await asyncio.gather(
                        *(send_one(producer, key, one) for key, one in part), return_exceptions=True
                    )
                    for result in results:
                        if isinstance(result, BaseException):
                            raise result
    except TimeoutError:
        why = "Kafka did not answer in time."
    except BrokerError as error:
        why = f"Kafka did not take them: {error}"
    return [each for each in orders if _message_of(each).override_id in sent], why


def _message_of(row: Row[Any]) -> OverrideSet:
    return OverrideSet(
        effect=OverrideEffect.ALLOW if row.effect == LIFT else OverrideEffect(row.effect),
        kind=OverrideKind(row.kind),
        hash=bytes(row.hash),
        distance=row.distance,
        tenant=row.tenant,
        set_by=row.ordered_by,
        reason=row.reason,
        set_at=row.ordered_at,
    )


def _note(connection: Connection, by: Actor, orders: Sequence[Row[Any]]) -> None:
    at = now_ms()
    there: set[int] = set()
    for chunk in chunks([each.id for each in orders]):
        there.update(connection.scalars(select(ORDERS.c.id).where(ORDERS.c.id.in_(chunk)).with_for_update()))
        connection.execute(update(ORDERS).where(ORDERS.c.id.in_(chunk)).values(published_at=at))
    if gone := [each for each in orders if each.id not in there]:  # undone while they were on their way
        connection.execute(insert(ORDERS), [_lift_of(each, by, at) for each in gone])
    of = {each.answer: f"{each.tenant}/{bytes(each.sha256).hex()}" for each in reversed(orders)}
    for (answer, effect), count in Counter((each.answer, each.effect) for each in orders).items():
        record(connection, by, PUBLISHED, about=of[answer], at=at, detail={"effect": effect, "overrides": count})
