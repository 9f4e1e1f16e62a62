"""What stands behind one instance: its incidents, with what is known of each, and what people did about it.

Only flagged images are traced, for only of them does the store know who sent them in detail.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from federation_audit.deciding.tables import DECISIONS, LETTERS, REMEDIATIONS
from federation_audit.statistics.events import Confirmation, Evidence
from federation_audit.store.periods import as_date
from federation_audit.store.queries import instance_id
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import ACTORS, EVIDENCE, FLAGS, JOINS, MEDIA, ORIGINS, TEXTS

SIGHTINGS_MOST = 5_000
"""Of an instance, so many sightings of flagged images are looked at, the newest first."""

_ORIGINS_MOST = 20_000
_POSTS_MOST = 20

Key = tuple[int, int, int]
"""Actor, day, cluster."""


@dataclass(frozen=True, slots=True)
class Medium:
    """A tenant's file."""

    tenant: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Trace:
    """An incident: one account's one picture (and what looks like it) on one day.

    `actor` is ``key id:pseudonym``, "" where only the instance is known; `flagged_now`: one of its images still is.
    `hosts` and `communities` are those of its posts; `posts` what others wrote, unchecked.
    """

    id: str
    day: date
    actor: str
    cluster: int
    media: tuple[Medium, ...]
    flagged_now: bool
    confirmed: Confirmation | None
    hosts: tuple[str, ...]
    communities: tuple[str, ...]
    posts: tuple[str, ...]

    @property
    def account(self) -> str:
        """The pseudonym, as short as people read it; "" where it is not known."""
        return self.actor.rpartition(":")[2][:8]


@dataclass(frozen=True, slots=True)
class Traces:
    """The incidents of an instance, the newest first; `whole`: there are no others."""

    incidents: tuple[Trace, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class Deed:
    """What a person did about an instance on a day, in words."""

    day: date
    what: str
    who: str


@dataclass(slots=True)
class _Gathered:
    media: dict[int, Medium] = field(default_factory=dict)
    now: bool = False
    hosts: set[int] = field(default_factory=set)
    communities: set[int] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)


def read_traces(connection: Connection, domain: str, evidence: Evidence) -> Traces:
    """The incidents of the author's instance `domain`; `evidence` says which are confirmed."""
    number = instance_id(connection, domain)
    if number is None:
        return Traces((), whole=True)
    rows = _sightings(connection, number)
    named = {row.cluster_id for row in rows if row.actor_id}
    gathered: dict[Key, _Gathered] = defaultdict(_Gathered)
    by_medium: dict[int, set[Key]] = defaultdict(set)
    for row in rows:
        if not row.actor_id and row.cluster_id in named:
            continue  # as the store counts: beside a known account, one that is not known is no other
        key = (row.actor_id, row.day, row.cluster_id)
        found = gathered[key]
        found.media[row.media_id] = Medium(row.tenant, bytes(row.sha256))
        found.now = found.now or bool(row.now)
        by_medium[row.media_id].add(key)
    _add_origins(connection, number, by_medium, gathered)
    texts = _texts(connection, {each for one in gathered.values() for each in one.hosts | one.communities})
    actors = _actors(connection, {actor for actor, _, _ in gathered})
    confirmed = {each.incident_id: each.confirmed for each in evidence.incidents if each.instance == domain}
    incidents = []
    for (actor_id, day, cluster), one in gathered.items():
        actor = actors.get(actor_id, "")
        name = f"{domain}/{actor or 'unknown'}/{as_date(day)}/{cluster}"
        if not one.now and name not in confirmed:
            continue  # flagged once, and judged harmless since
        incidents.append(
            Trace(
                id=name,
                day=as_date(day),
                actor=actor,
                cluster=cluster,
                media=tuple(one.media[each] for each in sorted(one.media)),
                flagged_now=one.now,
                confirmed=confirmed.get(name),
                hosts=tuple(sorted(texts[each] for each in one.hosts)),
                communities=tuple(sorted(texts[each] for each in one.communities)),
                posts=tuple(sorted(one.posts)[:_POSTS_MOST]),
            )
        )
    incidents.sort(key=lambda each: (-each.day.toordinal(), each.id))
    return Traces(tuple(incidents), whole=len(rows) < SIGHTINGS_MOST)


def read_deeds(connection: Connection, domain: str) -> list[Deed]:
    """Decisions, letters, answers and cleanups about `domain`, the newest first."""
    deeds = [
        Deed(_day(row.decided_at), f"decided: {row.action}", row.decided_by)
        for row in connection.execute(select(DECISIONS).where(DECISIONS.c.domain == domain))
    ]
    for row in connection.execute(select(LETTERS).where(LETTERS.c.domain == domain)):
        deeds.append(Deed(as_date(row.sent_day), "wrote to its admins", row.noted_by))
        if row.answered_day is not None:
            deeds.append(Deed(as_date(row.answered_day), "its admins answered", row.noted_by))
    cleaned = connection.execute(select(REMEDIATIONS).where(REMEDIATIONS.c.domain == domain))
    deeds.extend(Deed(as_date(row.day), "it cleaned up", row.noted_by) for row in cleaned)
    return sorted(deeds, key=lambda deed: (deed.day, deed.what), reverse=True)


def _sightings(connection: Connection, number: int) -> list[Row[Any]]:
    query = (
        select(
            EVIDENCE.c.media_id,
            EVIDENCE.c.actor_id,
            EVIDENCE.c.day,
            FLAGS.c.cluster_id,
            FLAGS.c.now,
            MEDIA.c.sha256,
            TEXTS.c.text.label("tenant"),
        )
        .join(FLAGS, FLAGS.c.media_id == EVIDENCE.c.media_id)
        .join(MEDIA, MEDIA.c.id == EVIDENCE.c.media_id)
        .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        .where(EVIDENCE.c.instance_id == number)
        .order_by(EVIDENCE.c.day.desc(), EVIDENCE.c.media_id, EVIDENCE.c.actor_id)
        .limit(SIGHTINGS_MOST)
    )
    return list(connection.execute(query))


def _add_origins(
    connection: Connection,
    number: int,
    by_medium: Mapping[int, Collection[Key]],
    gathered: Mapping[Key, _Gathered],
) -> None:
    """Hosts, communities and posts: of those origins that name the instance as the author's, and the same account."""
    columns = (
        ORIGINS.c.actor_id,
        ORIGINS.c.host_id,
        ORIGINS.c.host_confidence,
        ORIGINS.c.community_id,
        ORIGINS.c.community_confidence,
        ORIGINS.c.post_url,
    )
    for chunk in chunks(by_medium):
        own = select(ORIGINS.c.subject_id.label("media_id"), *columns).where(
            among(connection, ORIGINS.c.subject_id, chunk), ORIGINS.c.author_instance_id == number
        )
        joined = (
            select(JOINS.c.media_id, *columns)
            .join(ORIGINS, ORIGINS.c.subject_id == JOINS.c.name_id)
            .where(among(connection, JOINS.c.media_id, chunk), ORIGINS.c.author_instance_id == number)
        )
        for query in (own, joined):
            for row in connection.execute(query.limit(_ORIGINS_MOST)):
                for key in by_medium[row.media_id]:
                    if key[0] == row.actor_id:
                        _add_origin(gathered[key], row)


def _add_origin(found: _Gathered, row: Any) -> None:
    if row.host_id and row.host_confidence:
        found.hosts.add(row.host_id)
    if row.community_id and row.community_confidence:
        found.communities.add(row.community_id)
    if row.post_url:
        found.posts.add(row.post_url)


def _texts(connection: Connection, numbers: Iterable[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks(set(numbers)):
        query = select(TEXTS.c.id, TEXTS.c.text).where(among(connection, TEXTS.c.id, chunk))
        found.update((number, text) for number, text in connection.execute(query))
    return found


def _actors(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks(numbers):
        for row in connection.execute(select(ACTORS).where(among(connection, ACTORS.c.id, chunk))):
            found[row.id] = f"{row.key_id}:{bytes(row.pseudonym).hex()}"
    return found


def _day(at: int) -> date:
    return datetime.fromtimestamp(at / 1000, UTC).date()
