"""Everything that is known of the flagged media of one cluster, one by one."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from federation_audit.reviewing.outcomes import Outcome, Review, Reviewed, read_reviewed
from federation_audit.reviewing.overriding import read_lists
from federation_audit.reviewing.queue import Waiting, current_decisions
from federation_audit.reviewing.tables import ORDERS
from federation_audit.store.facts import METHODS, PLACES
from federation_audit.store.identities import TextKind
from federation_audit.store.queries import Stratum, read_judgements, read_origins, read_strata
from federation_audit.store.tables import FLAGS, MEDIA, TEXTS
from schemas.messages import Decision

_SURENESS = ("", "possible", "likely", "certain")
_ORIGINS_MOST = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement in one stratum."""

    at: int
    decision: str
    rules: tuple[str, ...]
    stratum: Stratum


@dataclass(frozen=True, slots=True)
class Seen:
    """An origin. Domains and names are empty where they are not known; sureness in words."""

    place: str
    method: str
    author: str
    author_sure: str
    account_known: bool
    community: str
    community_sure: str
    host: str
    host_sure: str
    posted_at: int | None
    post_url: str
    observed_at: int
    observer: str


@dataclass(frozen=True, slots=True)
class Order:
    """An override that a review asked for."""

    effect: str
    kind: str
    by: str
    at: int
    published_at: int | None


@dataclass(frozen=True, slots=True)
class Medium:
    """One flagged medium. `reviews` is None as long as the one who looks may not know what others said."""

    id: int
    sha256: bytes
    flagged_at: int
    now: bool
    decision: Decision | None
    scores: dict[str, float]
    media_type: str
    length: int
    judged: tuple[Judged, ...]
    origins: tuple[Seen, ...]
    origins_left_out: int
    lists: tuple[str, ...]
    mine: Review | None
    others: int
    reviews: tuple[Review, ...] | None
    outcome: Outcome | None
    orders: tuple[Order, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Cluster:
    """Media of a tenant that look alike: those of `start` to `start + size`, by hash, of `total`. `elsewhere` counts
    those in other tenants."""

    tenant: str
    name: bytes
    media: tuple[Medium, ...]
    total: int
    elsewhere: int


def read_cluster(
    connection: Connection, viewer: str, tenant: str, sha256: bytes, *, start: int, size: int
) -> Cluster | None:
    """The cluster that an image is in; None where it is not flagged."""
    here = select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.TENANT), TEXTS.c.text == tenant).scalar_subquery()
    cluster = connection.execute(
        select(FLAGS.c.cluster_id)
        .join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
        .where(MEDIA.c.sha256 == sha256, MEDIA.c.tenant_id == here)
    ).scalar()
    if cluster is None:
        return None
    inside = (
        select(FLAGS, MEDIA.c.sha256)
        .join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
        .where(FLAGS.c.cluster_id == cluster, MEDIA.c.tenant_id == here)
    )
    count = select(func.count()).select_from(inside.subquery())
    total = connection.execute(count).scalar_one()
    whole = connection.execute(
        select(func.count()).select_from(FLAGS).where(FLAGS.c.cluster_id == cluster)
    ).scalar_one()
    by_hash = inside.order_by(MEDIA.c.sha256)
    first = connection.execute(by_hash.limit(1)).one()
    rows = connection.execute(by_hash.offset(start).limit(size)).all()
    return Cluster(tenant, bytes(first.sha256), tuple(_media(connection, viewer, tenant, rows)), total, whole - total)


def waiting_of(row: Waiting | None) -> set[bytes]:
    """The hashes that wait in a row; none where there is no row."""
    return set() if row is None else {sha256 for _, sha256 in row.media}


def _media(connection: Connection, viewer: str, tenant: str, rows: Sequence[Any]) -> list[Medium]:
    ids = [row.media_id for row in rows]
    strata = read_strata(connection)
    lists = read_lists(connection, ids)
    decisions = current_decisions(connection, ids)
    reviewed = read_reviewed(connection, {bytes(row.sha256) for row in rows})
    orders = _orders(connection, tenant, [bytes(row.sha256) for row in rows])
    texts = _Texts(connection)
    found = []
    for row in rows:
        sha256 = bytes(row.sha256)
        detail = json.loads(row.detail)
        judged = tuple(
            Judged(each["judged_at"], each["decision"], tuple(each["rules"]), strata[each["stratum"]])
            for each in read_judgements(connection, row.media_id)
        )
        origins = read_origins(connection, row.media_id, most=_ORIGINS_MOST + 1)
        said = reviewed.get((tenant, sha256), Reviewed.of(()))
        mine = next((each for each in said.reviews if each.reviewer == viewer), None)
        open_to = mine is not None or said.outcome in (Outcome.CONFIRMED, Outcome.DISMISSED)
        found.append(
            Medium(
                id=row.media_id,
                sha256=sha256,
                flagged_at=row.flagged_at,
                now=bool(row.now),
                decision=decisions.get(row.media_id),
                scores=dict(detail["scores"]),
                media_type=detail["media_type"],
                length=detail["length"],
                judged=judged,
                origins=tuple(_seen(each, texts) for each in origins[:_ORIGINS_MOST]),
                origins_left_out=max(0, len(origins) - _ORIGINS_MOST),
                lists=tuple(sorted(lists.get(row.media_id, ()))),
                mine=mine,
                others=len(said.reviews) - (mine is not None),
                reviews=said.reviews if open_to else None,
                outcome=said.outcome if open_to else None,
                orders=tuple(orders.get(sha256, ())),
            )
        )
    return found


def _orders(connection: Connection, tenant: str, hashes: Sequence[bytes]) -> dict[bytes, list[Order]]:
    found: dict[bytes, list[Order]] = defaultdict(list)
    query = select(ORDERS).where(ORDERS.c.tenant == tenant, ORDERS.c.sha256.in_(hashes)).order_by(ORDERS.c.id)
    for row in connection.execute(query):
        found[bytes(row.sha256)].append(Order(row.effect, row.kind, row.ordered_by, row.ordered_at, row.published_at))
    return found


class _Texts:
    """Looks texts up, each once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[int, str] = {0: ""}

    def __getitem__(self, number: int) -> str:
        if number not in self._known:
            text = self._connection.execute(select(TEXTS.c.text).where(TEXTS.c.id == number)).scalar()
            self._known[number] = text or ""
        return self._known[number]


def _seen(row: Any, texts: _Texts) -> Seen:
    return Seen(
        place=PLACES[row.place].value,
        method=METHODS[row.method].value,
        author=texts[row.author_instance_id],
        author_sure=_SURENESS[row.author_confidence],
        account_known=bool(row.actor_id),
        community=texts[row.community_id] or texts[row.community_instance_id],
        community_sure=_SURENESS[row.community_confidence],
        host=texts[row.host_id],
        host_sure=_SURENESS[row.host_confidence],
        posted_at=row.moment_at,
        post_url=row.post_url,
        observed_at=row.observed_at,
        observer=row.observer,
    )
