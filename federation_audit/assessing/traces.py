"""What stands behind one instance: its incidents, with what is known of each, and what people did about it.

Only flagged images are traced, for only of them does the store know who sent them in detail.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Connection, Row, Select, select

from federation_audit.assessing.incidents import name_actors, name_incident, surest
from federation_audit.deciding.tables import DECISIONS, LETTERS, REMEDIATIONS
from federation_audit.statistics.events import Confirmation
from federation_audit.store.garbage import uncollected
from federation_audit.store.kept import Kept
from federation_audit.store.periods import as_date
from federation_audit.store.queries import instance_id, name_clusters, read_texts
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import EVIDENCE, FLAGS, JOINS, MEDIA, ORIGINS, TEXTS

SIGHTINGS_MOST = 5_000
"""Of an instance, so many sightings of flagged images are looked at, the newest first, and some that came since."""

ORIGINS_MOST = 20_000
"""So many of their origins are looked at for hosts, communities and posts, the newest first; and as many of those that
only a name leads to. One image may have a million."""

_GROWS_BY = 1.2
_KEPT_MOST = 4

Confirmed = Mapping[tuple[str, bytes], Confirmation]
"""How media are confirmed, by tenant and sha256."""

Key = tuple[int, int, int]
"""Actor, day, cluster."""

Sighting = tuple[int, int, int]
"""Day, medium, actor."""


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


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Sighted:
    """The incidents of an instance by cluster, each with the number of its sightings, and confirmed by nobody yet.

    `oldest` is the last sighting that was looked at, where there are older ones.
    """

    incidents: Mapping[int, tuple[Trace, ...]]
    sightings: Mapping[int, int]
    oldest: Sighting | None
    traced: bool


def read_traces(connection: Connection, domain: str, confirmed: Confirmed) -> Traces:
    """The incidents of the author's instance `domain`; `confirmed` says which media are, by tenant and sha256.

    Those of the instances that were asked for last are kept: whoever opens an instance opens several of its pages, and
    those of the largest take half a second to read. After a change, only the clusters that it was about are read.
    """
    with uncollected():
        sighted = _kept.get(connection, domain)
        made = _made.get(sighted)
        if made is None or made[0] != confirmed:
            made = (confirmed, _confirm(sighted, confirmed))
            _made[sighted] = made
    return made[1]


def _confirm(sighted: _Sighted, confirmed: Confirmed) -> Traces:
    incidents = []
    for each in chain.from_iterable(sighted.incidents.values()):
        how = surest(confirmed.get((medium.tenant, medium.sha256)) for medium in each.media)
        if how is not None:
            incidents.append(replace(each, confirmed=how))
        elif each.flagged_now:  # else flagged once, and judged harmless since
            incidents.append(each)
    incidents.sort(key=lambda each: (-each.day.toordinal(), each.id))
    return Traces(tuple(incidents), whole=sighted.oldest is None, traced=sighted.traced)


def _read_sighted(connection: Connection, domain: str) -> _Sighted:
    number = instance_id(connection, domain)
    if number is None:
        return _Sighted({}, {}, None, traced=True)
    newest = _sightings(number).order_by(EVIDENCE.c.day.desc(), EVIDENCE.c.media_id, EVIDENCE.c.actor_id)
    rows = connection.execute(newest.limit(SIGHTINGS_MOST + 1)).all()  # one more says that there are more
    looked_at = rows[:SIGHTINGS_MOST]
    last = looked_at[-1] if len(rows) > SIGHTINGS_MOST else None
    incidents, traced = _gather(connection, domain, number, looked_at)
    return _Sighted(
        incidents=incidents,
        sightings=Counter(row.cluster_id for row in looked_at),
        oldest=None if last is None else (last.day, last.media_id, last.actor_id),
        traced=traced,
    )


def _update_sighted(connection: Connection, domain: str, known: _Sighted, changed: Collection[int]) -> _Sighted:
    number = instance_id(connection, domain)
    if number is None:
        return _read_sighted(connection, domain)
    query = _sightings(number).where(among(connection, FLAGS.c.cluster_id, changed))
    rows = connection.execute(query if known.oldest is None else query.where(_not_older(known.oldest))).all()
    gone = set(changed)
    sightings = {cluster: count for cluster, count in known.sightings.items() if cluster not in gone}
    sightings |= Counter(row.cluster_id for row in rows)
    total = sum(sightings.values())
    if total > SIGHTINGS_MOST * _GROWS_BY or (known.oldest is not None and total < SIGHTINGS_MOST):
        return _read_sighted(connection, domain)
    incidents, traced = _gather(connection, domain, number, rows)
    return _Sighted(
        incidents={cluster: its for cluster, its in known.incidents.items() if cluster not in gone} | incidents,
        sightings=sightings,
        oldest=known.oldest,
        traced=known.traced and traced,
    )


_kept = Kept(_read_sighted, _update_sighted, most=_KEPT_MOST)
_made: WeakKeyDictionary[_Sighted, tuple[Confirmed, Traces]] = WeakKeyDictionary()


def _gather(
    connection: Connection, domain: str, number: int, rows: Sequence[Row[Any]]
) -> tuple[dict[int, tuple[Trace, ...]], bool]:
    """The incidents that these sightings, all of their clusters, stand for; and whether they are traced whole."""
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
    incidents: dict[int, list[Trace]] = defaultdict(list)
    for (actor_id, day, cluster_id), one in gathered.items():
        actor, cluster = actors.get(actor_id, ""), clusters[cluster_id].hex()
        incidents[cluster_id].append(
            Trace(
                id=name_incident(domain, actor, as_date(day), cluster),
                day=as_date(day),
                actor=actor,
                cluster=cluster,
                media=tuple(one.media[each] for each in sorted(one.media)),
                flagged_now=one.now,
                confirmed=None,
                hosts=tuple(sorted(texts[each] for each in one.hosts)),
                communities=tuple(sorted(texts[each] for each in one.communities)),
                posts=tuple(sorted(one.posts)),
            )
        )
    return {cluster: tuple(its) for cluster, its in incidents.items()}, traced


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


def _sightings(number: int) -> Select[Any]:
    return (
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
    )


def _not_older(oldest: Sighting) -> ColumnElement[bool]:
    """That a sighting is `oldest` or comes before it, the newest first."""
    day, medium, actor = oldest
    there = (EVIDENCE.c.media_id == medium) & (EVIDENCE.c.actor_id <= actor)
    return (EVIDENCE.c.day > day) | ((EVIDENCE.c.day == day) & ((EVIDENCE.c.media_id < medium) | there))


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
