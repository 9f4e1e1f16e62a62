"""What stands behind one instance: its incidents, with what is known of each, and what people did about it.

Only flagged images are traced, for only of them does the store know who sent them in detail.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Row, select

from federation_audit.assessing.incidents import name_actors, name_incident, surest
from federation_audit.deciding.tables import DECISIONS, LETTERS, REMEDIATIONS
from federation_audit.statistics.events import Confirmation
from federation_audit.store.periods import as_date
from federation_audit.store.queries import instance_id, name_clusters, read_texts
from federation_audit.store.rows import among, chunks
from federation_audit.store.state import read_state
from federation_audit.store.tables import EVIDENCE, FLAGS, JOINS, MEDIA, ORIGINS, TEXTS

SIGHTINGS_MOST = 5_000
"""Of an instance, so many sightings of flagged images are looked at, the newest first."""

ORIGINS_MOST = 20_000
"""So many of their origins are looked at for hosts, communities and posts, the newest first; and as many of those that
only a name leads to. One image may have a million."""

_KEPT_MOST = 4

Confirmed = Mapping[tuple[str, bytes], Confirmation]
"""How media are confirmed, by tenant and sha256."""

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
    `cluster` is what the picture goes by, the smallest sha256 (hex) of all that look like it; `hosts` and `communities`
    are those of its posts; `posts` what others wrote, unchecked.
    """

    id: str
    day: date
    actor: str
    cluster: str
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
    """The incidents of an instance, the newest first. `whole`: there are no others; `traced`: their hosts, communities
    and posts are all that are known."""

    incidents: tuple[Trace, ...]
    whole: bool
    traced: bool


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


class _Kept(NamedTuple):
    """Traces that were read, and what they were read from."""

    change: int
    confirmed: Confirmed
    traces: Traces


_kept: WeakKeyDictionary[Engine, dict[str, _Kept]] = WeakKeyDictionary()
_keeping = Lock()


def read_traces(connection: Connection, domain: str, confirmed: Confirmed) -> Traces:
    """The incidents of the author's instance `domain`; `confirmed` says which media are, by tenant and sha256.

    Those of the instances that were asked for last are kept until something that is flagged, or who sent it, changes:
    whoever opens an instance opens several of its pages, and those of the largest take most of a second to read.
    """
    change = read_state(connection).flags_change
    with _keeping:
        known = _kept.setdefault(connection.engine, {})
        kept = known.pop(domain, None)
    if kept is None or kept.change != change or kept.confirmed != confirmed:
        kept = _Kept(change, confirmed, _read_traces(connection, domain, confirmed))
    with _keeping:
        known[domain] = kept
        if len(known) > _KEPT_MOST:
            del known[next(iter(known))]
    return kept.traces


def _read_traces(connection: Connection, domain: str, confirmed: Confirmed) -> Traces:
    number = instance_id(connection, domain)
    if number is None:
        return Traces((), whole=True, traced=True)
    found_rows = _sightings(connection, number)
    rows = found_rows[:SIGHTINGS_MOST]
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
    traced = _add_origins(connection, number, by_medium, gathered)
    texts = read_texts(connection, {each for one in gathered.values() for each in one.hosts | one.communities})
    actors = name_actors(connection, {actor for actor, _, _ in gathered})
    clusters = name_clusters(connection, {cluster for _, _, cluster in gathered})
    incidents = []
    for (actor_id, day, cluster_id), one in gathered.items():
        actor, cluster = actors.get(actor_id, ""), clusters[cluster_id].hex()
        how = surest(confirmed.get((each.tenant, each.sha256)) for each in one.media.values())
        if not one.now and how is None:
            continue  # flagged once, and judged harmless since
        incidents.append(
            Trace(
                id=name_incident(domain, actor, as_date(day), cluster),
                day=as_date(day),
                actor=actor,
                cluster=cluster,
                media=tuple(one.media[each] for each in sorted(one.media)),
                flagged_now=one.now,
                confirmed=how,
                hosts=tuple(sorted(texts[each] for each in one.hosts)),
                communities=tuple(sorted(texts[each] for each in one.communities)),
                posts=tuple(sorted(one.posts)),
            )
        )
    incidents.sort(key=lambda each: (-each.day.toordinal(), each.id))
    return Traces(tuple(incidents), whole=len(found_rows) <= SIGHTINGS_MOST, traced=traced)


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
        .limit(SIGHTINGS_MOST + 1)  # one more says that there are more
    )
    return list(connection.execute(query))


def _add_origins(
    connection: Connection,
    number: int,
    by_medium: Mapping[int, Collection[Key]],
    gathered: Mapping[Key, _Gathered],
) -> bool:
    """Hosts, communities and posts: of those origins that name the instance as the author's, and the same account.

    Whether all of them were looked at.
    """
    traced = True
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
            newest = query.order_by(ORIGINS.c.observed_at.desc(), ORIGINS.c.id).limit(ORIGINS_MOST + 1)
            rows = connection.execute(newest).all()
            traced = traced and len(rows) <= ORIGINS_MOST
            for row in rows[:ORIGINS_MOST]:
                for key in by_medium[row.media_id]:
                    if key[0] == row.actor_id:
                        _add_origin(gathered[key], row)
    return traced


def _add_origin(found: _Gathered, row: Any) -> None:
    if row.host_id and row.host_confidence:
        found.hosts.add(row.host_id)
    if row.community_id and row.community_confidence:
        found.communities.add(row.community_id)
    if row.post_url:
        found.posts.add(row.post_url)


def _day(at: int) -> date:
    return datetime.fromtimestamp(at / 1000, UTC).date()
