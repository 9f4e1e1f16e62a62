"""What stands behind one instance: its incidents, with what is known of each, and what people did about it.

Only flagged images are traced, for only of them does the store know who sent them in detail.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Connection, Select, case, func, select

from federation_audit.assessing.incidents import name_actors, name_incident, surest
from federation_audit.deciding.tables import DECISIONS, LETTERS, REMEDIATIONS
from federation_audit.statistics.events import Confirmation
from federation_audit.store.kept import Kept
from federation_audit.store.memory import uncollected
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

KEPT_MOST = 20_000
"""So many sightings are kept in memory, of the instances that were asked for last: about a kilobyte each."""

_EACH_WEIGHS = 20  # of an instance without any: what it takes to keep that it has none
_LEAST_PREPARED = 1_000

Confirmed = Mapping[tuple[str, bytes], Confirmation]
"""How media are confirmed, by tenant and sha256."""

Key = tuple[int, int, int]
"""Actor, day, cluster."""

Sighting = tuple[int, int, int]
"""Day, medium, actor."""


class Medium(NamedTuple):
    """A tenant's file."""

    tenant: str
    sha256: bytes


class Trace(NamedTuple):
    """An incident of `instance`: one account's one picture (and what looks like it) on one day.

    `actor` is ``key id:pseudonym``, "" where only the instance is known; `flagged_now`: one of its images still is.
    `cluster` is what the picture goes by, the smallest sha256 (hex) of all that look like it; `hosts` and `communities`
    are those of its posts; `posts` what others wrote, unchecked.
    """

    instance: str
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
    def id(self) -> str:
        """What it goes by."""
        return name_incident(self.instance, self.actor, self.day, self.cluster)

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


class _Gathered:
    """What is known of an incident while it is read. Most have one medium, and less than one of the others."""

    __slots__ = ("communities", "hosts", "media", "now", "posts")

    def __init__(self) -> None:
        self.media: list[tuple[int, Medium]] = []
        self.now = 0
        self.hosts: set[int] | None = None
        self.communities: set[int] | None = None
        self.posts: set[str] | None = None


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

    Those of the instances that were asked for last are kept: whoever opens an instance opens several of its pages.
    After a change, only the clusters that it was about are read.
    """
    with uncollected():
        sighted = _kept.get(connection, domain)
        made = _made.get(sighted)
        if made is None or made[0] != confirmed:
            made = (confirmed, _confirm(sighted, confirmed))
            _made[sighted] = made
    return made[1]


def prepare_traces(connection: Connection) -> None:
    """Read those of the largest instances ahead, which take longest: up to half of what is kept."""
    count = func.count().label("count")
    sizes = (
        select(TEXTS.c.text, count)
        .join(EVIDENCE, EVIDENCE.c.instance_id == TEXTS.c.id)
        .group_by(TEXTS.c.id, TEXTS.c.text)
        .having(count >= _LEAST_PREPARED)
        .order_by(count.desc(), TEXTS.c.text)
        .limit(KEPT_MOST // _LEAST_PREPARED)
    )
    room = KEPT_MOST // 2
    for domain, size in connection.execute(sizes).all():
        room -= min(size, SIGHTINGS_MOST)
        if room < 0:
            break
        with uncollected():
            _kept.get(connection, domain)


def _confirm(sighted: _Sighted, confirmed: Confirmed) -> Traces:
    incidents = []
    for each in chain.from_iterable(sighted.incidents.values()):
        how = surest(map(confirmed.get, each.media))
        if how is not None:
            incidents.append(each._replace(confirmed=how))
        elif each.flagged_now:  # else flagged once, and judged harmless since
            incidents.append(each)
    incidents.sort(key=lambda each: (-each.day.toordinal(), each.actor, each.cluster))
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


def _weigh_sighted(sighted: _Sighted) -> int:
    return _EACH_WEIGHS + sum(sighted.sightings.values())


_kept = Kept(_read_sighted, _update_sighted, weigh=_weigh_sighted, most=KEPT_MOST)
_made: WeakKeyDictionary[_Sighted, tuple[Confirmed, Traces]] = WeakKeyDictionary()


def _gather(
    connection: Connection, domain: str, number: int, rows: Sequence[Any]
) -> tuple[dict[int, tuple[Trace, ...]], bool]:
    """The incidents that these sightings, all of their clusters, stand for; and whether they are traced whole."""
    named = {row.cluster_id for row in rows if row.actor_id}
    gathered: dict[Key, _Gathered] = {}
    of_medium: dict[int, list[tuple[int, _Gathered]]] = {}
    for media_id, actor_id, day, cluster_id, now, sha256, tenant in rows:
        if not actor_id and cluster_id in named:
            continue  # as the store counts: beside a known account, one that is not known is no other
        key = (actor_id, day, cluster_id)
        one = gathered.get(key)
        if one is None:
            one = gathered[key] = _Gathered()
        one.media.append((media_id, Medium(tenant, bytes(sha256))))
        one.now |= now
        of_medium.setdefault(media_id, []).append((actor_id, one))
    traced = _add_origins(connection, number, of_medium)
    several = [some for one in gathered.values() for some in (one.hosts, one.communities) if some]
    texts = read_texts(connection, set().union(*several))
    actors = name_actors(connection, {actor for actor, _, _ in gathered})
    clusters = name_clusters(connection, {cluster for _, _, cluster in gathered})
    days = {day: as_date(day) for _, day, _ in gathered}
    incidents: dict[int, list[Trace]] = defaultdict(list)
    for (actor_id, day, cluster_id), one in gathered.items():
        incidents[cluster_id].append(
            Trace(
                instance=domain,
                day=days[day],
                actor=actors.get(actor_id, ""),
                cluster=clusters[cluster_id].hex(),
                media=tuple(medium for _, medium in sorted(one.media)),
                flagged_now=bool(one.now),
                confirmed=None,
                hosts=tuple(sorted(texts[each] for each in one.hosts)) if one.hosts else (),
                communities=tuple(sorted(texts[each] for each in one.communities)) if one.communities else (),
                posts=tuple(sorted(one.posts)) if one.posts else (),
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
    connection: Connection, number: int, of_medium: Mapping[int, Collection[tuple[int, _Gathered]]]
) -> bool:
    """Hosts, communities and posts: of those origins that name the instance as the author's, and the same account.

    `of_medium` has the incidents of each medium, with their actors. Whether all origins were looked at.
    """
    traced = True
    columns = (
        ORIGINS.c.actor_id,
        case((ORIGINS.c.host_confidence > 0, ORIGINS.c.host_id), else_=0),
        case((ORIGINS.c.community_confidence > 0, ORIGINS.c.community_id), else_=0),
        ORIGINS.c.post_url,
    )
    for chunk in chunks(of_medium):
        own = select(ORIGINS.c.subject_id, *columns).where(
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
            for medium, actor, *where in rows[:ORIGINS_MOST]:
                for its_actor, one in of_medium[medium]:
                    if its_actor == actor:
                        _add_origin(one, *where)
    return traced


def _add_origin(one: _Gathered, host: int, community: int, post: str) -> None:
    if host:
        one.hosts = one.hosts or set()
        one.hosts.add(host)
    if community:
        one.communities = one.communities or set()
        one.communities.add(community)
    if post:
        one.posts = one.posts or set()
        one.posts.add(post)


def _day(at: int) -> date:
    return datetime.fromtimestamp(at / 1000, UTC).date()
