"""Origins, and the sightings that they amount to: who was seen with which subject, and how surely."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from federation_audit.presence.forgetting import forget_posts
from federation_audit.store.facts import Facts, Origin, Role
from federation_audit.store.identities import ActorKey, Identities, MediaKey, NameKey, TextKind
from federation_audit.store.rows import among, chunks, increase, put, remove, rows_by_bytes
from federation_audit.store.tables import ORIGINS, SIGHTINGS
from schemas.topics import DAY_MS

SURE_FROM = 2
"""Likely; see `facts.Origin`."""

Sighting = tuple[int, int, int, int, int]
"""Subject, role, instance, actor, day."""


class Attribution(NamedTuple):
    """Changes of origins that are not written yet."""

    rows: list[dict[str, Any]]
    gone: list[bytes]
    sure: dict[Sighting, int]
    origins: dict[Sighting, int]

    @property
    def subjects(self) -> set[int]:
        """Whose sightings change."""
        return {sighting[0] for sighting in self.origins}


def plan(
    connection: Connection,
    identities: Identities,
    facts: Facts,
    subjects: Mapping[MediaKey | NameKey, int],
    forgotten: Mapping[ActorKey, int],
) -> Attribution:
    """What the origins of `facts` change. `forgotten` are all actors who are, those of `facts` among them."""
    change = Attribution([], [], defaultdict(int), defaultdict(int))
    origins = {
        origin_id: each
        for origin_id, each in facts.origins.items()
        if each.actor is None or each.observed_at > forgotten.get(each.actor, -1)
    }
    if len(origins) < len(facts.origins):
        forget_posts(connection, {each.post_url for name, each in facts.origins.items() if name not in origins})
    texts = _texts(connection, identities, origins.values())
    actors = identities.actors(connection, {each.actor for each in origins.values() if each.actor is not None})
    known = {row.id: row for row in rows_by_bytes(connection, list(ORIGINS.columns), ORIGINS.c.id, origins.keys())}
    for origin_id, each in origins.items():
        old = known.get(origin_id)
        if old is None or (old.observed_at, old.tie) < (each.observed_at, each.tie):
            row = _as_row(origin_id, each, subjects, texts, actors)
            change.rows.append(row)
            _count(change, _Seen(**{name: row[name] for name in _Seen._fields}), 1)
            if old is not None:
                _count(change, _seen(old), -1)
    plan_forgetting(connection, identities, change, facts.forgotten)
    return change


def plan_forgetting(
    connection: Connection, identities: Identities, change: Attribution, forgotten: Mapping[ActorKey, int]
) -> None:
    """Add to `change` that what actors did until they were to be forgotten goes."""
    if not forgotten:
        return
    until = {number: forgotten[key] for key, number in identities.actors_there(connection, forgotten).items()}
    put_anyway = {row["id"] for row in change.rows}
    posts: set[str] = set()
    for chunk in chunks(until):
        for row in connection.execute(select(ORIGINS).where(among(connection, ORIGINS.c.actor_id, chunk))):
            if row.observed_at <= until[row.actor_id] and row.id not in put_anyway:
                plan_removal(change, row)
                posts.add(row.post_url)
    forget_posts(connection, posts)


def plan_removal(change: Attribution, row: Row[Any]) -> None:
    """Add to `change` that this row of origins goes."""
    change.gone.append(row.id)
    _count(change, _seen(row), -1)


def write(connection: Connection, change: Attribution) -> None:
    """Carry out what was planned."""
    put(connection, ORIGINS, change.rows)
    remove(connection, ORIGINS, [{"id": origin_id} for origin_id in change.gone])
    changed = [
        {**_named(sighting), "sure": change.sure.get(sighting, 0), "origins": origins}
        for sighting, origins in change.origins.items()
        if origins or change.sure.get(sighting, 0)
    ]
    increase(connection, SIGHTINGS, changed)
    lowered = [_named(sighting) | {"origins": 0} for sighting, origins in change.origins.items() if origins < 0]
    remove(connection, SIGHTINGS, lowered)


class _Seen(NamedTuple):
    """What of a row of origins makes sightings."""

    subject_id: int
    host_id: int
    host_confidence: int
    author_instance_id: int
    author_confidence: int
    actor_id: int
    community_instance_id: int
    community_confidence: int
    moment_at: int | None
    observed_at: int


_SIGHTING = ("subject_id", "role", "instance_id", "actor_id", "day")


def _named(sighting: Sighting) -> dict[str, int]:
    return dict(zip(_SIGHTING, sighting, strict=True))


def _seen(row: Row[Any]) -> _Seen:
    return _Seen(**{name: getattr(row, name) for name in _Seen._fields})


def _count(change: Attribution, seen: _Seen, sign: int) -> None:
    at = seen.observed_at if seen.moment_at is None else min(seen.moment_at, seen.observed_at)
    for role, instance, confidence, actor, day in (
        (Role.AUTHOR, seen.author_instance_id, seen.author_confidence, seen.actor_id, at // DAY_MS),
        (Role.COMMUNITY, seen.community_instance_id, seen.community_confidence, 0, 0),
        (Role.HOST, seen.host_id, seen.host_confidence, 0, 0),
    ):
        if instance:
            sighting = (seen.subject_id, int(role), instance, actor, day)
            change.origins[sighting] += sign
            if confidence >= SURE_FROM:
                change.sure[sighting] += sign


def _texts(
    connection: Connection, identities: Identities, origins: Collection[Origin]
) -> tuple[dict[str, int], dict[str, int]]:
    instances: set[str] = set()
    communities: set[str] = set()
    for each in origins:
        instances.update((each.host, each.author, each.community_instance))
        communities.add(each.community)
    return (
        identities.texts(connection, TextKind.INSTANCE, instances),
        identities.texts(connection, TextKind.COMMUNITY, communities),
    )


def _as_row(
    origin_id: bytes,
    each: Origin,
    subjects: Mapping[MediaKey | NameKey, int],
    texts: tuple[Mapping[str, int], Mapping[str, int]],
    actors: Mapping[ActorKey, int],
) -> dict[str, Any]:
    instances, communities = texts
    return {
        "id": origin_id,
        "subject_id": subjects[each.subject],
        "place": each.place,
        "method": each.method,
        "host_id": instances[each.host],
        "host_confidence": each.host_sure,
        "author_instance_id": instances[each.author],
        "author_confidence": each.author_sure,
        "actor_id": 0 if each.actor is None else actors[each.actor],
        "community_id": communities[each.community],
        "community_instance_id": instances[each.community_instance],
        "community_confidence": each.community_sure,
        "moment_at": each.moment_at,
        "moment_confidence": each.moment_sure,
        "post_url": each.post_url,
        "observer": each.observer,
        "observed_at": each.observed_at,
        "tie": each.tie,
    }


def expired(connection: Connection, first: int, last: int, horizon: int) -> Iterable[Row[Any]]:
    """The origins of the subjects from `first` to `last` that were observed before `horizon`."""
    query = select(ORIGINS).where(ORIGINS.c.subject_id.between(first, last), ORIGINS.c.observed_at < horizon)
    return connection.execute(query)
